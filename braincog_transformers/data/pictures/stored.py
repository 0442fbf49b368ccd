"""Pictures by index, in memory or in files, with their labels in `targets`."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .decoding import MOST_PIXELS, decoded

__all__ = ["ArrayPictures", "FilePictures"]


class ArrayPictures:
    """Pictures held in memory.

    Args:
        pixels: (N, H, W) or (N, H, W, 3) uint8.
        targets: labels.
    """

    def __init__(self, pixels: np.ndarray, targets: Sequence[int]) -> None:
        self.pixels = pixels
        self.targets = [int(target) for target in targets]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


class FilePictures:
    """Photos in files.

    Args:
        paths: of the photos.
        targets: labels.
        max_pixels: of a photo.
    """

    def __init__(self, paths: Sequence[str], targets: Sequence[int], max_pixels: int = MOST_PIXELS) -> None:
        self.paths = list(paths)
        self.targets = list(targets)
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return decoded(self.paths[index], self.paths[index], self.max_pixels)
