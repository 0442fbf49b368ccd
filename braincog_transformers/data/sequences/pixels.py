"""Pictures as sequences (T, channels) of pixels: `smnist`, `psmnist` and `scifar10` (Le et al., arXiv:1504.00941).

A pixel is a step, row after row, and its colours are the channels. `psmnist` reads the pixels of every picture in the
order of one fixed permutation.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..pictures.stored import ArrayPictures
from ..pictures.torchvision_sets import read_torchvision
from ..registry import SequenceSet
from ..settings import Access

__all__ = ["PixelSequences", "pixel_order", "read_pixels"]


class PixelSequences(Dataset):
    """Serve pictures pixel by pixel.

    Args:
        source: pictures in memory.
        order: (H*W,) the pixel that each step reads, counted row after row.
        mean: per channel, subtracted from intensities in [0, 1].
        std: per channel, then divided by.
    """

    def __init__(
        self, source: ArrayPictures, *, order: np.ndarray, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.pixels, self.targets, self.order = source.pixels, source.targets, order
        self.mean, self.std = np.array(mean, np.float32), np.array(std, np.float32)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a sequence (T, channels) float32, T being the number of pixels, and the label."""
        steps = self.pixels[index].reshape(len(self.order), -1)[self.order].astype(np.float32) / 255
        return torch.from_numpy((steps - self.mean) / self.std), self.targets[index]


def pixel_order(info: SequenceSet) -> np.ndarray:
    """Return the pixel that each step reads, (T,) int64: row after row, or the entry's permutation of that."""
    if info.permutation is None:
        return np.arange(info.length)
    return np.random.RandomState(info.permutation).permutation(info.length)  # whose draws never change


def read_pixels(info: SequenceSet, data_dir: Path, access: Access) -> tuple[PixelSequences, PixelSequences]:
    """Return the training and the test set.

    Args:
        info: entry of the table, with a `length`.
        data_dir: folder in which the pictures are looked for.
        access: whether torchvision fetches them where they are missing.

    Raises:
        UserError: for a set that is missing, damaged, or can't be fetched.
    """
    train, test, _ = read_torchvision(info, data_dir, access)
    rule = {"order": pixel_order(info), "mean": info.mean, "std": info.std}
    return PixelSequences(train, **rule), PixelSequences(test, **rule)
