"""Pictures by index, in memory or in files, with their labels in `targets`; and the samples that are made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .decoding import MOST_PIXELS, decoded

__all__ = ["ArrayPictures", "FilePictures", "PictureDataset"]


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
        targets: labels; at first the names of the classes.
        max_pixels: of a photo.
    """

    paths: list[str]
    targets: list[int] | list[str]
    max_pixels: int = MOST_PIXELS

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return decoded(self.paths[index], self.paths[index], self.max_pixels)


@dataclass(eq=False)
class PictureDataset(Dataset):
    """Serve pictures through a transform.

    Args:
        source: PIL pictures by index, and their `targets`.
        mode: PIL's mode that the pictures are brought to, `L` or `RGB`.
        transform: from a PIL picture to a tensor.
    """

    source: Any
    mode: str
    transform: Callable[[Image.Image], Tensor]

    @property
    def targets(self) -> list[int]:
        """Labels in the order of the samples."""
        return self.source.targets

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a picture (C, H, W) float32 and its label."""
        picture = self.source[index]
        if picture.mode != self.mode:
            picture = picture.convert(self.mode)
        return self.transform(picture), self.targets[index]
