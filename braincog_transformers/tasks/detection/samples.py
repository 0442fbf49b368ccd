"""Samples of detection: pictures or frames on a canvas of one size, with their boxes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ...data.build import FrameRule
from ...data.formats.opening import named
from ...data.pictures.decoding import decoded
from ...data.readers import DatStretch
from ...errors import UserError
from ...runtime.batch import Batch
from .annotations import Annotations

__all__ = ["Frames", "Photos", "Samples", "Variation"]

_PADDING = -1
"""Label where a picture has fewer boxes than the one that has most."""
_SMALLEST = 1.0
"""Pixels of a side of what is left of a box, below which it is not learnt."""

Reader = Callable[[int, tuple[int, int]], Tensor]
"""Maps the place of a picture, and a size, to the picture in that size, `(..., h, w)`."""


@dataclass(frozen=True)
class Photos:
    """Read photos, resized and normalised.

    Args:
        folder: of the pictures.
        annotations: their names, and sizes, which are compared.
        mean, std: of each channel, of values in [0, 1]; one of one channel makes grey pictures.
        max_pixels: of a photo; a larger one is refused.
    """

    folder: Path
    annotations: Annotations
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_pixels: int

    def __call__(self, i: int, size: tuple[int, int]) -> Tensor:
        """Return picture i as `(C, h, w)`.

        Raises:
            UserError: for a damaged picture, or one of another size than its annotations say.
        """
        path = self.folder / self.annotations.names[i]
        picture = decoded(path, str(path), self.max_pixels)
        height, width = self.annotations.sizes[i].tolist()
        if picture.size != (width, height):
            got = f"{picture.size[0]} x {picture.size[1]}"
            source = self.annotations.source
            raise UserError(f"{path}: has {got} pixels, and {source} says {width} x {height}; use files of one edition")
        if len(self.mean) == 1:
            picture = picture.convert("L")
        if picture.size != size[::-1]:
            picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.atleast_3d(np.asarray(picture)).astype(np.float32) / 255)
        return (values.permute(2, 0, 1) - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[
            :, None, None
        ]


@dataclass(frozen=True)
class Frames:
    """Read stretches of event recordings as frames.

    Args:
        stretches: one for each picture.
        rule: how events become frames; its `size` is set for each call.
    """

    stretches: Sequence[DatStretch]
    rule: FrameRule

    def __call__(self, i: int, size: tuple[int, int]) -> Tensor:
        """Return the frames of picture i, `(T, P, h, w)`; zeros where nothing happened.

        Raises:
            UserError: for a damaged recording.
        """
        stretch = self.stretches[i]
        events = stretch.events(self.rule.sensor)
        with named(stretch):
            span = (stretch.start_us, stretch.end_us - stretch.start_us)
            return torch.from_numpy(replace(self.rule, size=size).of_events(events, span))


@dataclass(frozen=True)
class Variation:
    """How training samples are varied.

    Args:
        hflip: probability of a left-right flip.
        jitter: smallest and largest factor beyond the size that fits.
    """

    hflip: float = 0.0
    jitter: tuple[float, float] = (1.0, 1.0)


class Samples(Dataset):
    """Samples (x, target): the picture at the top left of a canvas, zeros beside it, and its boxes.

    A picture keeps its aspect; in the test it is as large as fits. The target is a `Batch` of `boxes (M, 4)`, corners
    x1, y1, x2, y2 on the canvas, `labels (M,)`, -1 where there is no box, `image`, the place of the picture in
    `annotations`, and `scale (2,)`, vertical and horizontal, from the picture to the canvas.

    Args:
        annotations: pictures and boxes.
        read: reads a picture.
        size: (H, W) of the canvas.
        varied: how training samples are varied; None for those of the test.
    """

    def __init__(self, annotations: Annotations, read: Reader, size: tuple[int, int], varied: Variation | None = None):
        self.annotations, self.read, self.size, self.varied = annotations, read, size, varied

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, i: int) -> tuple[Tensor, Batch]:
        size, varied = self.annotations.sizes[i].tolist(), self.varied or Variation()
        factor = min(room / side for room, side in zip(self.size, size, strict=True))
        low, high = varied.jitter
        factor *= low + (high - low) * torch.rand(()).item() if low < high else low
        resized = tuple(max(1, round(side * factor)) for side in size)
        scale = torch.tensor([new / side for new, side in zip(resized, size, strict=True)])
        x, found = self.read(i, resized), self.annotations.of(i)
        corner = torch.from_numpy(found.corner.astype(np.float32)).reshape(-1, 4)
        corner = corner * scale.flip(0).repeat(2)
        boxes = torch.cat([corner[:, :2], corner[:, :2] + corner[:, 2:]], 1)
        if varied.hflip and torch.rand(()).item() < varied.hflip:
            x = x.flip(-1)
            boxes = torch.stack([resized[1] - boxes[:, 2], boxes[:, 1], resized[1] - boxes[:, 0], boxes[:, 3]], 1)
        top, left = (
            int(torch.randint(new - room + 1, ())) if new > room else 0
            for new, room in zip(resized, self.size, strict=True)
        )
        x = x[..., top : top + self.size[0], left : left + self.size[1]]
        height, width = x.shape[-2:]
        boxes = boxes - torch.tensor([left, top, left, top])
        boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]))
        canvas = x.new_zeros((*x.shape[:-2], *self.size))
        canvas[..., :height, :width] = x
        seen = (boxes[:, 2:] - boxes[:, :2] >= _SMALLEST).all(1) & ~torch.from_numpy(found.crowd)
        return canvas, self._target(boxes[seen], torch.from_numpy(found.labels)[seen], i, scale)

    def _target(self, boxes: Tensor, labels: Tensor, i: int, scale: Tensor) -> Batch:
        most, count = self.annotations.most, len(labels)
        all_boxes, all_labels = torch.zeros(most, 4), torch.full((most,), _PADDING)
        all_boxes[:count], all_labels[:count] = boxes, labels
        return Batch(boxes=all_boxes, labels=all_labels, image=torch.tensor(i), scale=scale)
