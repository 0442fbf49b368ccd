"""Samples of pictures, whatever holds them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["PictureDataset"]


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
