"""Scikit-learn's 1,797 scanned digits, 8 x 8 pixels from 0 to 16, with a fixed stratified split."""

import numpy as np

from ..events.splits import stratified

__all__ = ["digit_pictures"]

_SPLIT_SEED = 0
_TEST_SHARE = 0.2


def digit_pictures(*, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures (N, 8, 8) float32 from 0 to 1 and labels (N,): N is 1437 in training and 360 in the test."""
    # Imported here: it takes half a second, and most data sets don't need it.
    from sklearn.datasets import load_digits

    data = load_digits()
    indices = stratified(data.target, _TEST_SHARE, _SPLIT_SEED)[0 if train else 1]
    return (data.images[indices] / 16).astype(np.float32), data.target[indices]
