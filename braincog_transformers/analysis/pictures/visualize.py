"""Pictures of a trained network: what `--visualize`, `--conf-mat`, `--tsne`, `--mem-dist` and `--save-images` write.

Every picture is written as a PNG, whose path is returned, and as an SVG beside it; a folder that can't be written into
is a `UserError`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...conversion.converted import Converted
from ...errors import UserError
from ..attention_maps import AttentionMap, attention_maps
from ..embedding import classifier_features, principal_components, tsne
from ..energy import Analysis
from ..firing import Row, firing_rates
from ..output import writing
from ..recorder import NodeRecord, device_of, frozen_inference, inputs_of, outputs, pictured, record, unwrap
from . import plots
from .classes import plot_confusion, plot_points
from .maps import event_image, image_for_display, plot_attention, plot_images, plot_spike_maps

__all__ = ["confusion_matrix", "display_steps", "draw_attention", "draw_confusion", "draw_energy", "draw_features"]
__all__ += ["draw_membranes", "draw_rates", "save_images", "spike_maps", "visualize"]

Batch = Tensor | Sequence[Any]
Batches = Iterable[Sequence[Tensor]]
Classes = Sequence[str] | None
Scale = Sequence[float] | None
PANELS_PER_LINE = 8
MOST_MAPS = 6
_EVENT_CHANNELS = (2, 3)


def visualize(
    model: nn.Module, batch: Batch, folder: str | Path, *, mean: Scale = None, std: Scale = None,
    rows: Sequence[Row] | None = None,
) -> list[Path]:  # fmt: skip
    """Draw what the neurons do: a raster and spike maps of the batch's first sample, and firing rates.

    Args:
        batch: inputs, or `(input, target, ...)` as a loader gives them.
        folder: where `spike_raster.png`, `spike_maps.png` and `firing_rates.png` are written; made if missing.
        mean: what normalisation subtracted from an image, per channel; only for showing it.
        std: what it divided by.
        rows: firing rates to draw, if they were measured on more data; otherwise they are measured on the batch.

    Returns:
        The pictures' paths. The spike maps are left out for a network without a layer laid out in space.
    """
    folder = Path(folder)
    inputs = inputs_of(batch).to(device_of(model))
    picture = pictured(inputs)
    with frozen_inference(model), record(model) as records:
        model(inputs[:1])
    written = [_draw_raster(records, folder / "spike_raster.png")]
    maps = spike_maps(records, tuple(picture.shape[-2:]), **_tokens(model))
    if maps:
        steps = max(len(rates) for rates in maps.values())
        shown = display_steps(picture[0].float().cpu().numpy(), steps, mean=mean, std=std)
        chosen = {name: maps[name] for name in _spread(maps, 7)}
        written.append(plots.save(plot_spike_maps(shown, chosen), folder / "spike_maps.png"))
    written.append(draw_rates(rows or firing_rates(model, [inputs]), folder))
    return written


def _spread(names: Iterable[str], count: int) -> list[str]:
    """Keep at most `count` layers, evenly from first to last."""
    names = list(dict.fromkeys(names))
    chosen = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))
    return [names[place] for place in chosen]


def display_steps(sample: np.ndarray, steps: int, *, mean: Scale = None, std: Scale = None) -> list[np.ndarray]:
    """Show one input at each of `steps` steps.

    Args:
        sample: an image `(C, H, W)`, the same at every step, or event frames `(T, 2, H, W)`, a third channel being
            the sum of the two.
        steps: how many to show; a single one of several frames stands for all of them, and shows their sum.
    """
    if sample.ndim == 3:
        return [image_for_display(sample, mean, std)] * steps
    if steps == 1:
        sample = sample.sum(0, keepdims=True)
    if sample.shape[1] in _EVENT_CHANNELS:
        return [event_image(frame[:2]) for frame in sample[:steps]]
    return [image_for_display(frame) for frame in sample[:steps]]


def spike_maps(
    records: dict[str, NodeRecord], size: tuple[int, int], *, grid: tuple[int, int] | None = None, others: int = 0
) -> dict[str, np.ndarray]:
    """Average each layer's spikes, without their signs, over its channels, for the first sample.

    A layer has places when its output is `(T, B, C, h, w)` or `(T, B, h, w, C)` with `h`, `w` the input's sides
    divided by one number, or `(T, B, N, C)` or `(T, B, C, N)` where N is the number of places of the last such layer.
    The sides never grow along the network, which distinguishes a map from attention's `(T, B, heads, N, d)`.

    Args:
        records: from `record`, in the order of execution.
        size: height and width of the input.
        grid: places of the tokens, if there may be tokens in front of the first map.
        others: number of tokens in front of those that have a place.

    Returns:
        Layer to `(T, h, w)`.
    """
    maps: dict[str, np.ndarray] = {}
    limit, grid = grid or size, grid or (0, 0)
    for name, entry in records.items():
        spikes = entry.spikes[:, 0].float().abs()
        places = grid[0] * grid[1]
        if spikes.ndim == 4 and _divides(spikes.shape[-2:], size) and spikes.shape[-2] <= limit[0]:
            limit = grid = tuple(spikes.shape[-2:])
            maps[name] = spikes.mean(1).numpy()
        elif spikes.ndim == 4 and _divides(spikes.shape[1:3], size) and spikes.shape[1] <= limit[0]:
            limit = grid = tuple(spikes.shape[1:3])
            maps[name] = spikes.mean(-1).numpy()
        elif spikes.ndim == 3 and places and spikes.shape[1] in (places, places + others):
            maps[name] = spikes.mean(2)[:, -places:].reshape(-1, *grid).numpy()
        elif spikes.ndim == 3 and places and spikes.shape[2] == places:
            maps[name] = spikes.mean(1).reshape(-1, *grid).numpy()
    return maps


def _tokens(model: nn.Module) -> dict[str, Any]:
    """Say where the tokens of a converted network are, see `spike_maps`."""
    inner = unwrap(model)
    if not isinstance(inner, Converted):
        return {}
    grid = getattr(getattr(inner.network, "patch_embed", None), "grid_size", None)
    return {"grid": grid, "others": getattr(inner.network, "num_prefix_tokens", 0)}


def _divides(sides: Sequence[int], size: tuple[int, int]) -> bool:
    """Say whether `sides` are `size` divided by one whole number."""
    return size[0] % sides[0] == 0 and size[1] % sides[1] == 0 and size[0] // sides[0] == size[1] // sides[1]


def draw_attention(
    model: nn.Module, batch: Batch, folder: str | Path, *, mean: Scale = None, std: Scale = None
) -> Path | None:
    """Draw what the first sample's attention attends to, block by block over the steps, into `folder/attention.png`.

    Spiking attention has no softmax; the picture says which map it shows, see `attention_maps`.

    Args:
        batch: inputs, or `(input, target, ...)` as a loader gives them.
        mean, std: what normalisation subtracted from an image and divided it by, per channel; only for showing it.

    Returns:
        The picture's path; nothing for a network or an input without attention on a grid, such as SHD's sequences.
    """
    inputs = inputs_of(batch)
    maps = _few_maps(attention_maps(model, inputs))
    if not maps:
        return None
    picture = pictured(inputs)[0].float().cpu().numpy()
    shown = display_steps(picture, len(maps[0].values), mean=mean, std=std)
    return plots.save(plot_attention(shown, maps), Path(folder) / "attention.png")


def _few_maps(maps: list[AttentionMap]) -> list[AttentionMap]:
    """Keep the maps of some attentions, evenly from first to last, all maps of each."""
    names = [each.name for each in maps]
    most = max((names.count(name) for name in names), default=1)
    chosen = _spread(names, MOST_MAPS // most)
    return [each for each in maps if each.name in chosen]


def _panels(records: dict[str, NodeRecord], columns: int, width: float, height: float) -> tuple:
    """Make a figure with axes for each layer, sizes of one in inches; return it, and axes, record, title of each."""
    lines = -(-len(records) // columns)
    figure = plots.new_figure(width * columns, height * lines)
    axes = plots.new_grid(figure, lines, columns).ravel()
    for ax in axes[len(records) :]:
        ax.set_axis_off()
    titles = (plots.short_name(name, 20) for name in records)
    return figure, list(zip(axes, records.values(), titles, strict=False))


def _draw_raster(records: dict[str, NodeRecord], path: Path) -> Path:
    """Draw one raster per layer, side by side in the order of execution."""
    columns = -(-len(records) // -(-len(records) // PANELS_PER_LINE))
    figure, panels = _panels(records, columns, 1.5, 2.3)
    for ax, entry, title in panels:
        plots.plot_raster(entry.spikes[:, 0].abs().numpy(), ax, title=title)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("neurons", fontsize=9)
    return plots.save(figure, path)


def draw_rates(rows: Sequence[Row], folder: str | Path) -> Path:
    """Draw firing rates by layer, and by layer and step, into `folder/firing_rates.png`."""
    figure = plots.new_figure(10.0, 1.1 + 0.2 * len(rows))
    left, right = plots.new_grid(figure, 1, 2)[0]
    plots.plot_rates(rows, left)
    plots.plot_rates_per_step(rows, right).set_yticks([])
    return plots.save(figure, Path(folder) / "firing_rates.png")


def draw_membranes(model: nn.Module, batch: Batch, folder: str | Path) -> Path:
    """Draw each layer's membrane potentials (after the reset, over the batch) into `folder/membranes.png`."""
    with frozen_inference(model), record(model, membranes=True) as records:
        model(inputs_of(batch).to(device_of(model)))
    figure, panels = _panels(records, min(6, len(records)), 2.2, 1.7)
    for ax, entry, title in panels:
        real = bool((entry.spikes != entry.spikes.round()).any())  # which don't tell what fired
        fired = None if real else float((entry.spikes != 0).float().mean())
        plots.plot_membrane(entry.membranes.numpy(), entry.threshold, ax, title=title, fired=fired)
    figure.supxlabel("membrane potential after the reset; red: threshold, and what was above it before", fontsize=9)
    figure.supylabel("neurons x steps", fontsize=9)
    return plots.save(figure, Path(folder) / "membranes.png")


