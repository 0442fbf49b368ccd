"""Pictures of tracks: boxes over event frames, and the two curves of the benchmarks."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...analysis.pictures.plots import BLUE, RED, new_figure, new_grid, styled
from .metrics import PIXELS, THRESHOLDS, precision_curve, success_curve

__all__ = ["plot_curves", "plot_tracks"]


def _draw_box(ax: Axes, box: np.ndarray, colour: str, label: str) -> None:
    x, y, width, height = box
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, color=colour, linewidth=1.6, label=label))


@styled
def plot_tracks(rows: Sequence[tuple[str, Sequence[tuple[int, np.ndarray, np.ndarray, np.ndarray]]]]) -> Figure:
    """Draw boxes over event frames, a row for each sequence.

    Args:
        rows: the name of a sequence, and of some of its frames the number, the events `(2, H, W)` of positive and
            negative polarity from 0 to 1, the true and the predicted box x, y, w, h. A true box may be empty.
    """
    columns = max(len(frames) for _, frames in rows)
    height, width = rows[0][1][0][1].shape[1:]
    figure = new_figure(2.6 * columns, (2.6 * height / width + 0.35) * len(rows) + 0.4)
    grid = new_grid(figure, len(rows), columns)
    for axes, (name, frames) in zip(grid, rows, strict=True):
        axes[0].set_ylabel(name)
        for ax, (number, events, truth, predicted) in zip(axes, frames, strict=False):
            positive, negative = events
            ax.imshow(np.stack([1 - negative, 1 - np.maximum(positive, negative), 1 - positive], axis=-1))
            if min(truth[2:]) > 0:
                _draw_box(ax, truth, BLUE, "true")
            _draw_box(ax, predicted, RED, "predicted")
            ax.set_title(f"frame {number}")
        for ax in axes:
            ax.set(xticks=[], yticks=[])
        for ax in axes[len(frames) :]:
            ax.set_axis_off()
    handles = {label: handle for handle, label in zip(*grid[0, 0].get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure


@styled
def plot_curves(measured: Sequence[tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draw the success and the precision curve, the means over sequences.

    Args:
        measured: overlaps and distances of centres in pixels of the frames of each sequence.
    """
    success = np.mean([success_curve(overlaps) for overlaps, _ in measured], axis=0)
    precision = np.mean([precision_curve(errors) for _, errors in measured], axis=0)
    figure = new_figure(7.2, 3.0)
    left, right = new_grid(figure, 1, 2)[0]
    left.plot(THRESHOLDS, 100 * success, color=BLUE, label=f"area {100 * success.mean():.1f} %")
    left.set(title="success (%)", xlabel="overlap", xlim=(0, 1))
    right.plot(PIXELS, 100 * precision, color=BLUE, label=f"at 20 pixels {100 * precision[20]:.1f} %")
    right.axvline(20, color=RED, linewidth=0.8, linestyle="--")
    right.set(title="precision (%)", xlabel="distance of the centres (pixels)", xlim=(0, PIXELS[-1]))
    for ax in (left, right):
        ax.set_ylim(0, 101)
        ax.legend(loc="best")
    return figure
