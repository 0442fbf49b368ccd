"""Pictures of spiking networks.

A `plot_*` function takes arrays and an optional `ax` (or `figure`, where the picture has several panels), draws, and
returns the axes (or the figure); it neither shows nor saves. `save` writes a PNG and an SVG. Figures are made without
pyplot: no window opens, no global state or backend changes, and nothing stays in memory. Here is what all pictures
share, and those of numbers by layer or epoch; `maps` has those laid out in space, `classes` those by class.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ..energy import EnergyRow
from ..firing import Row, overall_rate, real_outputs
from ..output import writing

__all__ = ["few_ticks", "new_axes", "new_figure", "new_grid", "plot_energy", "plot_membrane", "plot_raster"]
__all__ += ["plot_rates", "plot_rates_per_step", "save", "short_name", "styled", "training_curves"]

INK, GREY, GRID = "#22252b", "#7a808c", "#e4e6ea"
BLUE, RED, AMBER, GREEN = "#2f6db3", "#c8413f", "#d99a2b", "#3f8f5b"
LOSS, ACCURACY, FIRING, RATE = "loss", "accuracy (%)", "spikes per neuron and step", "learning rate"
CURVES = {LOSS: ("loss",), ACCURACY: ("top1", "top5"), FIRING: ("firing",), RATE: ("lr",)}
STYLE = {
    **dict.fromkeys(("axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), GREY),
    **dict.fromkeys(("axes.grid", "axes.spines.right", "axes.spines.top", "legend.frameon"), False),
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "font.size": 9,
    "grid.color": GRID,
    "svg.hashsalt": "braincog_transformers",
}


styled = rc_context(STYLE)
"""Decorator that runs a drawing function under the package's style, and gives matplotlib its own settings back."""


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure, sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


@styled
def new_axes(width: float = 5.0, height: float = 3.5) -> Axes:
    """Make a figure with one pair of axes, sizes in inches."""
    return new_figure(width, height).subplots()


