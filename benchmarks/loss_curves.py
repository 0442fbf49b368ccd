"""Does every fast path follow the loss of the plain one? 200 training steps with each, from the same start.

    python -m benchmarks.loss_curves

The network is the small Spikformer on the embedded digits. The plain path has PyTorch's normalisation and the neurons
of the definition, and keeps everything as it is. Spikes are thresholds, so that the last bit of a sum decides now and
then, and two runs that differ by rounding drift apart: how far, the plain path shows against itself, its first weights
moved by one part in ten million.
"""

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import timm
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

from braincog_transformers.analysis.pictures.plots import AMBER, BLUE, GREEN, GREY, INK, RED, new_figure, save, styled
from braincog_transformers.ops.kernels import fused_neuron, integer_products
from braincog_transformers.training.distributed import compile_for_batches

from .harness import conditions, markdown

PLAIN, MOVED = "plain", "plain, moved by 1e-7"
INTEGERS = "fused, in integers"
PATHS = (PLAIN, MOVED, "fused, spikes packed", INTEGERS, "compiled", "fused, bfloat16")
COLOURS = dict(zip(PATHS, (INK, GREY, BLUE, GREEN, AMBER, RED), strict=True))
BATCH, WINDOW = 64, 10


def _network(path: str) -> tuple[nn.Module, Callable]:
    torch.manual_seed(0)
    model = timm.create_model("spikformer_digits", threshold=0.5)
    if path == MOVED:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 1e-7)
    model.pack_spikes = path not in (PLAIN, MOVED, "compiled")
    model.set_attr("integer_products", path == INTEGERS)
    return model, compile_for_batches(model) if path == "compiled" else model


def losses(path: str, steps: int) -> list[float]:
    """Train along one path and return the loss of every step."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels, generator = torch.tensor(digits.target), torch.Generator().manual_seed(0)
    model, call = _network(path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    found = []
    plain = path in (PLAIN, MOVED)
    unfused = mock.patch.object(fused_neuron, "compiler_works", return_value=False) if plain else nullcontext()
    # or the network would be too small for integers
    with unfused, mock.patch.multiple(integer_products, MIN_ROWS={2: 0, 4: 0}, MIN_PRODUCTS=0):
        for _ in range(steps):
            chosen = torch.randint(len(images), (BATCH,), generator=generator)
            with torch.autocast("cpu", torch.bfloat16) if "bfloat16" in path else nullcontext():
                logits = call(images[chosen])
            loss = nn.functional.cross_entropy(logits.float(), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


def smooth(values: list[float]) -> np.ndarray:
    """Return means over `WINDOW` steps."""
    return np.convolve(values, np.ones(WINDOW) / WINDOW, mode="valid")


@styled
def plot(curves: dict[str, list[float]]) -> Figure:
    """Draw the curves, and their distance from the plain one."""
    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    for path, values in curves.items():
        left.plot(smooth(values), color=COLOURS[path], linewidth=1.4, label=path)
        if path != PLAIN:
            distance = np.abs(np.subtract(values, curves[PLAIN]))
            right.semilogy(np.maximum(distance, 1e-8), color=COLOURS[path], linewidth=0.9)
    left.set(xlabel="step", title=f"training loss, mean of {WINDOW} steps")
    right.set(xlabel="step", title="distance from the plain path at each step")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(curves))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--picture", type=Path, default=Path("img/loss_curves.png"))
    parser.add_argument("--json", type=Path, help="file to write the curves to")
    args = parser.parse_args()
    curves = {path: losses(path, args.steps) for path in PATHS}
    print("; ".join(f"{name} {value}" for name, value in conditions().items()), end="\n\n")
    rows = []
    for path, values in curves.items():
        apart = np.abs(np.subtract(values, curves[PLAIN]))
        first = next((str(step) for step, gap in enumerate(apart) if gap > 1e-4), "never")
        rows.append([path, *(f"{np.mean(values[a : a + 50]):.4f}" for a in range(0, args.steps, 50)), first])
    spans = [f"loss, {a + 1} to {a + 50}" for a in range(0, args.steps, 50)]
    print(markdown(["path", *spans, "first step that is 1e-4 apart"], rows))
    save(plot(curves), args.picture)
    if args.json:
        args.json.write_text(json.dumps(curves))


if __name__ == "__main__":
    main()
