"""Draw the effect of each augmentation and mixer on a sample: one sheet for events, mixed events and images each."""

import random
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import Mixup
from torchvision.transforms import Compose

from braincog_transformers.data.events.frames import events_to_frames
from braincog_transformers.data.events.mixing import CutMix, EventMix, MixUp
from braincog_transformers.data.events.saccades import Saccades, simulate
from braincog_transformers.data.events.transforms import event_transforms
from braincog_transformers.data.pictures.digits import digit_pictures
from braincog_transformers.data.pictures.transforms import picture_transforms
from braincog_transformers.data.readers import make_events
from braincog_transformers.data.settings import Augment
from braincog_transformers.recipe import ENTRIES
from braincog_transformers.training.loaders import ImageMixer

STEPS, SIDE = 4, 34
PLAIN = Augment(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0, vflip=0.0, color_jitter=0.0, aa="", reprob=0.0, remode="const",
    recount=1, train_interpolation="bicubic", interpolation="bicubic", crop_pct=1.0, event_augment="none",
)  # fmt: skip


def moving_letter():
    """Move a bright L across the sensor: where it arrives pixels turn ON, where it leaves they turn OFF."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    events, before = [], np.zeros((SIDE, SIDE), bool)
    for t, u in enumerate(np.linspace(0, 1, 61)):
        y, x = rows - 17 - 5 * np.sin(6 * u), columns - 5 - 20 * u
        there = (abs(y) < 9) & (abs(x) < 2.5) | (abs(y - 6.5) < 2.5) & (abs(x - 3) < 6)
        y, x = np.nonzero(there != before)
        if t:
            events.append(make_events(np.full(len(x), 1000 * t), x, y, there[y, x]))
        before = there
    return np.concatenate(events)


def frames(events):
    return torch.from_numpy(events_to_frames(events, STEPS, (SIDE, SIDE)))


def coloured(*samples):
    """Put the frames (T, 2, H, W) side by side: ON red, OFF blue, both dark, none white."""
    sample = torch.cat(samples)
    off, on = (sample.clamp(0, 3) / 3).sqrt().unbind(1)
    pictures = torch.stack([1 - off, 1 - (on + off).clamp(max=1), 1 - on], -1)
    return torch.nn.functional.pad(pictures, (0, 0, 1, 1, 1, 1), value=0.75).transpose(0, 1).flatten(1, 2).numpy()


def varied(transform, sample, plain):
    """Apply a transform with 12 seeds, and take a result that changes more than most do."""
    results = []
    for seed in range(12):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        results.append(transform(sample))
    return sorted(results, key=lambda result: (result - plain).abs().mean())[9]


def draw(path, cells, *, columns, width, height):
    """Draw (title, picture) cells in rows, with as few colours as the eye needs, so that the file stays small."""
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(columns * width, rows * height), dpi=100, layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(rows, columns).flat, cells, strict=False):
        axes.imshow(picture, interpolation="nearest", cmap="gray")
        axes.set_title(title, fontsize=8, pad=2)
    for axes in figure.axes:
        axes.set_axis_off()
    figure.savefig(path)
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(path, optimize=True)
    print("wrote", path)


def event_sheet(path, samples):
    names = [name for name in ENTRIES["event_augment"].metadata["choices"] if name != "none"]
    chosen = {f"--event-augment {name}": Augment(event_augment=name) for name in names}
    chosen["--hflip 1"] = Augment(hflip=1.0)
    chosen["--rand-aug"] = Augment(rand_aug=True)
    chosen["--event-augment rotate event_drop"] = Augment(event_augment=("rotate", "event_drop"))
    cells = [("no augmentation", coloured(*samples))]
    for title, augment in chosen.items():
        transform = Compose(event_transforms(augment.filled(PLAIN)))
        cells.append((title, coloured(*(varied(transform, sample, sample) for sample in samples))))
    draw(path, cells, columns=2, width=5, height=0.82)


def mixer_sheet(path, pairs):
    cells = []
    for pair in pairs:
        cells += [("first", coloured(pair[0])), ("second", coloured(pair[1]))]
        for mixer in (MixUp, CutMix, EventMix):
            for seed in range(100):
                mixed, soft = mixer(2, prob=1.0)(pair, torch.tensor([0, 1]), torch.Generator().manual_seed(seed))
                if 0.4 < soft[0, 0] < 0.6:
                    break
            cells.append((f"{mixer.__name__}: {soft[0, 0]:.2f} first, {soft[0, 1]:.2f} second", coloured(mixed[0])))
    draw(path, cells, columns=5, width=2.6, height=0.85)


def image_sheet(path, pictures):
    chosen = {
        "no augmentation": {},
        "--scale 0.3 1": {"scale": (0.3, 1.0), "ratio": (0.75, 1.33)},
        "--hflip 1": {"hflip": 1.0},
        "--color-jitter 0.4": {"color_jitter": 0.4},
        "--aa rand-m9-mstd0.5-inc1": {"aa": "rand-m9-mstd0.5-inc1"},
        "--aa spikformer-m9-n1": {"aa": "spikformer-m9-n1-mstd0.4-inc1"},
        "--aa augmix-m5-w4-d2": {"aa": "augmix-m5-w4-d2"},
        "--aa v0": {"aa": "v0"},
        "--reprob 1": {"reprob": 1.0},
        "--reprob 1 --remode pixel": {"reprob": 1.0, "remode": "pixel"},
    }
    cells = []
    for picture, size, partner in pictures:
        found = []
        for title, changed in chosen.items():
            transform, test = picture_transforms(
                (size, size), Augment(**changed).filled(PLAIN), mean=(0.5,) * 3, std=(0.5,) * 3, normalize=False
            )
            found.append((title, varied(transform, picture, test(picture))))
        pair = torch.stack([test(picture), test(partner)])
        for title, alphas in (("--mixup 1", (1.0, 0.0)), ("--cutmix 1", (0.0, 1.0))):
            np.random.seed(5)
            mixer = ImageMixer(Mixup(*alphas, num_classes=2, label_smoothing=0.0))
            found.append((title, mixer(pair, torch.tensor([0, 1]), torch.Generator())[0][0]))
        cells += [(title, image.permute(1, 2, 0).numpy()) for title, image in found]
    draw(path, cells, columns=6, width=1.75, height=1.9)


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    digits, _ = digit_pictures(train=True)
    one, two = (frames(events) for events in simulate(digits[:2], Saccades(), range(2)))
    letter = frames(moving_letter())
    event_sheet(folder / "event_augmentations.png", [one, letter])
    mixer_sheet(folder / "event_mixers.png", torch.stack([torch.stack([one, two]), torch.stack([letter, one])]))
    flower, china = (Image.fromarray(load_sample_image(name)) for name in ("flower.jpg", "china.jpg"))
    photos = [photo.crop((100, 0, 527, 427)).resize((96, 96)) for photo in (flower, china)]
    scans = [Image.fromarray(np.uint8(digits[i] * 255)).convert("RGB").resize((32, 32)) for i in (0, 1)]
    image_sheet(folder / "image_augmentations.png", [(photos[0], 96, photos[1]), (scans[0], 32, scans[1])])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "output/augmentation"))
