"""Make the README's pictures from runs that this script starts: `python docs/make_pictures.py [--quick] [FOLDER]`.

Everything is trained here, on the embedded digits, through the command line: minutes on two cores, nothing to download.
With `--quick` the runs are shorter. Pictures go to FOLDER, by default `img/`.
"""

import csv
import shutil
import sys
import tempfile
from pathlib import Path

import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import default_collate

from braincog_transformers import analyze
from braincog_transformers.analysis import plots
from braincog_transformers.analysis.diagram import draw_architecture
from braincog_transformers.analysis.energy import METHODS
from braincog_transformers.analysis.look import draw_attention
from braincog_transformers.checkpoints import load_checkpoint
from braincog_transformers.cli import main as command
from braincog_transformers.data.build import build_datasets

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "examples" / "recipes"
LARGEST_SVG = 300_000
"""Bytes; a larger one is left out."""
FAMILIES = {
    "Spikformer": "spikformer_digits",
    "Spikingformer": "spikingformer_digits",
    "Spike-driven Transformer": "sdt_digits",
    "Spike-driven Transformer V2": "sdt_v2_digits",
    "QKFormer": "qkformer_digits",
    "SGLFormer": "sglformer_digits",
    "SpikingResformer": "spikingresformer_digits",
}
ARCHITECTURES = {
    "spikformer": "spikformer_8_512",
    "spikingformer": "spikingformer_8_512",
    "sdt": "sdt_8_512",
    "sdt_v2": "sdt_v2_55m",
    "qkformer": "qkformer_10_512",
    "sglformer": "sglformer_8_512",
    "spikingresformer": "spikingresformer_s",
    "tim": "tim_2_256_dvs",
}


def run(recipe: str, folder: Path, *arguments: str) -> Path:
    """Train by a recipe and return the run's folder."""
    name = f"{len(list(folder.iterdir()))}"
    if status := command(
        ["-c", str(RECIPES / recipe), "--output", str(folder), "--experiment", name, "--warmup-epochs", "0", *arguments]
    ):
        raise SystemExit(status)
    return folder / name


def load(trained: Path, name: str, dataset: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a run's network and all samples that it was tested on."""
    model = timm.create_model(name, threshold=0.5)
    load_checkpoint(model, trained / "last.pth.tar")
    return model.eval(), default_collate(
        list(build_datasets(dataset, "data", use_cache=False, size=model.img_size, step=model.step).test)
    )[0]


def keep(picture: Path, target: Path) -> None:
    """Copy a picture with as few colours as the eye needs, and its SVG if that is small."""
    target.parent.mkdir(parents=True, exist_ok=True)
    colours = Image.open(picture).convert("RGB").quantize(96, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours.save(target, optimize=True)
    vector = picture.with_suffix(".svg")
    target.with_suffix(".svg").unlink(missing_ok=True)
    if vector.exists() and vector.stat().st_size < LARGEST_SVG:
        shutil.copy(vector, target.with_suffix(".svg"))
    print(f"wrote {target}, {target.stat().st_size / 2**10:.0f} KiB")


def draw_runs(folder: Path, work: Path, epochs: int) -> None:
    """Draw what the neurons and the attention of two trained networks do."""
    common = ("--epochs", str(epochs), "--visualize")
    digits = run("spikformer_digits.yaml", work, *common)
    events = run("spikformer_ndigits.yaml", work, *common)
    keep(digits / "firing_rates.png", folder / "firing_rates.png")
    for name in ("spike_raster", "spike_maps"):
        keep(events / f"{name}.png", folder / f"{name}.png")
    model, batch = load(events, "spikformer_ndigits", "ndigits")
    keep(draw_attention(model, batch, work), folder / "attention.png")


def draw_energy(folder: Path, work: Path, epochs: int) -> None:
    """Draw the energy of the families' smallest networks by both methods, beside their accuracy and firing rates."""
    rows = []
    for family, name in FAMILIES.items():
        trained = run("spikformer_digits.yaml", work, "--model", name, "--bn-momentum", "0.3", "--epochs", str(epochs))
        model, batch = load(trained, name, "digits")
        found = [analyze(model, batch.split(90), method=method) for method in METHODS]
        last = list(csv.DictReader((trained / "summary.csv").open()))[-1]
        energies = [each.energy for each in found]
        rows.append((family, energies, found[0].ann_energy, float(last["test_top1"]), float(last["firing_rate"])))
    figure = plots.new_figure(9.0, 0.9 + 0.62 * len(rows))
    ax = plots.new_grid(figure, 1, 1)[0, 0]
    colours = {"spikingformer method": plots.BLUE, "sdt method": plots.AMBER, "same layers, dense, once": plots.GRID}
    for place, (_, energies, dense, top1, rate) in enumerate(rows):
        values = [1000 * value for value in (*energies, dense)]
        for shift, value, (name, colour) in zip((-0.26, 0, 0.26), values, colours.items(), strict=True):
            ax.barh(place + shift, value, 0.24, color=colour, label=name if not place else None)
            ax.annotate(f"{value:.2f}", (value, place + shift), (3, 0), textcoords="offset points", va="center",
                        fontsize=7, color=plots.GREY)  # fmt: skip
        ax.annotate(f"{top1:.1f} %,  {rate:.3f}", (1.01, place), xycoords=("axes fraction", "data"), va="center",
                    fontsize=8)  # fmt: skip
    ax.annotate("accuracy,  spikes per\nneuron and step", (1.01, -0.55), xycoords=("axes fraction", "data"),
                va="bottom", fontsize=7, color=plots.GREY)  # fmt: skip
    ax.set(yticks=range(len(rows)), xlabel="\u00b5J for one digit, T = 4", ylim=(len(rows) - 0.45, -0.6))
    ax.set_yticklabels([family for family, *_ in rows], fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.set_title(
        f"energy of each family's smallest network, after {epochs} epochs on 8 x 8 digits", fontsize=10, pad=22
    )
    figure.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    keep(plots.save(figure, work / "energy_families.png"), folder / "energy_families.png")


def draw_architectures(folder: Path, work: Path) -> None:
    """Draw one published network of each family, built with random weights."""
    for family, name in ARCHITECTURES.items():
        torch.manual_seed(0)
        model = timm.create_model(name)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.constant_(module.bias, 0.7)  # so that every neuron fires, as after training
            elif isinstance(getattr(module, "rate", None), torch.Tensor):
                nn.init.uniform_(module.rate)  # SpikingResformer's running firing rates, which begin at nothing
        drawn = draw_architecture(model, work / f"{family}.png", title=name)
        keep(drawn, folder / "architecture" / f"{family}.png")


def main(arguments: list[str]) -> None:
    """Make all pictures."""
    quick = "--quick" in arguments
    given = [argument for argument in arguments if argument != "--quick"]
    folder = Path(given[0]) if given else ROOT / "img"
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "runs").mkdir()
        draw_architectures(folder, work)
        draw_runs(folder, work / "runs", epochs=4 if quick else 18)
        draw_energy(folder, work / "runs", epochs=2 if quick else 6)


if __name__ == "__main__":
    main(sys.argv[1:])
