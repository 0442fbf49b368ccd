"""The tracker's loop: a search region around the last box, a window over the scores, and the rule for the new size.

Zhang et al., CVPR 2022, as SiamFC++ (Xu et al., AAAI 2020).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .crops import crop, mean_colour, side_with_context

__all__ = ["Choice", "Tracker", "choose", "cosine_window"]


def cosine_window(count: int) -> Tensor:
    """Return the outer product of two Hann windows over the locations `(count * count,)`."""
    row = np.hanning(count)
    return torch.from_numpy(np.outer(row, row)).flatten()


@dataclass(frozen=True)
class Choice:
    """The box that is chosen in a frame.

    Args:
        index: of its location.
        score: with penalty and window.
        penalty: for a change of size and aspect.
        centre: x, y, in pixels of the picture.
        size: w, h.
    """

    index: int
    score: float
    penalty: float
    centre: tuple[float, float]
    size: tuple[float, float]


def choose(
    boxes: Tensor, scores: Tensor, centre: tuple[float, float], size: tuple[float, float], scale: float, *,
    window: Tensor, crop_size: int, penalty: float, influence: float, rate: float,
) -> Choice:  # fmt: skip
    """Choose a box, and move the last one towards it.

    Args:
        boxes: corners `(N, 4)` in pixels of the crop.
        scores: `(N,)`.
        centre, size: of the last box.
        scale: pixels of the crop for one of the picture.
        window: `cosine_window`.
        crop_size: side of the crop.
        penalty: strength of the penalty for a change of size and aspect.
        influence: share of the window in the score.
        rate: of the change of the size, at a score of 1.
    """
    boxes, scores = boxes.double().cpu(), scores.double().cpu()
    found = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2] + 1], dim=1)
    widths, heights = found[:, 2], found[:, 3]
    last = [length * scale for length in size]
    grown = ((widths * 1.5 + heights * 0.5) * (widths * 0.5 + heights * 1.5)).sqrt() / side_with_context(*last)
    turned = (size[0] / size[1]) / (widths / heights)
    change = torch.maximum(grown, 1 / grown) * torch.maximum(turned, 1 / turned)
    penalties = torch.exp(-(change - 1) * penalty)
    scored = penalties * scores
    windowed = scored * (1 - influence) + window * influence
    best = int(windowed.argmax())
    moved = [float(found[best, axis]) / scale + centre[axis] - (crop_size // 2) / scale for axis in (0, 1)]
    share = float(scored[best]) * rate
    sized = [size[axis] * (1 - share) + float(found[best, 2 + axis]) / scale * share for axis in (0, 1)]
    return Choice(best, float(windowed[best]), float(penalties[best]), tuple(moved), tuple(sized))


class Tracker:
    """Follow one object through a sequence.

    Args:
        network: in evaluation mode, with `embed_template`, `track` and `reset`, as `models.stnet.STNet`.
        penalty, influence, rate: see `choose`.
        context: see `crops.side_with_context`.
        smallest: least width and height of a box in pixels.
    """

    def __init__(
        self, network: Any, *, penalty: float, influence: float, rate: float, context: float, smallest: float
    ):
        self.network, self.context, self.smallest = network, context, smallest
        self.rules = {"penalty": penalty, "influence": influence, "rate": rate, "crop_size": network.x_size}
        self.rules["window"] = cosine_window(network.score_size)
        self.device = next(network.parameters()).device

    def _crop(self, frame: Tensor, side: float, size: int) -> Tensor:
        # the last positive sub-frame gives the colour of what lies around the picture
        return crop(frame, self.centre, side, size, mean_colour(frame[0, -1]))[None]

    def _restricted(self, centre: tuple[float, float], size: tuple[float, float], frame: Tensor) -> None:
        bound = (frame.shape[-1], frame.shape[-2])
        self.centre = tuple(min(max(one, 0.0), float(most)) for one, most in zip(centre, bound, strict=True))
        self.size = tuple(
            min(max(one, self.smallest), float(most)) for one, most in zip(size, bound, strict=True)
        )

    def begin(self, frame: Tensor, box: Tensor) -> None:
        """Take the object in a box.

        Args:
            frame: sub-frames `(2, 5, 3, H, W)`, uint8: polarity, time, colour.
            box: x, y, w, h `(4,)`.
        """
        x, y, width, height = (float(one) for one in box)
        self.centre, self.size = (x + (width - 1) / 2, y + (height - 1) / 2), (width, height)
        self.network.reset()
        side = round(side_with_context(width, height, self.context))
        self.kernels = self.network.embed_template(self._crop(frame.to(self.device), side, self.network.z_size))

    def step(self, frame: Tensor) -> Tensor:
        """Return the object's box x, y, w, h `(4,)` in the next frame."""
        frame = frame.to(self.device)
        scale = self.network.z_size / side_with_context(*self.size, self.context)
        found = self.network.track(self._crop(frame, round(self.network.x_size / scale), self.network.x_size),
                                   self.kernels)  # fmt: skip
        scores = (found.cls.double().sigmoid() * found.ctr.double().sigmoid())[0, :, 0]
        choice = choose(found.boxes[0], scores, self.centre, self.size, scale, **self.rules)
        self._restricted(choice.centre, choice.size, frame)
        (x, y), (width, height) = self.centre, self.size
        return torch.tensor([x - (width - 1) / 2, y - (height - 1) / 2, width, height], dtype=torch.float64)

    def run(self, sequence: Any) -> Iterator[Tensor]:
        """Yield the boxes of a sequence: the given one of the first frame, then those that are found."""
        self.begin(sequence.frame(0), sequence.boxes[0])
        yield sequence.boxes[0]
        try:
            for number in range(1, len(sequence.boxes)):
                yield self.step(sequence.frame(number))
        finally:
            self.network.reset()
