"""Make the README's pictures from runs that this script starts: `python docs/make_pictures.py [OPTION] [FOLDER]`.

Everything is trained here, on the embedded digits, through the command line: minutes on two cores, nothing to download.
With `--quick`, to try the script, networks are trained for a few batches, small ones are drawn, and none is converted.
With `--architectures`, only the diagrams are drawn. Pictures go to FOLDER, by default `img/`.
"""

import csv
import io
import runpy
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import default_collate

from braincog_transformers import analyze
from braincog_transformers.analysis.energy import METHODS
from braincog_transformers.analysis.pictures import plots
from braincog_transformers.analysis.pictures.diagram import draw_architecture
from braincog_transformers.analysis.pictures.visualize import draw_attention
from braincog_transformers.checkpoints import load_checkpoint
from braincog_transformers.cli import main as command
from braincog_transformers.data.build import build_datasets

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "examples" / "recipes"
LARGEST_SVG = 300_000
"""Bytes; a larger one is left out."""
FAMILIES = {
    "Spikformer": ("spikformer_digits", "spikformer_8_512"),
    "Spikingformer": ("spikingformer_digits", "spikingformer_8_512"),
    "Spike-driven Transformer": ("sdt_digits", "sdt_8_512"),
    "Spike-driven Transformer V2": ("sdt_v2_digits", "sdt_v2_55m"),
    "QKFormer": ("qkformer_digits", "qkformer_10_512"),
    "SGLFormer": ("sglformer_digits", "sglformer_8_512"),
    "SpikingResformer": ("spikingresformer_digits", "spikingresformer_s"),
    "TIM": (None, "tim_2_256_dvs"),
    "Spike-driven Transformer V3": (None, "sdt_v3_19m"),
    "Spike-driven Transformer V3, large": (None, "sdt_v3_83m"),
    "Spikeformer": (None, "spikeformer_7_3x2x3"),
    "STS-Transformer": (None, "stsa_2_256"),
    "OST": (None, "ost_8_512_imagenet"),
    "AutoST": (None, "autost_small"),
    "Spikformer V2": (None, "spikformer_v2_8_512"),
    "Attention-free Spikformer": (None, "attention_free_spikformer_4_384_cifar"),
    "DISTA": (None, "dista_4_384_cifar"),
    "Dynamic SpikFormer": (None, "dynamic_spikformer_4_384_cifar"),
}
"""The network whose energy is compared, trained on digits, and the one whose architecture is drawn."""
COLOURS = {
    "spikingformer method": plots.BLUE,
    "sdt method": plots.AMBER,
    "same layers, dense, once": plots.GRID,
}
STEPS = 4
"""Time steps of the networks whose energy is compared."""


@dataclass
class Length:
    """How long a training is: so many "epochs", or "steps"."""

    count: int
    unit: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """Say it on the command line."""
        return ("--max-steps" if self.unit == "steps" else "--epochs", str(self.count))


def run(experiment: str, recipe: str, work: Path, *arguments: str) -> Path:
    """Train by a recipe and return the run's folder."""
    options = ["--output", str(work), "--experiment", experiment, "--warmup-epochs", "0", *arguments]
    with redirect_stdout(io.StringIO()) as log:
        status = command(["-c", str(RECIPES / f"{recipe}.yaml"), *options])
    if status:
        raise SystemExit(log.getvalue())
    return work / experiment


def load(trained: Path, name: str, dataset: str, **sizes: int) -> tuple[nn.Module, torch.Tensor]:
    """Return a run's network and all samples that it was tested on."""
    model = timm.create_model(name, threshold=0.5, **sizes)
    load_checkpoint(model, trained / "last.pth.tar")
    data = build_datasets(dataset, "data", use_cache=False, size=model.img_size, step=model.step)
    return model.eval(), default_collate(list(data.test))[0]


def keep(picture: Path, target: Path) -> None:
    """Copy a picture with as few colours as the eye needs, and its SVG if that is small."""
    target.parent.mkdir(parents=True, exist_ok=True)
    colours = Image.open(picture).convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours.save(target, optimize=True)
    vector = picture.with_suffix(".svg")
    target.with_suffix(".svg").unlink(missing_ok=True)
    if vector.exists() and vector.stat().st_size < LARGEST_SVG:
        shutil.copy(vector, target.with_suffix(".svg"))
    print(f"wrote {target}, {target.stat().st_size / 2**10:.0f} KiB", flush=True)


def draw_events(folder: Path, work: Path, length: Length) -> None:
    """Draw what the neurons and the attention of a network trained on event data do."""
    trained = run("events", "spikformer_ndigits", work, *length.arguments, "--visualize")
    for name in ("spike_raster", "spike_maps"):
        keep(trained / f"{name}.png", folder / f"{name}.png")
    model, batch = load(trained, "spikformer_ndigits", "ndigits")
    keep(draw_attention(model, batch, work), folder / "attention.png")


