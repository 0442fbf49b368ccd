"""Charts of the figures that the benchmarks wrote: ratios to ours, and how cost grows."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from braincog_transformers.analysis.pictures.plots import AMBER, BLUE, GREY, INK, RED, new_figure, styled

from .harness import OURS

__all__ = ["plot_comparisons", "plot_scaling"]

OTHERS = {"identity neurons (floor)": GREY, "BrainCog's neurons": AMBER}


@styled
def plot_comparisons(result: dict[str, Any]) -> Figure:
    """Draw, for each comparison, every side's time over ours as a bar with its quartiles.

    Args:
        result: what `benchmarks.run --json` writes.
    """
    found = result["comparisons"]
    columns = min(len(found), 4)
    rows = -(-len(found) // columns)
    tallest = max(len(one["sides"]) for one in found)
    figure = new_figure(max(3.4 * columns + 1.2, 5), rows * (0.7 + 0.27 * tallest) + 0.6)
    for place, one in zip(figure.subplots(rows, columns, squeeze=False).flat, found, strict=False):
        _bars(place, one)
    for place in figure.axes[len(found) :]:
        place.remove()
    figure.supxlabel(
        "time over ours (above 1: ours is faster); bars are medians, lines quartiles", fontsize=9, color=INK
    )
    return figure


def _bars(ax: Any, one: dict[str, Any]) -> None:
    sides = list(one["sides"].items())
    for height, (name, row) in enumerate(sides):
        ax.barh(height, row["ratio"], color=BLUE if name.startswith(OURS) else OTHERS.get(name, RED), height=0.68)
        ax.plot((row["low"], row["high"]), (height, height), color=INK, linewidth=1.4)
        ax.annotate(f"{row['ratio']:.2f}", (max(row["ratio"], row["high"]), height), (4, 0),
                    textcoords="offset points", va="center", color=INK, fontsize=8)  # fmt: skip
    ax.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(sides)), [name for name, _ in sides])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.22 * max(row["high"] for _, row in sides))
    ax.set_title(f"{one['model']}\n{one['mode']}, {one['dtype']}")


@styled
def plot_scaling(result: dict[str, Any]) -> Figure:
    """Draw the growth of attention and of a training step beside their goals.

    Args:
        result: what `benchmarks.scaling --json` writes.
    """
    panels = (("tokens", "attention, 4N tokens over N", 4.4, 4), ("steps", "training step, T=8 over T=4", 2.1, 2))
    figure = new_figure(10, 0.9 + 0.28 * max(len(result[key]) for key, *_ in panels))
    for ax, (key, title, goal, proportion) in zip(figure.subplots(1, 2), panels, strict=True):
        rows = result[key]
        for height, row in enumerate(rows.values()):
            ax.plot((row["low"], row["high"]), (height, height), color=GREY, linewidth=2)
            ax.plot(row["ratio"], height, "o", color=BLUE if row["ratio"] <= goal else RED)
        ax.axvline(goal, color=AMBER, label="goal")
        ax.axvline(proportion, color=GREY, linestyle=":", label="in proportion")
        ax.set_yticks(range(len(rows)), list(rows))
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xlim(0, 1.1 * max(goal, *(row["high"] for row in rows.values())))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        ax.set_title(title)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
