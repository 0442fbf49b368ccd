"""Pictures of conversions: accuracy over T beside the source's and the limit's, and energy over T."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..conversion import ConversionRow
from .plots import AMBER, BLUE, GREEN, GREY, GRID, INK, RED, new_figure, new_grid, save, styled

__all__ = ["draw_conversion", "plot_comparison", "plot_conversion"]

_LEVELS = {"source": GREY, "limit": AMBER}


@styled
def plot_conversion(rows: Sequence[ConversionRow], figure: Figure | None = None) -> Figure:
    """Draw accuracy over T, and energy where it was counted, both with the levels of source and limit.

    Args:
        rows: source, limit, then the spiking network from small T to large.
        figure: an empty one.
    """
    spiking = [row for row in rows if row.network == "spiking"]
    levels = [row for row in rows if row.network != "spiking"]
    counted = all(row.energy is not None for row in spiking)
    figure = figure or new_figure(4.2 * (1 + counted), 3.2)
    accuracy, *energy = new_grid(figure, 1, 1 + counted)[0]
    _over_steps(accuracy, [row.step for row in spiking], [row.top1 for row in spiking], "accuracy (%)", BLUE)
    accuracy.plot([row.step for row in spiking], [row.agreement for row in spiking], ":", color=RED, linewidth=1.2,
                  label="same answer as the limit")  # fmt: skip
    for row in levels:
        accuracy.axhline(row.top1, color=_LEVELS[row.network], linestyle="--", linewidth=1.2,
                         label=f"{row.network} {row.top1:.2f}")  # fmt: skip
    accuracy.set_ylim(0, 101)
    accuracy.legend(loc="lower right", fontsize=8)
    for ax in energy:
        _over_steps(ax, [row.step for row in spiking], [row.energy for row in spiking], "energy of a sample (mJ)", BLUE)
        for row in levels:
            if row.energy is not None:
                ax.axhline(row.energy, color=_LEVELS[row.network], linestyle="--", linewidth=1.2, label=row.network)
        ax.set_ylim(bottom=0)
        ax.legend(loc="upper left", fontsize=8)
    return figure


@styled
def plot_comparison(found: Mapping[str, Sequence[ConversionRow]]) -> Figure:
    """Draw accuracy and energy of several conversions of one source over T, and the level of each limit.

    Args:
        found: by method the rows that `plot_conversion` takes, with their energies.
    """
    figure = new_figure(8.4, 3.4)
    accuracy, energy = new_grid(figure, 1, 2)[0]
    for (method, rows), colour in zip(found.items(), cycle((BLUE, RED, AMBER, GREEN)), strict=False):
        spiking = [row for row in rows if row.network == "spiking"]
        steps = [row.step for row in spiking]
        _over_steps(accuracy, steps, [row.top1 for row in spiking], "accuracy (%)", colour, method)
        _over_steps(energy, steps, [row.energy for row in spiking], "energy of a sample (mJ)", colour, method)
        limit = next(row for row in rows if row.network == "limit")
        accuracy.axhline(limit.top1, color=colour, linestyle=":", linewidth=1.2)
    source = next(iter(found.values()))[0]
    for ax, value in ((accuracy, source.top1), (energy, source.energy)):
        ax.axhline(value, color=GREY, linestyle="--", linewidth=1.2, label="source")
    accuracy.set_ylim(0, 101)
    accuracy.legend(loc="lower right", fontsize=8)
    accuracy.annotate("dotted: limit", (1, 1.01), xycoords="axes fraction", ha="right", color=INK, fontsize=8)
    energy.set_yscale("log")
    return figure


def _over_steps(
    ax: Axes, steps: Sequence[int], values: Sequence[float], title: str, colour: str, label: str = "spiking"
) -> None:
    """Draw one curve over T, whose axis is logarithmic."""
    ax.plot(steps, values, "o-", color=colour, markersize=3.5, linewidth=1.6, label=label)
    ax.set_xscale("log", base=2)
    ax.set_xticks(steps, [str(step) for step in steps])
    ax.minorticks_off()
    ax.set(title=title, xlabel="T")
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)


def draw_conversion(rows: Sequence[ConversionRow], folder: str | Path) -> Path:
    """Write `conversion.png` and `.svg`; return the path of the first."""
    return save(plot_conversion(rows), Path(folder) / "conversion.png")