def confusion_matrix(model: nn.Module, batches: Iterable[Sequence[Tensor]]) -> np.ndarray:
    """Count predictions by true class.

    Args:
        batches: `(input, class)` pairs.

    Returns:
        Integers `(K, K)`, true class by predicted class, K being the width of the model's output.
    """
    matrix = None
    for logits, (_, target, *_) in outputs(model, batches):
        logits = logits.mean(0) if logits.ndim == 3 else logits
        if matrix is None:
            matrix = np.zeros((logits.shape[-1],) * 2, dtype=np.int64)
        np.add.at(matrix, (target.cpu().numpy(), logits.argmax(-1).cpu().numpy()), 1)
    if matrix is None:
        raise UserError("confusion_matrix: needs at least one batch; got none (an empty split?)")
    return matrix


def draw_confusion(model: nn.Module, batches: Batches, folder: str | Path, *, classes: Classes = None) -> Path:
    """Draw the confusion matrix over `batches` into `folder/confusion.png`."""
    matrix = confusion_matrix(model, batches)
    return plots.save(plot_confusion(matrix, classes), Path(folder) / "confusion.png")


def draw_features(
    model: nn.Module, batches: Batches, folder: str | Path, *, classes: Classes = None, seed: int = 0
) -> Path:
    """Draw the classifier's inputs in the plane, by PCA and by t-SNE side by side, into `folder/features.png`.

    `features.npz` beside it has `features` (N, C), `labels` (N,), `pca` and `tsne`, (N, 2) each, N at most 2000.

    Raises:
        UserError: fewer than three samples came.
    """
    features, labels = classifier_features(model, batches)
    if len(features) < 3:
        raise UserError(f"draw_features: needs at least three samples; got {len(features)}")
    components, shares = principal_components(features)
    neighbours = tsne(features, seed=seed)
    with writing(folder) as folder:
        np.savez_compressed(folder / "features.npz", features=features, labels=labels, pca=components, tsne=neighbours)
    figure = plots.new_figure(9.6, 4.4)
    left, right = plots.new_grid(figure, 1, 2)[0]
    title = f"PCA: {shares[0]:.0%} and {shares[1]:.0%} of the variance"
    plot_points(components, labels, classes, left, title=title, legend=False)
    plot_points(neighbours, labels, classes, right, title="t-SNE")
    return plots.save(figure, folder / "features.png")


