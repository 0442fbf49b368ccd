"""Pictures of segmentations: picture, truth and prediction side by side."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...analysis.pictures.plots import new_figure, new_grid, save, styled
from .masks import VOID, palette

__all__ = ["plot_segments", "shown_picture"]

_MOST_NAMES = 24
"""Classes in the legend; of more, those with most pixels."""
_VOID_COLOUR = 224


@styled
def plot_segments(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]], classes: tuple[str, ...], path: Path) -> Path:
    """Draw samples below each other, and a legend of the classes in them.

    Args:
        rows: of each sample the picture (h, w, 3) from 0 to 1, and true and predicted labels (H, W).
        classes: names.
        path: the PNG to write.
    """
    from matplotlib.patches import Patch

    figure = new_figure(7.5, 2.3 * len(rows) + 0.6)
    titles = ("picture", "truth", "prediction")
    for axes, row in zip(new_grid(figure, len(rows), 3), rows, strict=True):
        height, width = row[1].shape
        for ax, title, values in zip(axes, titles, row, strict=True):
            shown = values if values.ndim == 3 else _colours()[values]
            # all three have the extent of the mask, as the picture was resized
            ax.imshow(shown, extent=(0, width, height, 0), interpolation="nearest")
            ax.set(xticks=[], yticks=[], title=title if row is rows[0] else "")
    counts = sum(np.bincount(labels.ravel(), minlength=VOID + 1) for row in rows for labels in row[1:])
    most = sorted(np.argsort(-counts[: len(classes)], kind="stable")[:_MOST_NAMES].tolist())
    names = [(label, classes[label]) for label in most if counts[label]]
    names += [(VOID, "void")] if counts[VOID] else []
    patches = [Patch(color=_colours()[label] / 255, label=name) for label, name in names]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)))
    return save(figure, path)


def shown_picture(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Return a normalised picture (3, H, W) as (H, W, 3) from 0 to 1."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return (x.cpu().float() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()


def _colours() -> np.ndarray:
    """Return a colour for each label: VOC's, with a light grey for void."""
    colours = palette().copy()
    colours[VOID] = _VOID_COLOUR
    return colours
