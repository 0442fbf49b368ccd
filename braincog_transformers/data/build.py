"""From a name and a folder to a training and a test set: the one call that the rest of the package makes."""

from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from ..errors import UserError, unknown
from .cache import FrameRule
from .catalog import DatasetInfo, lookup
from .event_transforms import PolaritySum, event_transforms
from .events import event_datasets
from .frames import FRAME_KINDS, FRAME_NORMS, FRAMES_BY, REMAINDERS, RESIZES, event_channels
from .image_transforms import picture_transforms
from .images import PictureDataset, Pictures, picture_sources
from .photo_sets import FilePictures
from .pictures import MOST_PIXELS
from .pixels import pixel_datasets
from .places import describe
from .sequences import sequence_datasets
from .settings import Augment
from .sources import Source, SourcePictures
from .streams import PictureStream

__all__ = ["Augment", "DataBundle", "build_datasets", "describe"]

LABEL_ORDERS = ("number", "text")


@dataclass(frozen=True)
class DataBundle:
    """Hold what training needs to know of its data.

    Args:
        info: entry of the catalogue.
        train: samples (x, label), augmented.
        test: samples (x, label), not varied.
        num_classes: classes in the data that were found.
        input_shape: of one sample: (C, H, W), (T, C, H, W) for events, or (T, channels) for a sequence.
        classes: names in the order of the labels.
        left_out: what was wrong with each recording that `skip_bad` left out.
    """

    info: DatasetInfo
    train: Dataset
    test: Dataset
    num_classes: int
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def build_datasets(
    name: str,
    data_dir: str | Path,
    *,
    step: int = 4,
    size: tuple[int, int] | None = None,
    in_chans: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    download: bool = False,
    cache_dir: str | Path | None = None,
    use_cache: bool = True,
    workers: int = 0,
    skip_bad: bool = False,
    train_portion: float = 0.9,
    split: str | None = None,
    split_seed: int = 0,
    frames_by: str = "number",
    remainder: str = "last",
    resize: str = "area",
    frames: str = "count",
    surface_tau: float = 50_000.0,
    clip_counts: int | None = None,
    frame_norm: str = "none",
    merge_polarity: bool = False,
    polarity_sum: bool = False,
    label_order: str = "number",
    augment: Augment | None = None,
    normalize: bool = True,
    source: Source | None = None,
    num_classes: int | None = None,
    max_pixels: int = MOST_PIXELS,
    needs_train: bool = True,
) -> DataBundle:
    """Build the training and the test set of one name.

    Args:
        name: in `DATASETS`.
        data_dir: folder in which the set is looked for.
        step: T, frames per recording; pictures have no steps, and a set with a `length` has that many.
        size: (H, W) of a sample; by default the set's own, and always that for a sequence.
        in_chans: channels; grey pictures can be had with 3, everything else only as it is.
        mean: per channel of pictures; by default the set's.
        std: the same.
        download: fetch a missing set, where that is possible.
        cache_dir: of cached frames and simulated recordings; by default `cache` in the data folder.
        use_cache: keep event frames on disk; otherwise recordings are read at each access.
        workers: processes that read recordings when the cache is built.
        skip_bad: leave recordings out that can't be read, see `DataBundle.left_out`.
        train_portion: share of training samples where a set has no test split, above 0 and below 1.
        split: named rule there; by default the set's first. Or `valid`, for the validation samples of a set that has
            them in the place of the test samples.
        split_seed: of the split `random`.
        frames_by: `number` or `time`, see `frames`.
        remainder: `last` or `drop`, see `frames`.
        resize: `area` or `bilinear`, see `frames`.
        frames: `count`, `voxel` or `surface`, see `frames`.
        surface_tau: time constant of surfaces in microseconds.
        clip_counts: largest count of a sensor's pixel; 1 makes binary frames.
        frame_norm: `none`, `max` or `mean`, see `frames.normalize_frames`.
        merge_polarity: count both polarities together, in one channel.
        polarity_sum: append the sum of both polarities to event frames as a third channel.
        label_order: `number` for the data set's own labels, `text` for SpikingJelly's of DVS128 Gesture: class folders
            "0" to "10" sorted as text, so that label 2 is class 10, and for BrainCog's of Bullying10K, by name.
        augment: how training samples are varied; by default as the set's entry says.
        normalize: bring pictures to zero mean; otherwise they stay in [0, 1]. Events are raw counts either way.
        source: read photos from here, through timm's dataset factory, and not from folders.
        num_classes: of a source that does not name its classes; by default the set's.
        max_pixels: of a photo; a larger one is refused.
        needs_train: whether photos for training have to be there; otherwise the training set may be empty.

    Raises:
        UserError: for an unknown name or rule, missing or damaged data, or a value that doesn't fit the set.
    """
    info = lookup(name)
    size = _checked_size(size or info.size)
    augment = (augment or Augment()).filled(info.augment)
    chans = _channels(info, in_chans, frames=frames, merge=merge_polarity, appended=polarity_sum)
    order = _class_order(info, label_order)
    if not info.splits:
        _refuse_split(info, split, train_portion)
    if info.kind == "image":
        colours = [_per_channel(mean or info.mean, chans, "--mean"), _per_channel(std or info.std, chans, "--std")]
        if source is not None:
            return _source_pictures(
                info, source, size, colours, augment, normalize, num_classes, max_pixels=max_pixels,
                needs_train=needs_train,
            )  # fmt: skip
        found = picture_sources(info, Path(data_dir), download=download, max_pixels=max_pixels, train=needs_train)
        return _pictures(info, found, size, colours, augment, normalize=normalize)
    if mean or std:
        has = "its own mean and deviation" if info.mean else "raw counts, which are not normalised"
        raise UserError(f"data set {name} has {has}; leave out --mean and --std")
    if info.length:
        sides = pixel_datasets(info, Path(data_dir), download=download)
        return DataBundle(info, *sides, info.num_classes, (info.length, info.size[1]), info.classes)
    _check_rules(
        step=step, frames_by=frames_by, remainder=remainder, resize=resize, frames=frames, frame_norm=frame_norm,
        clip_counts=clip_counts, surface_tau=surface_tau,
    )  # fmt: skip
    if info.kind == "sequence":
        sides = sequence_datasets(info, Path(data_dir), step, download=download, split=split)
        classes = info.classes or sides[0].classes
        return DataBundle(info, *sides, info.num_classes, (step, info.size[1]), classes)
    if info.given_steps:
        _check_given(info, step, frames_by, remainder)
        frames_by = "given"
    rule = FrameRule(
        sensor=info.size, size=size, steps=step, kind=frames, by=frames_by, remainder=remainder, clip=clip_counts,
        merge=merge_polarity, tau_us=surface_tau, resize=resize, norm=frame_norm,
    )  # fmt: skip
    appended = (PolaritySum(),) if polarity_sum else ()
    train, test = event_datasets(
        info,
        Path(data_dir),
        Path(cache_dir or Path(data_dir) / "cache"),
        rule,
        transforms=(*event_transforms(augment), *appended),
        test_transforms=appended,
        use_cache=use_cache,
        workers=workers,
        skip_bad=skip_bad,
        split=split,
        train_portion=train_portion,
        split_seed=split_seed,
        class_order=order,
        download=download,
    )
    classes = tuple(info.classes[label] for label in order) if info.classes else ()
    left_out = (*train.left_out, *test.left_out)
    return DataBundle(info, train, test, info.num_classes, (step, chans, *size), classes, left_out)


