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

from .catalog import DatasetInfo
from .images import ArrayPictures, picture_sources

__all__ = ["PixelSequences", "pixel_datasets", "pixel_order"]

# That of most published results since Helfrich et al. (arXiv:1707.09520); this generator's draws never change.
_PERMUTATION_SEED = 92916


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


def pixel_order(info: DatasetInfo) -> np.ndarray:
    """Return the pixel that each step reads, (T,) int64: row after row, or `psmnist`'s permutation of that."""
    if info.name == "psmnist":
        return np.random.RandomState(_PERMUTATION_SEED).permutation(info.length)
    return np.arange(info.length)


def pixel_datasets(
    info: DatasetInfo, data_dir: Path, *, download: bool = False
) -> tuple[PixelSequences, PixelSequences]:
    """Return the training and the test set.

    Args:
        info: entry of the catalogue, with a `length`.
        data_dir: folder in which the pictures are looked for.
        download: let torchvision fetch them where they are missing.

    Raises:
        UserError: for a set that is missing, damaged, or can't be fetched.
    """
    train, test, _ = picture_sources(info, data_dir, download=download)
    rule = {"order": pixel_order(info), "mean": info.mean, "std": info.std}
    return PixelSequences(train, **rule), PixelSequences(test, **rule)
