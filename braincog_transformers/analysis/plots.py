"""Pictures of spiking networks.

A `plot_*` function takes arrays and an optional `ax` (or `figure`, where the picture has several panels), draws, and
returns the axes (or the figure); it neither shows nor saves. `save` writes a PNG. Figures are made without pyplot: no
window opens, no global state or backend changes, and nothing stays in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from .firing import Row, overall_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["event_image", "image_for_display", "new_axes", "new_figure", "new_grid"]
__all__ += ["plot_confusion", "plot_images", "plot_membrane", "plot_raster", "plot_rates"]
__all__ += ["plot_rates_per_step", "plot_spike_maps", "plot_tsne", "save", "short_name", "training_curves"]

P = ParamSpec("P")
R = TypeVar("R")
INK, GREY, GRID = "#22252b", "#7a808c", "#e4e6ea"
BLUE, RED, AMBER = "#2f6db3", "#c8413f", "#d99a2b"
LOSS, ACCURACY, FIRING = "loss", "accuracy (%)", "spikes per neuron and step"
CURVES = {LOSS: ("loss",), ACCURACY: ("top1", "top5"), FIRING: ("firing",), "learning rate": ("lr",)}
STYLE = {
    "axes.edgecolor": GREY,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "font.size": 9,
    "grid.color": GRID,
    "legend.frameon": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def _styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under the package's style, and give matplotlib its own settings back."""

    @wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import rc_context

        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return in_style


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure, sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


@_styled
def new_axes(width: float = 5.0, height: float = 3.5) -> Axes:
    """Make a figure with one pair of axes, sizes in inches."""
    return new_figure(width, height).subplots()