def _pictures(
    info: DatasetInfo,
    found: tuple[Pictures, Pictures, tuple[str, ...]],
    size: tuple[int, int],
    colours: list[tuple[float, ...]],
    augment: Augment,
    *,
    normalize: bool,
) -> DataBundle:
    train, test, classes = found
    mean, std = colours
    varied, plain = picture_transforms(size, augment, mean=mean, std=std, normalize=normalize)
    mode = "L" if len(mean) == 1 else "RGB"
    sets = (PictureDataset(s, mode=mode, transform=t) for s, t in ((train, varied), (test, plain)))
    return DataBundle(info, *sets, len(classes), (len(mean), *size), classes)


def _source_pictures(
    info: DatasetInfo,
    source: Source,
    size: tuple[int, int],
    colours: list[tuple[float, ...]],
    augment: Augment,
    normalize: bool,
    num_classes: int | None,
    *,
    max_pixels: int,
    needs_train: bool,
) -> DataBundle:
    mean, std = colours
    varied, plain = picture_transforms(size, augment, mean=mean, std=std, normalize=normalize)
    kind = PictureStream if source.streamed else SourcePictures
    ends = {"num_classes": num_classes or info.num_classes, "max_pixels": max_pixels}
    try:
        train = kind(source, train=True, transform=varied, **ends)
    except UserError:
        if needs_train:
            raise
        train = None
    test = kind(source, train=False, transform=plain, **ends)
    if train is None:
        train = PictureDataset(FilePictures([], []), mode="RGB", transform=varied)
    elif train.classes != test.classes:
        raise UserError(f"--dataset-source {source.name}: its two splits have different classes; give a --class-map")
    return DataBundle(info, train, test, test.num_classes, (len(mean), *size), test.classes)


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"the size of a sample must be two sides of 1 pixel or more; got {tuple(size)}")
    return int(size[0]), int(size[1])


