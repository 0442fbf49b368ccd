"""Pictures of skeletons: over event frames, and from the front and the side."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ...analysis.pictures.plots import BLUE, RED, new_figure, new_grid, styled
from ...models.body_model import PARENTS

__all__ = ["plot_poses"]

_COLUMNS = 4
_HIPS = (1, 2)


def _draw_bones(ax: Axes, joints: np.ndarray, colour: str, label: str) -> None:
    """Add the bones between joints (24, 2)."""
    bones = [joints[[joint, parent]] for joint, parent in enumerate(PARENTS) if joint]
    ax.add_collection(LineCollection(bones, colors=colour, linewidths=1.8, label=label, capstyle="round"))


@styled
def plot_poses(
    events: np.ndarray, pred: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], *, title: str = ""
) -> Figure:
    """Draw a clip at four times, true and predicted.

    Args:
        events: event frames (T, C, H, W).
        pred: joints2d (T+1, 24, 2) in sides of the picture and joints3d (T+1, 24, 3) in metres before the camera.
        truth: the same.
        title: of the figure.

    Returns:
        The figure: rows with the events and the true joints, the events and the predicted ones, and both from the front
        and from the side with the middle of their hips in the same place.
    """
    steps, side = len(events), events.shape[-1]
    times = np.unique(np.linspace(0, steps, _COLUMNS).round().astype(int))
    figure = new_figure(2.3 * len(times), 9.2)
    grid = new_grid(figure, 4, len(times))
    for column, time in zip(grid.T, times, strict=True):
        # pose t is at the border of frames t-1 and t
        seen = events[min(time, steps - 1)].max(axis=0)
        for ax, joints, colour, label in (
            (column[0], truth["joints2d"][time], BLUE, "true"), (column[1], pred["joints2d"][time], RED, "predicted"),
        ):  # fmt: skip
            ax.imshow(seen, cmap="Greys", vmax=2.5, interpolation="nearest")
            _draw_bones(ax, joints * side - 0.5, colour, label)
            ax.set(xticks=[], yticks=[], xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
        column[0].set_title(f"pose {time} of {steps}")
        for ax, axes in ((column[2], [0, 1]), (column[3], [2, 1])):
            for name, colour, joints in (
                ("true", BLUE, truth["joints3d"][time]),
                ("predicted", RED, pred["joints3d"][time]),
            ):
                centred = joints - joints[list(_HIPS)].mean(axis=0)
                _draw_bones(ax, centred[:, axes], colour, name)
            ax.set(xlim=(-1.1, 1.1), ylim=(1.1, -1.1), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    for ax, text in zip(
        grid[:, 0], ("events and truth", "events and prediction", "front (m)", "side (m)"), strict=True
    ):
        ax.set_ylabel(text)
    figure.legend(*grid[2, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
