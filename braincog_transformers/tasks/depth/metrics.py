"""The figures of depth estimation, as the official evaluation computes them: for each frame, in metres.

What it does otherwise than its names say is kept: the squared relative error is divided by the square of the depth, and
the scale-invariant error is the variance of the absolute logarithmic difference.
Pixels without a label don't count here. There they are left out of some figures only, make others NaN, and count as
missed in the deltas.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["CUTOFFS", "frame_figures"]

CUTOFFS = (10, 20, 30, 80, 250, 500)
"""Metres; the figures are given for all pixels, and again for those that are nearer than each of these."""


def frame_figures(target: np.ndarray, prediction: np.ndarray, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """Return the figures of one frame by name, those below a cut-off with `_10m` and so on behind it.

    Args:
        target: metres, NaN where not known.
        prediction: metres, of the same shape.
        cutoffs: metres.

    Returns:
        Floats; none where no pixel is known, or none is that near.
    """
    known = ~np.isnan(target)
    target, prediction = (np.asarray(one[known], np.float64) for one in (target, prediction))
    found = _figures(target, prediction)
    for metres in cutoffs:
        near = target < metres
        found |= {f"{name}_{metres}m": value for name, value in _figures(target[near], prediction[near]).items()}
    return found


def _figures(t: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Return the figures of some pixels."""
    if not len(t):
        return {}
    difference, logarithmic = np.abs(t - p), np.log(t + 1e-5) - np.log(p + 1e-5)
    ratio = np.maximum(t / (p + 1e-5), p / (t + 1e-5))
    return {
        "abs_rel": float((difference / (t + 1e-6)).mean()),
        "rmse": float(np.sqrt((difference**2).mean())),
        **{f"delta{power}": float((ratio <= 1.25**power).mean()) for power in (1, 2, 3)},
        "sq_rel": float((difference**2 / (t**2 + 1e-6)).mean()),
        "rmse_log": float(np.sqrt((logarithmic**2).mean())),
        "si_log": float(np.var(np.abs(logarithmic))),
        "mean_error": float(difference.mean()),
        "median_difference": float(abs(np.median(t) - np.median(p))),
    }
