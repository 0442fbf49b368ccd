"""Pictures with their masks as samples: cut and varied for training, whole for the test."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import ColorJitter

from ...data.loading.reading import Damaged, read_all
from ...data.pictures.decoding import decoded
from ...runtime.batch import Batch
from .folders import Pair
from .masks import VOID, MaskRule

__all__ = ["CentreCrop", "Sample", "Segments", "TestWhole", "TrainCrop", "ToTensor", "left_out"]

Sample = tuple[Tensor, Any]
LONGEST = 4
"""The long side of a picture is at most so many times what its short one is resized to, as in mmsegmentation."""
_TRIES = 10


@dataclass(frozen=True)
class ToTensor:
    """Map a picture in RGB to a normalised tensor (3, H, W).

    Args:
        mean, std: of each channel of pictures in [0, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, picture: Image.Image) -> Tensor:
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div_(255)
        return x.sub_(torch.tensor(self.mean)[:, None, None]).div_(torch.tensor(self.std)[:, None, None])


def resized(picture: Image.Image, side: float) -> Image.Image:
    """Return a picture in another size, with its short side as given, or shorter where the long one would be too long.

    The aspect is kept. Numbers of a mask are not mixed: its pixels are the nearest ones.
    """
    factor = min(side / min(picture.size), LONGEST * side / max(picture.size))
    size = tuple(max(1, round(factor * one)) for one in picture.size)
    return picture.resize(size, Image.Resampling.NEAREST if picture.mode == "L" else Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class TrainCrop:
    """Cut a random part out of a picture of random size, and vary it; samples are (3, H, W) and labels (H, W).

    What lies beyond the picture is 0, the mean colour, and void. This is mmsegmentation's rule.

    Args:
        size: (H, W).
        resize: range of the factor by which the short side is resized beyond the shorter of H and W.
        class_share: of one class in a crop, the most; the last of ten crops is taken anyway.
        hflip: chance of a horizontal flip.
        jitter: how much brightness, contrast and saturation change.
        to_tensor: normalises.
    """

    size: tuple[int, int]
    resize: tuple[float, float]
    class_share: float
    hflip: float
    jitter: float
    to_tensor: ToTensor

    def __call__(self, picture: Image.Image, labels: np.ndarray, index: int) -> Sample:
        low, high = self.resize
        side = min(self.size) * float(torch.empty(()).uniform_(low, high))
        picture, mask = resized(picture, side), resized(Image.fromarray(labels), side)
        box = self._box(mask)
        picture, mask = picture.crop(box), mask.crop(box)
        if torch.rand(()) < self.hflip:
            picture, mask = ImageOps.mirror(picture), ImageOps.mirror(mask)
        if self.jitter:
            picture = ColorJitter(self.jitter, self.jitter, self.jitter)(picture)
        return _padded(self.to_tensor(picture), torch.from_numpy(np.array(mask)), self.size)

    def _box(self, mask: Image.Image) -> tuple[int, int, int, int]:
        for _ in range(_TRIES):
            left, top = (
                int(torch.randint(max(0, has - wanted) + 1, ()))
                for has, wanted in zip(mask.size, reversed(self.size), strict=True)
            )
            right, bottom = min(mask.width, left + self.size[1]), min(mask.height, top + self.size[0])
            counts = np.bincount(np.asarray(mask)[top:bottom, left:right].ravel(), minlength=VOID + 1)[:VOID]
            if counts.any() and counts.max() <= self.class_share * counts.sum():
                break
        return left, top, right, bottom


@dataclass(frozen=True)
class CentreCrop:
    """Cut the centre out of a picture whose short side is the shorter of H and W; nothing is random.

    Args:
        size: (H, W).
        to_tensor: normalises.
    """

    size: tuple[int, int]
    to_tensor: ToTensor

    def __call__(self, picture: Image.Image, labels: np.ndarray, index: int) -> Sample:
        picture, mask = (resized(one, min(self.size)) for one in (picture, Image.fromarray(labels)))
        left, top = (max(0, has - wanted) // 2 for has, wanted in zip(mask.size, reversed(self.size), strict=True))
        box = left, top, min(mask.width, left + self.size[1]), min(mask.height, top + self.size[0])
        return _padded(self.to_tensor(picture.crop(box)), torch.from_numpy(np.array(mask.crop(box))), self.size)


@dataclass(frozen=True)
class TestWhole:
    """Give the whole picture, its short side resized, with the mask as it is and the number of the sample.

    Args:
        side: in pixels.
        to_tensor: normalises.
    """

    side: int
    to_tensor: ToTensor

    def __call__(self, picture: Image.Image, labels: np.ndarray, index: int) -> Sample:
        target = Batch(labels=torch.from_numpy(labels), index=torch.tensor(index))
        return self.to_tensor(resized(picture, self.side)), target


class Segments(Dataset):
    """Read pictures with their masks.

    Args:
        pairs: of files.
        rule: of the masks.
        transform: maps a picture in RGB, its labels (H, W) in uint8, and the number of the sample, to a sample.
    """

    def __init__(self, pairs: Sequence[Pair], rule: MaskRule, transform: Callable[..., Sample]):
        self.pairs, self.rule, self.transform = tuple(pairs), rule, transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        return self.transform(*self.read(self.pairs[index]), index)

    def read(self, pair: Pair) -> tuple[Image.Image, np.ndarray]:
        """Return a picture in RGB and its labels (H, W).

        Raises:
            UserError: for a file that can't be used.
        """
        path, mask = pair
        picture = decoded(path, str(path), self.rule.max_pixels)
        return picture, self.rule.read(mask, picture.size)

    def sound(self, pair: Pair) -> bool:
        """Read a sample, and say that it can be used."""
        self.read(pair)
        return True


def left_out(samples: Segments, workers: int | None) -> tuple[str, ...]:
    """Leave samples out that can't be used, and return what is wrong with each.

    Args:
        samples: which are all read, and changed in place.
        workers: processes that read; None for all cores.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    results = list(read_all(samples.sound, samples.pairs, workers=workers, title="looking at masks"))
    kept = [pair for pair, result in zip(samples.pairs, results, strict=True) if not isinstance(result, Damaged)]
    samples.pairs = tuple(kept)
    return tuple(result.text for result in results if isinstance(result, Damaged))


def _padded(x: Tensor, labels: Tensor, size: tuple[int, int]) -> Sample:
    """Return a sample with zeros and void to the right and below."""
    height, width = labels.shape
    beyond = (0, size[1] - width, 0, size[0] - height)
    return torch.nn.functional.pad(x, beyond), torch.nn.functional.pad(labels, beyond, value=VOID)