def _channels(info: DatasetInfo, wanted: int | None, *, frames: str, merge: bool, appended: bool) -> int:
    given = "--polarity-sum" * appended or "--merge-polarity" * merge
    if given and info.kind != "event":
        raise UserError(f"data set {info.name} holds no events, which alone have polarities; leave out {given}")
    if given and (frames == "voxel" or (merge and appended)):
        raise UserError(f"{given}: frames {frames!r} of one channel have no two polarities to add; leave it out")
    has = event_channels(frames, merge=merge, appended=appended) if info.kind == "event" else info.in_chans
    grey = info.kind == "image" and has == 1
    if wanted in (None, has):
        return has
    if grey and wanted == 3:
        return 3
    can = "1 channel, or 3 with the grey values repeated" if grey else f"{has} channel{'s' * (has > 1)}"
    raise UserError(f"data set {info.name} gives {can}; got in_chans={wanted}, choose a model with such an input")


def _per_channel(values: tuple[float, ...], chans: int, flag: str) -> tuple[float, ...]:
    values = tuple(values)
    if len(values) == 1:
        values *= chans
    if len(values) != chans:
        raise UserError(f"{flag} needs one number, or one for each of {chans} channels; got {len(values)}")
    if flag == "--std" and min(values) <= 0:
        raise UserError(f"--std must be above 0; got {min(values)}")
    return values


def _class_order(info: DatasetInfo, rule: str) -> list[int]:
    """Return the class behind each label."""
    if rule not in LABEL_ORDERS:
        raise unknown("rule of --label-order", rule, LABEL_ORDERS)
    if rule == "text" and not info.text_order:
        raise UserError(f"data set {info.name} has one order of labels; leave out --label-order")
    return list(info.text_order) if rule == "text" else list(range(info.num_classes))


def _check_given(info: DatasetInfo, step: int, frames_by: str, remainder: str) -> None:
    if info.given_steps % step:
        raise UserError(f"data set {info.name} comes in {info.given_steps} steps; --step must divide them, got {step}")
    if (frames_by, remainder) != ("number", "last"):
        raise UserError(f"data set {info.name} comes in steps of its own; leave out --frames-by and --remainder")


_CHOICES = {
    "frames_by": ("rule of --frames-by", FRAMES_BY),
    "remainder": ("rule of --remainder", REMAINDERS),
    "resize": ("resizing of events", RESIZES),
    "frames": ("kind of --frames", FRAME_KINDS),
    "frame_norm": ("rule of --frame-norm", FRAME_NORMS),
}


def _check_rules(*, step: int, clip_counts: int | None, surface_tau: float, **chosen: str) -> None:
    if step < 1:
        raise UserError(f"--step must be 1 or more; got {step}")
    if clip_counts is not None and clip_counts < 1:
        raise UserError(f"--clip-counts must be 1 or more; got {clip_counts}")
    if not surface_tau > 0:
        raise UserError(f"--surface-tau must be above 0 microseconds; got {surface_tau}")
    for name, value in chosen.items():
        kind, choices = _CHOICES[name]
        if value not in choices:
            raise unknown(kind, value, choices)


def _refuse_split(info: DatasetInfo, split: str | None, train_portion: float) -> None:
    if info.validation and split == "valid":
        split = None
    if split is not None or train_portion != 0.9:
        raise UserError(f"data set {info.name} has its own test split; leave out --split and --train-portion")
