"""Pictures of classes: the confusion matrix, and features in the plane."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from .plots import GRID, INK, few_ticks, new_axes, styled

__all__ = ["plot_confusion", "plot_points"]


@styled
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
    ticks = list(range(count)) if count <= 30 else few_ticks(count)
    names = [str(tick) if classes is None else str(classes[tick]) for tick in ticks]
    tilted = max(map(len, names)) > 3
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_xticks(ticks, names, rotation=45 if tilted else 0, ha="right" if tilted else "center")
    ax.set_yticks(ticks, names)
    ax.set_title(f"{np.trace(matrix):,} of {matrix.sum():,} right ({np.trace(matrix) / max(matrix.sum(), 1):.2%})")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


@styled
def plot_points(
    points: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str] | None = None,
    ax: Axes | None = None,
    *,
    title: str = "",
    legend: bool = True,
) -> Axes:
    """Draw an embedding in the plane, one colour per class.

    Args:
        points: `(N, 2)`.
        labels: class of each point, `(N,)`.
        classes: names for the legend.
        legend: write the names beside the points, of up to 20 classes.
    """
    ax = ax or new_axes(5.6, 4.6)
    present = np.unique(labels)
    colours = colormaps["tab10" if len(present) <= 10 else "tab20" if len(present) <= 20 else "turbo"]
    for place, label in enumerate(present):
        chosen = points[labels == label]
        colour = colours(place) if len(present) <= 20 else colours(place / len(present))
        name = str(label) if classes is None else str(classes[int(label)])
        ax.scatter(*chosen.T, s=12, color=colour, label=name, alpha=0.85, linewidths=0)
    if legend and len(present) <= 20:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, markerscale=1.6, handletextpad=0.2)
    ax.set(xticks=[], yticks=[], title=title, box_aspect=1)
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[:].set_color(GRID)
    ax.spines[:].set_visible(True)
    return ax
