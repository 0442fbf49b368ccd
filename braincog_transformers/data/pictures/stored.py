"""Pictures by index, in memory or in files, with their labels in `targets`."""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(eq=False)
class FilePictures:
    """Photos in files.

    Args:
        paths: of the photos.
        targets: labels.
        max_pixels: of a photo.
    """

    paths: list[str]
    targets: list[int]
    max_pixels: int = MOST_PIXELS

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return decoded(self.paths[index], self.paths[index], self.max_pixels)