@_styled
def new_grid(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """Fill `figure` with axes, `(rows, columns)`."""
    return figure.subplots(rows, columns, squeeze=False)


@_styled
def save(drawn: Axes | Figure, path: str | Path) -> Path:
    """Write the figure of `drawn` as a PNG, and make the folder it lies in."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = drawn if hasattr(drawn, "savefig") else drawn.get_figure()
    FigureCanvasAgg(figure)  # whatever backend the user's own plots have
    figure.savefig(path, dpi=150, format="png")
    return path


def event_image(frame: np.ndarray) -> np.ndarray:
    """Colour one event frame: red where it got brighter (ON), blue where darker (OFF), white where nothing happened.

    Args:
        frame: event counts `(2, H, W)`, OFF before ON.

    Returns:
        RGB in [0, 1], `(H, W, 3)`; the 99th percentile of the active pixels is the full colour.
    """
    counts = np.abs(np.asarray(frame, dtype=np.float32))
    active = counts[counts > 0]
    strength = np.clip(counts / (np.percentile(active, 99) if active.size else 1.0), 0, 1) ** 0.6
    off, on = strength[0][..., None], strength[1][..., None]
    blue, red = (np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for colour in (BLUE, RED))
    ink = off * (1 - blue) + on * (1 - red)
    return np.clip(1 - ink, 0, 1)


def image_for_display(image: np.ndarray, mean: Sequence[float] | None = None, std: Sequence[float] | None = None):
    """Turn a normalised image `(C, H, W)` into what `imshow` wants: `(H, W)` or `(H, W, 3)` in [0, 1].

    Args:
        mean: what normalisation subtracted, per channel; without it the image is stretched to its own range.
        std: what it divided by.
    """
    image = np.asarray(image, dtype=np.float32)
    if mean is not None and std is not None:
        image = image * np.asarray(std, dtype=np.float32)[:, None, None] + np.asarray(mean, np.float32)[:, None, None]
    else:
        image = (image - image.min()) / max(float(np.ptp(image)), 1e-8)
    image = np.clip(image, 0, 1)
    return image.transpose(1, 2, 0)[..., :3] if len(image) >= 3 else image[0]


def short_name(name: str, width: int) -> str:
    """Drop `.node` from the end of a dotted name, and break what is still longer than `width` letters in two lines."""
    name = name.removesuffix(".node")
    head, _, tail = name.rpartition(".")
    return f"{head}\n{tail}" if len(name) > width and head else name


@_styled
def training_curves(rows: Sequence[Mapping[str, object]], path: str | Path) -> Path:
    """Draw loss, accuracy, firing rate and learning rate over the epochs of a run, and save the picture.

    Args:
        rows: one mapping per epoch, as in summary.csv: `epoch`, and any of the columns whose name holds `loss`, `top1`,
            `top5`, `firing` or `lr`; values may be text, missing ones are left out.
        path: the PNG to write.
    """
    names = list(dict.fromkeys(key for row in rows for key in row))
    found = {title: [name for name in names if _is_about(name, marks)] for title, marks in CURVES.items()}
    found = {title: columns for title, columns in found.items() if columns or title != FIRING}
    figure = new_figure(3.4 * len(found), 3.2)
    figure.get_layout_engine().set(wspace=0.05)
    for ax, (title, columns) in zip(new_grid(figure, 1, len(found))[0], found.items(), strict=True):
        for name in columns:
            _draw_curve(ax, rows, name)
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(axis="y", color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        if title in (LOSS, ACCURACY) and columns:
            ax.legend(loc="best")
        if title == ACCURACY and columns:
            ax.set_ylim(top=101)
        elif columns:
            ax.set_ylim(bottom=0)
    return save(figure, path)


def _is_about(column: str, marks: Sequence[str]) -> bool:
    """Say whether a column of the summary belongs to a panel: `eval_top1` to `top1`."""
    return any(mark in column.lower().split("_") for mark in marks)


def _draw_curve(ax: Axes, rows: Sequence[Mapping[str, object]], name: str) -> None:
    """Draw one column over the epochs: training blue, evaluation red with its best point, averaged weights amber."""
    points = [(float(row.get("epoch", i)), float(row[name])) for i, row in enumerate(rows) if _is_number(row.get(name))]
    if not points:
        return
    epochs, values = zip(*points, strict=True)
    evaluated = name.startswith(("eval", "test", "val"))
    colour = RED if evaluated else AMBER if name.startswith("ema") else BLUE
    label = name.replace("_", " ")
    if evaluated and "top1" in name:
        best = int(np.argmax(values))
        ax.plot(epochs[best], values[best], "o", color=colour, markersize=4)
        label += f" (best {values[best]:.2f})"
    style = "--" if "top5" in name else "-"
    ax.plot(epochs, values, style, color=colour, linewidth=1.6, marker="." if len(points) < 3 else None, label=label)


def _is_number(value: object) -> bool:
    """Say whether a cell of the summary holds a finite number."""
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


@_styled
def plot_raster(spikes: np.ndarray, ax: Axes | None = None, *, title: str = "", neurons: int = 96) -> Axes:
    """Draw which neurons fire at which step.

    Args:
        spikes: one sample's spikes `(T, ...)`, all other axes being neurons.
        neurons: at most so many rows, taken at equal distances from all of them.
    """
    ax = ax or new_axes(3.0, 4.0)
    flat = np.asarray(spikes).reshape(len(spikes), -1)
    rows = np.linspace(0, flat.shape[1] - 1, min(neurons, flat.shape[1])).round().astype(int)
    ax.imshow(flat[:, rows].T, aspect="auto", cmap=_ink_map(), vmin=0, vmax=1, interpolation="nearest")
    for step in range(1, len(flat)):
        ax.axvline(step - 0.5, color=GRID, linewidth=0.6)
    ax.set(xticks=_few_ticks(len(flat)), yticks=[])
    ax.set_title(title, fontsize=8)
    ax.set_xticklabels([str(step + 1) for step in _few_ticks(len(flat))])
    ax.spines[["top", "right", "left", "bottom"]].set_visible(True)
    return ax


def _ink_map():
    """Make the colours of a raster: white without a spike, dark with one."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("spikes", ["white", INK])


def _few_ticks(count: int) -> list[int]:
    """Choose at most eight of `count` positions to label."""
    return list(range(0, count, -(-count // 8)))


@_styled
def plot_rates(rows: Sequence[Row], ax: Axes | None = None) -> Axes:
    """Draw the firing rate of each layer as a bar, in the order of execution, the network's mean as a line."""
    ax = ax or new_axes(5.5, 0.5 + 0.2 * len(rows))
    places = np.arange(len(rows))
    ax.barh(places, [row.rate for row in rows], color=BLUE, height=0.72)
    mean = overall_rate(rows)
    ax.axvline(mean, color=RED, linewidth=1.2, zorder=0.5)
    ax.set_title(f"all: {mean:.3f}", color=RED, fontsize=8)
    for place, row in zip(places, rows, strict=True):
        ax.annotate(
            f"{row.rate:.3f}", (row.rate, place), (3, 0), textcoords="offset points", va="center", fontsize=7,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    ax.set(yticks=places, xlabel="spikes per neuron and step", ylim=(len(rows) - 0.4, -0.6))
    ax.set_yticklabels([row.name for row in rows], fontsize=8)
    ax.set_xlim(0, 1.14 * max(max(row.rate for row in rows), 1e-6))
    ax.tick_params(axis="y", length=0)
    return ax


@_styled
def plot_rates_per_step(rows: Sequence[Row], ax: Axes | None = None) -> Axes:
    """Draw the firing rate of each layer at each step as a map."""
    ax = ax or new_axes(4.5, 0.5 + 0.2 * len(rows))
    steps = max(len(row.per_step) for row in rows)
    rates = np.array([row.per_step + (np.nan,) * (steps - len(row.per_step)) for row in rows])
    drawn = ax.imshow(rates, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
    ax.set(xticks=_few_ticks(steps), xlabel="step", yticks=range(len(rows)))
    ax.set_xticklabels([str(step + 1) for step in _few_ticks(steps)])
    ax.set_yticklabels([row.name for row in rows], fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.get_figure().colorbar(drawn, ax=ax, label="spikes per neuron", fraction=0.06).outline.set_visible(False)
    return ax


@_styled
def plot_spike_maps(
    inputs: Sequence[np.ndarray], maps: Mapping[str, np.ndarray], figure: Figure | None = None
) -> Figure:
    """Draw what goes in over time, and below it where each layer fires; of more than eight steps, some are shown.

    Args:
        inputs: one displayable picture per step, `(H, W)` or `(H, W, 3)`.
        maps: layer to firing rate averaged over channels, `(T, h, w)`.
    """
    shown = _few_ticks(len(inputs))
    figure = figure or new_figure(1.35 * len(shown) + 0.9, 1.35 * (len(maps) + 1) + 0.3)
    widths = [1.0] * len(shown) + [0.05]
    grid = figure.subplots(len(maps) + 1, len(shown) + 1, squeeze=False, width_ratios=widths)
    for step, ax in zip(shown, grid[0], strict=False):
        ax.imshow(inputs[step], cmap="gray", vmin=0, vmax=1)
        ax.set_title(f"step {step + 1}", fontsize=9, loc="center")
    grid[0, -1].set_axis_off()
    for (name, rates), line in zip(maps.items(), grid[1:], strict=True):
        peak = float(np.max(rates)) or 1.0
        for step, ax in zip(shown, line, strict=False):
            drawn = ax.imshow(rates[step], cmap="magma", vmin=0, vmax=peak, interpolation="nearest")
        figure.colorbar(drawn, cax=line[-1]).outline.set_visible(False)
        line[-1].tick_params(labelsize=7, length=0)
        line[0].set_ylabel(short_name(name, 22), fontsize=7)
    grid[0, 0].set_ylabel("input", fontsize=7)
    for ax in grid[:, :-1].flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure


@_styled
def plot_membrane(potentials: np.ndarray, threshold: float, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw the distribution of one layer's membrane potentials after the reset, with the threshold marked.

    Args:
        potentials: any shape; the few farthest thousandths on either side are left out of the picture.
        threshold: where the neuron fires.
    """
    ax = ax or new_axes(3.2, 2.4)
    values = np.asarray(potentials, dtype=np.float32).ravel()
    low, high = np.quantile(values, [0.001, 0.999])
    low, high = min(float(low), 0.0), max(float(high), threshold)
    width = max(high - low, 1e-6) / 60
    # the threshold is an edge, so that no bar holds potentials from both sides of it
    edges = threshold + width * np.arange(np.floor((low - threshold) / width), np.ceil((high - threshold) / width) + 2)
    ax.hist(values, bins=edges, color=BLUE, log=True)
    ax.axvline(threshold, color=RED, linewidth=1.2)
    ax.annotate(f"{threshold:g}", (threshold, 1), (-2, -2), xycoords=("data", "axes fraction"), ha="right", va="top",
                textcoords="offset points", color=RED, fontsize=8)  # fmt: skip
    ax.set_title(title, fontsize=8)
    ax.set(xlim=(edges[0] - width, edges[-1] + 3 * width))
    return ax


@_styled
def plot_confusion(matrix: np.ndarray, classes: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix: each row's share of predictions, counts written in where they fit.

    Args:
        matrix: counts `(K, K)`, true class by predicted class.
        classes: names to write at the axes, up to 30 of them.
    """
    matrix = np.asarray(matrix)
    count = len(matrix)
    side = min(max(3.4, 0.42 * count + 1.2), 11.0)
    ax = ax or new_axes(side, side)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if count <= 20:
        for (true, predicted), number in np.ndenumerate(matrix):
            colour = "white" if shares[true, predicted] > 0.5 else (INK if number else "none")
            ax.text(predicted, true, f"{number}", ha="center", va="center", fontsize=8, color=colour)
    ticks = list(range(count)) if count <= 30 else _few_ticks(count)
    names = [str(tick) if classes is None else str(classes[tick]) for tick in ticks]
    tilted = max(map(len, names)) > 3
    ax.set(xticks=ticks, yticks=ticks, xlabel="predicted", ylabel="true")
    ax.set_xticklabels(names, rotation=45 if tilted else 0, ha="right" if tilted else "center")
    ax.set_yticklabels(names)
    ax.set_title(f"{np.trace(matrix):,} of {matrix.sum():,} right ({np.trace(matrix) / max(matrix.sum(), 1):.2%})")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


@_styled
def plot_tsne(
    points: np.ndarray, labels: np.ndarray, classes: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw an embedding in the plane, one colour per class.

    Args:
        points: `(N, 2)`.
        labels: class of each point, `(N,)`.
        classes: names for the legend, which is left out beyond 20 classes.
    """
    from matplotlib import colormaps

    ax = ax or new_axes(5.6, 4.6)
    present = np.unique(labels)
    colours = colormaps["tab10" if len(present) <= 10 else "tab20" if len(present) <= 20 else "turbo"]
    for place, label in enumerate(present):
        chosen = points[labels == label]
        colour = colours(place) if len(present) <= 20 else colours(place / len(present))
        name = str(label) if classes is None else str(classes[int(label)])
        ax.scatter(*chosen.T, s=12, color=colour, label=name, alpha=0.85, linewidths=0)
    if len(present) <= 20:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, markerscale=1.6, handletextpad=0.2)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    return ax


@_styled
def plot_images(images: Sequence[np.ndarray], titles: Sequence[str] | None = None) -> Figure:
    """Draw displayable pictures in a grid.

    Args:
        images: `(H, W)` or `(H, W, 3)` each, in [0, 1].
        titles: one short line above each.
    """
    columns = min(8, max(1, int(np.ceil(np.sqrt(len(images) * 1.6)))))
    lines = -(-len(images) // columns)
    figure = new_figure(1.25 * columns, (1.45 if titles else 1.25) * lines)
    for place, ax in enumerate(new_grid(figure, lines, columns).flat):
        ax.set_axis_off()
        if place < len(images):
            ax.imshow(images[place], cmap="gray", vmin=0, vmax=1)
            if titles:
                ax.set_title(titles[place], fontsize=8, loc="center", pad=2)
    return figure
