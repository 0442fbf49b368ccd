"""Pictures of boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ...errors import shown

__all__ = ["plot_detections", "shown_picture"]


def shown_picture(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return a sample `(C, H, W)`, or frames `(T, P, H, W)`, as a picture (H, W, 3) in [0, 1].

    Frames are shown as the difference of both polarities, summed over time: ON events red, OFF events blue.

    Args:
        x: the sample.
        mean, std: that it was normalised with; none for frames.
    """
    if x.dim() == 4:
        total = x.sum(0).numpy()
        signed = total[1] - total[0] if len(total) == 2 else total[0]
        strength = np.clip(signed / max(1.0, float(np.quantile(np.abs(signed), 0.995))), -1, 1)
        on, off = np.clip(strength, 0, 1)[..., None], np.clip(-strength, 0, 1)[..., None]
        return 1 - on * np.array([0, 0.75, 0.75]) - off * np.array([0.75, 0.5, 0])
    picture = x.numpy() * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1))
    return np.clip(np.broadcast_to(picture, (3, *picture.shape[1:])).transpose(1, 2, 0), 0, 1)


def plot_detections(
    rows: Sequence[tuple[np.ndarray, Sequence[tuple[np.ndarray, str]], Sequence[tuple[np.ndarray, str]]]], path: Path
) -> Path:
    """Draw pictures twice, on top with the true boxes, below with those that were found, as a PNG.

    Args:
        rows: picture (H, W, 3), and true and found boxes (x, y, width, height), each with its text.
        path: to write.
    """
    from matplotlib.patches import Rectangle

    from ...analysis.pictures.plots import GREEN, RED, new_figure, new_grid, save

    figure = new_figure(2.6 * len(rows), 5.6)
    axes = new_grid(figure, 2, len(rows))
    for column, (picture, *both) in enumerate(rows):
        for row, (title, colour, boxes) in enumerate(zip(("truth", "found"), (GREEN, RED), both, strict=True)):
            ax = axes[row, column]
            ax.imshow(picture, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            if column == 0:
                ax.set_title(title)
            for box, text in reversed(boxes):  # the best, which comes first, on top
                ax.add_patch(Rectangle(box[:2] - 0.5, *box[2:], fill=False, edgecolor=colour, linewidth=1.5))
                below = box[1] < picture.shape[0] / 12  # no room above
                style = {"facecolor": colour, "edgecolor": "none", "pad": 1, "alpha": 0.85}
                aligned = {"va": "top" if below else "bottom", "clip_on": True}
                ax.text(*box[:2], shown(text, 30), color="white", fontsize=6, bbox=style, **aligned)
    return save(figure, path)