def draw_energy(analysis: Analysis, folder: str | Path) -> Path:
    """Draw the energy of one sample by layer, or by block in a deep network, into `folder/energy.png`."""
    ax = plots.plot_energy(analysis.rows, e_mac=analysis.e_mac, e_ac=analysis.e_ac)
    figure = ax.get_figure()
    figure.suptitle(
        f"{analysis.energy:.4g} mJ in {analysis.steps} steps, by the {analysis.method} method\n"
        f"as an ordinary network: {analysis.ann_energy:.4g} mJ{analysis.times_as_much}",
        fontsize=10, x=0.02, ha="left", color=plots.INK,
    )  # fmt: skip
    return plots.save(figure, Path(folder) / "energy.png")


def save_images(
    batch: Sequence[Tensor], folder: str | Path, *, name: str = "batch", classes: Classes = None,
    mean: Scale = None, std: Scale = None, limit: int = 32,
) -> Path:  # fmt: skip
    """Draw a batch as the network gets it, event frames summed over time, into `folder/<name>.png`.

    Sequences are drawn with time downwards and channels to the right.

    Args:
        batch: inputs and targets; a soft target is titled by its largest class, another target than classes by the
            number of its sample.
    """
    inputs, target = pictured(batch[0])[:limit].float().cpu().numpy(), batch[1][:limit]
    titles = [str(number) for number in range(len(inputs))]
    if isinstance(target, Tensor) and ((target.ndim == 1 and not target.is_floating_point()) or target.ndim == 2):
        labels = (target.argmax(-1) if target.ndim == 2 else target).cpu()
        titles = [str(int(label)) if classes is None else str(classes[int(label)]) for label in labels]
    samples = inputs.sum(1) if inputs.ndim == 5 else inputs
    if inputs.ndim == 3:  # each step as a band, so that a few steps of many channels make a square
        samples = inputs[:, None].repeat(max(inputs.shape[2] // inputs.shape[1], 1), axis=2)
    if inputs.ndim == 5 and inputs.shape[2] in _EVENT_CHANNELS:
        shown = [event_image(sample[:2]) for sample in samples]
    else:
        shown = [image_for_display(sample, mean, std) for sample in samples]
    return plots.save(plot_images(shown, titles), Path(folder) / f"{name}.png")