@dataclass
class Bars:
    """What the energy picture says of a family: mJ by each method and of the dense network, and how it does."""

    family: str
    energies: list[float]
    top1: float
    rate: float


def measure(family: str, name: str, work: Path, length: Length) -> Bars:
    """Train a family's smallest network and estimate its energy by both methods."""
    options = ["--model", name, "--step", str(STEPS), "--bn-momentum", "0.3", "--no-spike-rate"]
    trained = run(name, "spikformer_digits", work, *options, *length.arguments)
    model, batch = load(trained, name, "digits", step=STEPS)
    found = [analyze(model, batch.split(90), method=method) for method in METHODS]
    last = list(csv.DictReader((trained / "summary.csv").open()))[-1]
    energies = [*(each.energy for each in found), found[0].ann_energy]
    return Bars(family, energies, float(last["test_top1"]), float(last["firing_rate"]))


def draw_energy(folder: Path, work: Path, length: Length) -> None:
    """Draw the energy of the families' smallest networks beside their accuracy and firing rates."""
    rows = [measure(family, name, work, length) for family, (name, _) in FAMILIES.items() if name]
    figure = plots.new_figure(9.0, 0.9 + 0.62 * len(rows))
    ax = plots.new_grid(figure, 1, 1)[0, 0]
    for place, row in enumerate(rows):
        for shift, energy, (name, colour) in zip((-0.26, 0, 0.26), row.energies, COLOURS.items(), strict=True):
            value = 1000 * energy
            ax.barh(place + shift, value, 0.24, color=colour, label=name if not place else None)
            ax.annotate(f"{value:.3g}", (value, place + shift), (3, 0), textcoords="offset points", va="center",
                        fontsize=8, color=plots.GREY)  # fmt: skip
    for across, title, texts in (
        (1.03, "accuracy", [f"{row.top1:.1f} %" for row in rows]),
        (1.15, "spikes per\nneuron, step", [f"{row.rate:.3f}" for row in rows]),
    ):
        beside = {"xycoords": ("axes fraction", "data"), "fontsize": 8.5}
        ax.annotate(title, (across, -0.55), va="bottom", color=plots.GREY, **beside)
        for place, text in enumerate(texts):
            ax.annotate(text, (across, place), va="center", **beside)
    ax.set(
        yticks=range(len(rows)), xlabel=f"\u00b5J for one digit, T = {STEPS} (estimate)", ylim=(len(rows) - 0.45, -0.6)
    )
    ax.set_yticklabels([row.family for row in rows], fontsize=9.5)
    ax.tick_params(axis="y", length=0)
    ax.set_title(
        f"smallest network of each family after {length.count} {length.unit} on 8 \u00d7 8 digits",
        fontsize=10.5,
        pad=28,
    )
    figure.legend(fontsize=8.5, loc="outside lower center", ncols=3, frameon=False)
    keep(plots.save(figure, work / "energy_families.png"), folder / "energy_families.png")


def fresh(name: str) -> nn.Module:
    """Build a network with random weights in which neurons fire, some now and then, as after training."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0.4, 0.8)
        elif isinstance(getattr(module, "fc1", None), nn.Linear):  # an MLP without normalisations
            nn.init.normal_(module.fc1.bias, 0.4, 0.8)
        elif isinstance(getattr(module, "rate", None), torch.Tensor):
            nn.init.uniform_(module.rate)  # SpikingResformer's running firing rates, which begin at nothing
    return model


def draw_architectures(folder: Path, work: Path, quick: bool) -> None:
    """Draw one network of each family."""
    for small, published in FAMILIES.values():
        name = small or published if quick else published
        model = fresh(name)
        file = type(model).__module__.rpartition(".")[2] + ".png"
        keep(draw_architecture(model, work / file, title=name), folder / "architecture" / file)


def draw_conversions(folder: Path, work: Path) -> None:
    """Draw accuracy and energy of a network that is converted by each method; the example does it."""
    with mock.patch.object(sys, "argv", ["convert_vit.py", str(work)]):
        runpy.run_path(str(ROOT / "examples" / "convert_vit.py"))
    keep(work / "conversion.png", folder / "conversion.png")


def main(arguments: list[str]) -> None:
    """Make all pictures."""
    quick = "--quick" in arguments
    given = [argument for argument in arguments if not argument.startswith("--")]
    folder = Path(given[0]) if given else ROOT / "img"
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        draw_architectures(folder, work, quick)
        if "--architectures" in arguments:
            return
        draw_events(folder, work, Length(4, "steps") if quick else Length(8, "epochs"))
        draw_energy(folder, work, Length(4, "steps") if quick else Length(3, "epochs"))
        if not quick:
            draw_conversions(folder, work)


if __name__ == "__main__":
    main(sys.argv[1:])