@styled
def new_grid(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """Fill `figure` with axes, `(rows, columns)`."""
    return figure.subplots(rows, columns, squeeze=False)


@styled
def save(drawn: Axes | Figure, path: str | Path) -> Path:
    """Write the figure of `drawn` as a PNG and, beside it, as an SVG that is the same for the same data.

    Args:
        path: of the PNG, which is returned; its folder is made.

    Raises:
        UserError: the folder can't be written into.
    """
    path = Path(path)
    figure = drawn if hasattr(drawn, "savefig") else drawn.get_figure()
    FigureCanvasAgg(figure)  # whatever backend the user's own plots have
    with writing(path.parent):
        figure.savefig(path, dpi=150, format="png")
        # the dpi of images inside, which are most of a file
        figure.savefig(path.with_suffix(".svg"), dpi=80, format="svg", metadata={"Date": None})
    return path


def short_name(name: str, width: int) -> str:
    """Drop `.node` from the end of a dotted name, and break what is still longer than `width` letters in two lines."""
    name = name.removesuffix(".node")
    head, _, tail = name.rpartition(".")
    return f"{head}\n{tail}" if len(name) > width and head else name


@styled
def training_curves(
    rows: Sequence[Mapping[str, object]], path: str | Path, *, metric: str = "", decreasing: bool = False
) -> Path:
    """Draw loss, accuracy, firing rate and learning rate over the epochs of a run, and save the picture.

    Args:
        rows: one mapping per epoch, as in summary.csv: `epoch` (from 0 on, drawn from 1 on), and any columns whose
            name holds `loss`, `top1`, `top5`, `firing` or `lr`; values may be text, missing ones are left out.
        path: the PNG to write.
        metric: what a run is judged by instead of accuracy, as `miou` for the columns `test_miou` and `ema_miou`.
        decreasing: whether a smaller metric is a better one.
    """
    names = list(dict.fromkeys(key for row in rows for key in row))
    parts = {name: {*name.lower().split("_")} for name in names}  # `eval_top1` belongs to `top1`
    found = {title: [name for name in names if parts[name] & {*marks}] for title, marks in CURVES.items()}
    if metric:
        judged = metric.replace("_", " "), [name for name in names if name.endswith(f"_{metric}")]
        found = dict(judged if title == ACCURACY else (title, columns) for title, columns in found.items())
    found = {title: columns for title, columns in found.items() if columns or title != FIRING}
    figure = new_figure(3.4 * len(found), 3.2)
    figure.get_layout_engine().set(wspace=0.05)
    for ax, (title, columns) in zip(new_grid(figure, 1, len(found))[0], found.items(), strict=True):
        for name in columns:
            _draw_curve(ax, rows, name, best=min if decreasing else max)
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(axis="y", color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        if title not in (FIRING, RATE) and columns:
            ax.legend(loc="best")
        if title == ACCURACY and columns:
            ax.set_ylim(top=101)
        elif columns:
            ax.set_ylim(bottom=0)
    return save(figure, path)


def _draw_curve(ax: Axes, rows: Sequence[Mapping[str, object]], name: str, *, best: Callable = max) -> None:
    """Draw one column over the epochs: training blue, evaluation red with its best point, averaged weights amber."""
    points = [(float(row.get("epoch", i)) + 1, value) for i, row in enumerate(rows)
              if np.isfinite(value := _number(row.get(name)))]  # fmt: skip
    if not points:
        return
    epochs, values = zip(*points, strict=True)
    evaluated = name.startswith(("eval", "test", "val"))
    colour = RED if evaluated else AMBER if name.startswith("ema") else BLUE
    label = name.replace("_", " ")
    if evaluated and not name.endswith(("loss", "top5")):
        place = values.index(best(values))
        ax.plot(epochs[place], values[place], "o", color=colour, markersize=4)
        label += f" (best {values[place]:.4g})" if "top1" not in name else f" (best {values[place]:.2f})"
    style = "--" if "top5" in name else "-"
    ax.plot(epochs, values, style, color=colour, linewidth=1.6, marker="." if len(points) < 3 else None, label=label)


def _number(cell: object) -> float:
    """Read a cell of the summary; what is no number is NaN."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


@styled
def plot_raster(spikes: np.ndarray, ax: Axes | None = None, *, title: str = "", neurons: int = 96) -> Axes:
    """Draw which neurons fire at which step.

    Args:
        spikes: one sample's spikes `(T, ...)`, all other axes being neurons.
        neurons: at most so many rows, taken at equal distances from all of them.
    """
    ax = ax or new_axes(3.0, 4.0)
    ink = LinearSegmentedColormap.from_list("spikes", ["white", INK])
    flat = np.asarray(spikes).reshape(len(spikes), -1)
    rows = np.linspace(0, flat.shape[1] - 1, min(neurons, flat.shape[1])).round().astype(int)
    ax.imshow(flat[:, rows].T, aspect="auto", cmap=ink, vmin=0, vmax=max(1, flat.max()), interpolation="nearest")
    for step in range(1, len(flat)):
        ax.axvline(step - 0.5, color=GRID, linewidth=0.6)
    _name_steps(ax, len(flat))
    ax.set_yticks([])
    ax.set_title(title, fontsize=8)
    ax.spines[:].set_visible(True)
    return ax


def _name_steps(ax: Axes, steps: int) -> None:
    """Number some of the steps along x, from 1 on."""
    ax.set_xticks(few_ticks(steps), [str(step + 1) for step in few_ticks(steps)])


def few_ticks(count: int) -> list[int]:
    """Choose at most eight of `count` positions to label."""
    return list(range(0, count, -(-count // 8)))


@styled
def plot_rates(rows: Sequence[Row], ax: Axes | None = None) -> Axes:
    """Draw the firing rate of each layer as a bar, in the order of execution, the network's mean as a line."""
    ax = ax or new_axes(5.5, 0.5 + 0.2 * len(rows))
    mean, rates = overall_rate(rows), [row.rate for row in rows]
    ax.barh(range(len(rows)), rates, color=BLUE, height=0.72)
    ax.axvline(mean, color=RED, linewidth=1.2, zorder=0.5)
    ax.set_title(f"all: {mean:.3f}", color=RED, fontsize=8)
    bbox = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    _name_bars(ax, [row.name for row in rows], rates, [f"{rate:.3f}" for rate in rates], bbox=bbox)
    what = "mean output" if real_outputs(rows) else "spikes"
    ax.set(xlabel=f"{what} per neuron and step", xlim=(0, 1.14 * max(*rates, 1e-6)))
    return ax


def _name_bars(ax: Axes, names: Sequence[str], ends: Sequence[float], notes: Sequence[str], **style) -> None:
    """Write names in front of horizontal bars, the first at the top, and notes behind their ends."""
    for place, (end, note) in enumerate(zip(ends, notes, strict=True)):
        ax.annotate(note, (end, place), (3, 0), textcoords="offset points", va="center", fontsize=7, **style)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


@styled
def plot_rates_per_step(rows: Sequence[Row], ax: Axes | None = None) -> Axes:
    """Draw the firing rate of each layer at each step as a map."""
    ax = ax or new_axes(4.5, 0.5 + 0.2 * len(rows))
    steps = max(len(row.per_step) for row in rows)
    rates = np.array([row.per_step + (np.nan,) * (steps - len(row.per_step)) for row in rows])
    drawn = ax.imshow(rates, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
    _name_steps(ax, steps)
    ax.set_xlabel("step")
    ax.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.get_figure().colorbar(drawn, ax=ax, label="spikes per neuron", fraction=0.06).outline.set_visible(False)
    return ax


@styled
def plot_membrane(
    potentials: np.ndarray, threshold: float, ax: Axes | None = None, *, title: str = "", fired: float | None = None
) -> Axes:
    """Draw the distribution of one layer's membrane potentials after the reset, with the threshold marked.

    Args:
        potentials: any shape; the few farthest thousandths on either side are left out of the picture.
        threshold: where the neuron fires.
        fired: share of the potentials that were above the threshold before the reset, in [0, 1], to write beside it.
    """
    ax = ax or new_axes(3.2, 2.4)
    values = np.asarray(potentials, dtype=np.float32).ravel()
    low, high = np.quantile(values, [0.001, 0.999])
    low, high = min(float(low), 0.0), max(float(high), threshold)
    width = max(high - low, 1e-6) / 60
    # the threshold is an edge, so that no bar holds potentials from both sides of it
    edges = threshold + width * np.arange(np.floor((low - threshold) / width), np.ceil((high - threshold) / width) + 2)
    ax.hist(values, bins=edges, color=BLUE, log=True, histtype="stepfilled")
    ax.axvline(threshold, color=RED, linewidth=1.2)
    note = f"{threshold:g}" if fired is None else f"{threshold:g}\n{fired:.1%} fired"
    ax.annotate(note, (threshold, 1), (-2, -2), xycoords=("data", "axes fraction"), ha="right", va="top",
                textcoords="offset points", color=RED, fontsize=8)  # fmt: skip
    ax.set_title(title, fontsize=8)
    ax.minorticks_off()
    bottom, top = ax.get_ylim()
    ax.set(xlim=(edges[0] - width, edges[-1] + 3 * width), ylim=(bottom, top * (top / bottom) ** 0.5))  # room to write
    return ax


@styled
def plot_energy(
    rows: Sequence[EnergyRow], ax: Axes | None = None, *, e_mac: float = 4.6, e_ac: float = 0.9, most: int = 30
) -> Axes:
    """Draw the energy of each layer as a bar, that of accumulates and of multiply-accumulates in two colours.

    Args:
        rows: from `analyze`, in the order of execution.
        e_mac, e_ac: pJ for one multiply-accumulate, one accumulate.
        most: more layers than this are added up by block.
    """
    bars: dict[str, np.ndarray] = {}
    for row in rows:
        name = row.name if len(rows) <= most else _block_of(row.name)
        bars[name] = bars.get(name, 0.0) + np.array([e_ac * row.ac, e_mac * row.mac]) / 1e9
    ax = ax or new_axes(6.5, 0.9 + 0.22 * len(bars))
    places = range(len(bars))
    accumulates, products = np.stack(list(bars.values())).T
    ax.barh(places, accumulates, color=BLUE, height=0.72, label=f"accumulates, {e_ac:g} pJ each")
    ax.barh(places, products, left=accumulates, color=RED, height=0.72,
            label=f"multiply-accumulates, {e_mac:g} pJ each")  # fmt: skip
    ends = accumulates + products
    _name_bars(ax, list(bars), ends, [f"{end / max(ends.sum(), 1e-30):.1%}" for end in ends])
    ax.set(xlabel="energy of one sample, mJ (estimate)", xlim=(0, 1.12 * max(*ends, 1e-30)))
    ax.locator_params(axis="x", nbins=6)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.legend(loc="best", fontsize=8)
    return ax


def _block_of(name: str) -> str:
    """Return the numbered part of the network that a layer is in: `stages.0.blocks.1.attn.q` to `stages.0.blocks.1`."""
    parts = name.split(".")
    inside = 0
    while inside + 1 < len(parts) and parts[inside + 1].isdigit():
        inside += 2
    return ".".join(parts[: inside or 1])
