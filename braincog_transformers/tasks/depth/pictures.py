"""Pictures of predicted depth: what the camera saw, the truth, and the prediction, in metres."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["draw_depth"]


def draw_depth(
    spikes: Sequence[np.ndarray], truth: Sequence[np.ndarray] | None, predicted: Sequence[np.ndarray],
    names: Sequence[str], path: Path,
) -> Path:  # fmt: skip
    """Draw a row for each frame, all with the same logarithmic scale, and save the picture.

    Args:
        spikes: mean over the frames of each sample `(H, W)`.
        truth: metres `(H, W)`, grey where not known; None if there is none.
        predicted: metres `(H, W)`.
        names: what stands beside each row.
        path: the PNG to write.
    """
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    from ...analysis.pictures.plots import new_figure, new_grid, save, styled

    @styled
    def draw() -> Path:
        shown = [*(truth or ()), *predicted]
        low, high = (float(np.nanquantile(np.concatenate([one.ravel() for one in shown]), q)) for q in (0.01, 0.99))
        scale = LogNorm(low, max(high, 1.01 * low))
        colours = colormaps["viridis_r"].with_extremes(bad="#d0d3d8")
        columns = {"spikes, mean": spikes} | ({"truth": truth} if truth else {}) | {"prediction": predicted}
        height, width = predicted[0].shape
        side = 2.2
        figure = new_figure(side * len(columns) * max(1, width / height) + 1.2, side * len(predicted) + 0.4)
        axes = new_grid(figure, len(predicted), len(columns))
        for column, (title, maps) in enumerate(columns.items()):
            for row, one in enumerate(maps):
                ax = axes[row, column]
                if maps is spikes:
                    ax.imshow(one, cmap="gray", vmin=0, interpolation="nearest")
                else:
                    drawn = ax.imshow(one, cmap=colours, norm=scale, interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
                if row == 0:
                    ax.set_title(title)
                if column == 0:
                    ax.set_ylabel(names[row], fontsize=7)
        bar = figure.colorbar(drawn, ax=axes, label="depth (m)", fraction=0.04, pad=0.02)
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.yaxis.set_minor_formatter("{x:g}")
        bar.ax.tick_params(which="both", labelsize=7)
        bar.outline.set_visible(False)
        return save(figure, path)

    return draw()
