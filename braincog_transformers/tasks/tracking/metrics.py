"""How well boxes follow an object: overlap, success, precision, as the trackers' benchmarks define them."""

import numpy as np

__all__ = ["PIXELS", "THRESHOLDS", "center_error", "figures", "overlap", "precision_curve", "success_curve"]

THRESHOLDS = np.linspace(0, 1, 101)
"""Of the overlap, in a success curve."""
PIXELS = np.arange(51)
"""Of the distance of centres, in a precision curve."""


def _clipped(boxes: np.ndarray, bound: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return both corners `(F, 2)` of boxes inside of a picture.

    As in the benchmark's code, a box that begins outside of the picture keeps its width, from the border on.
    """
    first = np.clip(boxes[:, :2], 0, bound)
    return first, first + np.clip(boxes[:, 2:], 0, bound - first)


def overlap(boxes: np.ndarray, truth: np.ndarray, bound: tuple[int, int]) -> np.ndarray:
    """Return the intersection over union of boxes x, y, w, h `(F, 4)`, clipped to width and height of the picture:
    `(F,)`."""
    (a0, a1), (b0, b1) = _clipped(boxes, bound), _clipped(truth, bound)
    common = (np.minimum(a1, b1) - np.maximum(a0, b0)).clip(min=0).prod(1)
    union = (a1 - a0).prod(1) + (b1 - b0).prod(1) - common
    return np.clip(common / (union + np.finfo(float).eps), 0, 1)


def center_error(boxes: np.ndarray, truth: np.ndarray, *, normalized: bool = False) -> np.ndarray:
    """Return the distance of the boxes' centres in pixels, or in widths and heights of the true boxes: `(F,)`."""
    ours, theirs = (one[:, :2] + (one[:, 2:] - 1) / 2 for one in (boxes, truth))
    scale = np.maximum(truth[:, 2:], np.finfo(float).eps) if normalized else 1.0
    return np.sqrt((((ours - theirs) / scale) ** 2).sum(1))


def success_curve(overlaps: np.ndarray) -> np.ndarray:
    """Return the share of frames whose overlap is above each of `THRESHOLDS`: `(101,)`."""
    return (overlaps[:, None] > THRESHOLDS).mean(0)


def precision_curve(errors: np.ndarray) -> np.ndarray:
    """Return the share of frames whose centre is at most so many `PIXELS` away: `(51,)`."""
    return (errors[:, None] <= PIXELS).mean(0)


def figures(overlaps: list[np.ndarray], errors: list[np.ndarray], normalized: list[np.ndarray]) -> dict[str, float]:
    """Return the figures of several sequences, in percent.

    Args:
        overlaps, errors, normalized: of each sequence, without its first frame, whose box is given.

    Returns:
        `auc`, the area under the success curve (RSR); `precision` at 20 pixels (RPR); `norm_precision` at 0.2 widths
        and heights, all three means over sequences; `ao`, the mean overlap of all frames; `sr50` and `sr75`, the share
        of all frames with more overlap than 0.50 and 0.75.
    """
    together = np.concatenate(overlaps)
    shares = {
        "auc": np.mean([success_curve(one).mean() for one in overlaps]),
        "precision": np.mean([(one <= 20).mean() for one in errors]),
        "norm_precision": np.mean([(one <= 0.2).mean() for one in normalized]),
        "ao": together.mean(),
        "sr50": (together > 0.5).mean(),
        "sr75": (together > 0.75).mean(),
    }
    return {name: 100 * float(share) for name, share in shares.items()}
