"""Training pairs: a template and a search region from two frames of a sequence, and what is to be learnt of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import UserError
from ...runtime.batch import Batch
from .crops import centre_of, corners_in_crop, crop, mean_colour, side_with_context
from .files import Video
from .targets import Locations

__all__ = ["PairRules", "Pairs", "Videos"]

_TRIES = 50
_AREAS, _ASPECT = (0.001, 0.6), 10.0


@dataclass(frozen=True)
class PairRules:
    """How pairs are drawn and varied.

    Args:
        template_size, search_size: sides of the crops.
        locations: of the head's map.
        context: see `crops.side_with_context`.
        most_apart: frames between template and search region, at most.
        negative: share of pairs from two sequences.
        scale: the search region is up to so many times larger or smaller.
        shift: the object is up to so many halves of the region from its middle.
    """

    template_size: int
    search_size: int
    locations: Locations
    context: float
    most_apart: int
    negative: float
    scale: float
    shift: float


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


def _below(count: int) -> int:
    return int(torch.randint(count, ()))


class Pairs(Dataset):
    """Pairs drawn at random, or from evenly spaced frames.

    Args:
        sequences: to draw from.
        rules: how.
        count: pairs of an epoch.
        varied: draw and augment; otherwise pair a sequence's first frame with a later one, in its middle.

    Raises:
        UserError: if no frame's box is fit for training.
    """

    def __init__(self, sequences: Sequence[Video], rules: PairRules, count: int, *, varied: bool):
        self.sequences, self.rules, self.count, self.varied = list(sequences), rules, count, varied
        self.usable = [_usable(sequence) for sequence in self.sequences]
        self.places = [place for place, frames in enumerate(self.usable) if len(frames)]
        if not self.places:
            raise UserError(
                f"{self.sequences[0].folder.parent}: no box covers {_AREAS[0]} to {_AREAS[1]} of the picture "
                f"with sides of at most {_ASPECT:g} to 1, so there is nothing to learn from"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Batch, Batch]:
        (first, template), (second, search), negative = self._drawn() if self.varied else self._spaced(index)
        return self._pair(self.sequences[first], template, self.sequences[second], search, negative)

    def _drawn(self) -> tuple[tuple[int, int], tuple[int, int], bool]:
        first = self.places[_below(len(self.places))]
        frames = self.usable[first]
        template = frames[_below(len(frames))]
        others = [place for place in self.places if place != first]
        if others and float(torch.rand(())) < self.rules.negative:
            second = others[_below(len(others))]
            return (first, template), (second, self.usable[second][_below(len(self.usable[second]))]), True
        near = [frame for frame in frames if abs(frame - template) <= self.rules.most_apart]
        return (first, template), (first, near[_below(len(near))]), False

    def _spaced(self, index: int) -> tuple[tuple[int, int], tuple[int, int], bool]:
        place = self.places[index % len(self.places)]
        frames = self.usable[place]
        return (place, frames[0]), (place, frames[(index // len(self.places) + 1) % len(frames)]), False

    def _pair(
        self, first: Video, template: int, second: Video, search: int, negative: bool
    ) -> tuple[Batch, Batch]:
        rules = self.rules
        frame, box = first.frame(template), first.boxes[template]
        side = side_with_context(*box[2:].tolist(), rules.context)
        z = crop(frame, tuple(centre_of(box).tolist()), side, rules.template_size, mean_colour(frame[0, 0]))
        frame = frame if (first, template) == (second, search) else second.frame(search)
        box = second.boxes[search]
        centre, side = self._region(box)
        x = crop(frame, centre, side, rules.search_size, mean_colour(frame[0, 0]))
        corners = corners_in_crop(box, centre, side, rules.search_size)
        return Batch(template=z, search=x), rules.locations.targets(corners, negative=negative)

    def _region(self, box: Tensor) -> tuple[tuple[float, float], float]:
        """Return centre and side of a search region: varied so that the box stays in it, if a few draws find one."""
        rules, (x, y) = self.rules, centre_of(box).tolist()
        ratio = rules.search_size / rules.template_size
        whole = side_with_context(*box[2:].tolist(), rules.context) * ratio
        for _ in range(_TRIES if self.varied else 0):
            side = whole * _uniform(1 / rules.scale, rules.scale)
            centre = tuple(place + _uniform(-rules.shift, rules.shift) * side / 2 for place in (x, y))
            corners = corners_in_crop(box, centre, side, rules.search_size)
            if corners.min() >= 0 and corners.max() <= rules.search_size - 1:
                return centre, side
        return (x, y), whole


def _usable(sequence: Video) -> list[int]:
    """Return the frames whose box is neither tiny nor huge nor a line."""
    height, width = sequence.size
    found = []
    for number, (_, _, w, h) in enumerate(sequence.boxes.tolist()):
        fits = min(w, h) > 0 and _AREAS[0] < w * h / (height * width) < _AREAS[1]
        if fits and abs(math.log(w / h)) < math.log(_ASPECT):
            found.append(number)
    return found


class Videos(Dataset):
    """Whole sequences, to run the tracker on.

    Args:
        sequences: one sample each.
    """

    def __init__(self, sequences: Sequence[Video]):
        self.sequences = list(sequences)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> tuple[Video, int]:
        return self.sequences[index], index
