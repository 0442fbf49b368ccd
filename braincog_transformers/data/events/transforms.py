"""Augmentation of event samples (T, P, H, W): one draw for all frames of a sample, input never changed.

Every transform is a frozen dataclass whose call takes and returns a float tensor. Randomness comes from torch's default
generator, which the loader seeds for each sample.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import RandomErasing
from torchvision.transforms import functional as vision

from ...errors import UserError, unknown
from ..settings import Augment

__all__ = ["PolaritySum", "event_transforms"]

_LEVELS = 31
_STRONGEST = 30


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _below(count: int) -> int:
    return int(torch.randint(count, ()).item())


def _level(limit: float) -> float:
    """Draw one of 31 equally spaced values from -limit to limit."""
    return limit * (2 * _below(_LEVELS) / (_LEVELS - 1) - 1)


def _affine(frames: Tensor, *, shift: tuple[int, int] = (0, 0), shear: float = 0.0) -> Tensor:
    """Shift and shear all frames, by the nearest pixel and with zeros outside; the shear in degrees."""
    return vision.affine(frames, angle=0.0, translate=list(shift), scale=1.0, shear=[shear, 0.0])


def _rolled(frames: Tensor, *limits: int) -> Tensor:
    """Shift by up to a number of pixels in each axis; what leaves on one side comes in on the other."""
    return frames.roll([_below(2 * limit + 1) - limit for limit in limits], (-2, -1))


def _emptied(frames: Tensor, rows: slice, columns: slice) -> Tensor:
    emptied = frames.clone()
    emptied[..., rows, columns] = 0
    return emptied


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirror left and right with a probability."""

    probability: float

    def __call__(self, frames: Tensor) -> Tensor:
        return frames.flip(-1) if _uniform(0, 1) < self.probability else frames


@dataclass(frozen=True)
class VerticalFlip:
    """Mirror top and bottom with a probability."""

    probability: float

    def __call__(self, frames: Tensor) -> Tensor:
        return frames.flip(-2) if _uniform(0, 1) < self.probability else frames


@dataclass(frozen=True)
class PaddedCrop:
    """Shift by up to a twelfth of the side in each axis and fill with zeros, as BrainCog's loaders do."""

    def __call__(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        pad = max(height, width) // 12
        top, left = _below(2 * pad + 1), _below(2 * pad + 1)
        padded = torch.nn.functional.pad(frames, (pad, pad, pad, pad))
        return padded[..., top : top + height, left : left + width].contiguous()


@dataclass(frozen=True)
class Roll:
    """Shift in each axis; what leaves on one side comes in on the other.

    Args:
        pixels: largest shift; 5 in OST and TET.
    """

    pixels: int

    def __call__(self, frames: Tensor) -> Tensor:
        return _rolled(frames, self.pixels, self.pixels)


@dataclass(frozen=True)
class Rotate:
    """Rotate about the centre.

    Args:
        degrees: largest angle to either side; 15 in BrainCog and STEP.
    """

    degrees: float

    def __call__(self, frames: Tensor) -> Tensor:
        return vision.rotate(frames, _uniform(-self.degrees, self.degrees))


@dataclass(frozen=True)
class Shear:
    """Shear along the rows, about the centre.

    Args:
        degrees: largest angle to either side.
    """

    degrees: float

    def __call__(self, frames: Tensor) -> Tensor:
        return _affine(frames, shear=_uniform(-self.degrees, self.degrees))


@dataclass(frozen=True)
class SNNAugmentWide:
    """Apply one of six operations, drawn evenly: the augmentation of the Spikformer family's event recipes.

    Identity; shear in x up to 0.3 radians; shift in x or in y up to 5 pixels; rotation up to 30 degrees (each at one of
    31 strengths); erasing a square of 0.1 to 11 % of the area.

    Args:
        erase: whether the sixth is drawn; Spike-driven Transformer's copy has five.
    """

    erase: bool = True

    def __call__(self, frames: Tensor) -> Tensor:
        choice = _below(6 if self.erase else 5)
        if choice == 1:
            return _affine(frames, shear=math.degrees(_level(0.3)))
        if choice == 2:
            return _affine(frames, shift=(int(_level(5)), 0))
        if choice == 3:
            return _affine(frames, shift=(0, int(_level(5))))
        if choice == 4:
            return vision.rotate(frames, _level(30))
        if choice == 5:
            return RandomErasing(p=1.0, scale=(0.001, 0.11), ratio=(1.0, 1.0), value=0)(frames)
        return frames


@dataclass(frozen=True)
class Cutout:
    """Set to 0 a square about a random pixel, clipped at the border.

    Args:
        side: in pixels.
    """

    side: int

    def __call__(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        top, left = _below(height) - self.side // 2, _below(width) - self.side // 2
        return _emptied(frames, slice(max(top, 0), top + self.side), slice(max(left, 0), left + self.side))


@dataclass(frozen=True)
class ResformerAugment:
    """Apply one of three operations, drawn evenly: SpikingResformer's augmentation of event frames, after its flip.

    Roll by up to a third of the side in each axis; rotation up to 30 degrees; erasing a square of a third of the
    height.
    """

    def __call__(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        choice = _below(3)
        if choice == 0:
            return _rolled(frames, height // 3, width // 3)
        if choice == 1:
            return vision.rotate(frames, _uniform(-30, 30))
        return Cutout(height // 3)(frames)


@dataclass(frozen=True)
class EventDrop:
    """Drop events in one of several ways, drawn evenly: EventDrop (Gu et al., IJCAI 2021), on frames.

    The paper drops raw events; a cache holds their counts, so each event that was counted is dropped from its cell:

    - `time`: 10 to 90 % of the recording from a random start, clipped at its end. A frame that is covered in part
      loses that share of its events at random. Frames of equal event numbers are not cut anew from what is left, and
      the share is then one of events.
    - `area`: 5 to 95 % of either side, about a random centre, clipped at the border (the authors' script stops at
      25 %, and empties the rows and columns of the area from end to end).
    - `random`: 10 to 90 % of all events, each with that probability; the paper's number is exact.
    - `nothing`.

    A sample that would lose every event keeps them all.

    Args:
        ways: those that are drawn from.
    """

    ways: tuple[str, ...] = ("nothing", "time", "area", "random")

    def __call__(self, frames: Tensor) -> Tensor:
        way = self.ways[_below(len(self.ways))]
        if way == "nothing":
            return frames
        dropped = _DROPS[way](frames)
        return dropped if dropped.any() else frames


def _thin(frames: Tensor, kept: float) -> Tensor:
    """Keep each event with this probability; a fraction of one counts as one."""
    thinned = frames.flatten().clone()
    present = thinned.nonzero().squeeze(1)
    values = thinned[present]
    counts = values.abs()  # a voxel grid has signs, and like resized frames fractions
    whole = counts.floor()
    left = torch.binomial(whole, torch.full_like(whole, kept))
    left += (counts - whole) * (torch.rand(len(counts)) < kept)
    thinned[present] = left.copysign(values)
    return thinned.view_as(frames)


def _drop_time(frames: Tensor) -> Tensor:
    steps, start, share = len(frames), _uniform(0, 1), (1 + _below(9)) / 10
    dropped = frames.clone()
    for step in range(steps):
        covered = min(step + 1, steps * (start + share)) - max(step, steps * start)
        if covered > 0:
            dropped[step] = _thin(frames[step], 1 - covered) if covered < 1 else 0
    return dropped


def _drop_area(frames: Tensor) -> Tensor:
    share = (1 + _below(19)) / 20
    return _cut_box(frames, *(round(share * side) for side in frames.shape[-2:]))


def _drop_random(frames: Tensor) -> Tensor:
    return _thin(frames, 1 - (1 + _below(9)) / 10)


_DROPS = {"time": _drop_time, "area": _drop_area, "random": _drop_random}


@dataclass(frozen=True)
class PolaritySum:
    """Append the sum of the two polarities as a third channel, as SpikingResformer's networks take events."""

    def __call__(self, frames: Tensor) -> Tensor:
        return torch.cat([frames, frames.sum(1, keepdim=True)], 1)


@dataclass(frozen=True)
class EventRandAugment:
    """Apply `count` operations of BrainCog's event RandAugment, drawn with replacement.

    Args:
        count: operations per sample.
        strength: 0 to 30; each operation's limit is this share of its own largest one.
    """

    count: int
    strength: float

    def __call__(self, frames: Tensor) -> Tensor:
        share = self.strength / _STRONGEST
        for _ in range(self.count):
            operation, largest = _OPERATIONS[_below(len(_OPERATIONS))]
            frames = operation(frames, share * largest)
        return frames


def _cut_box(frames: Tensor, rows: int, columns: int) -> Tensor:
    """Set to 0 a box of this size about a random point, clipped at the border."""
    height, width = frames.shape[-2:]
    left = round(max(0.0, _uniform(0, width) - columns / 2))
    top = round(max(0.0, _uniform(0, height) - rows / 2))
    return _emptied(frames, slice(top, top + rows), slice(left, left + columns))


def _cut_square(frames: Tensor, side: float) -> Tensor:
    """Set to 0 a square whose side is this share of the width."""
    pixels = round(side * frames.shape[-1])
    return _cut_box(frames, pixels, pixels)


def _cut_time(frames: Tensor, limit: float) -> Tensor:
    """Set to 0 a stretch of up to this share of the frames."""
    steps = round(_uniform(0, limit) * len(frames))
    start = _below(len(frames))
    cut = frames.clone()
    cut[start : start + steps] = 0
    return cut


def _blur(frames: Tensor, limit: float) -> Tensor:
    """Blur with a Gaussian of 5 x 5 pixels, of 0.1 pixels up to this; weaker than 0.1 is nothing at all."""
    if limit < 0.1:
        return frames
    kernel = torch.exp(-((torch.arange(-2.0, 3.0) / _uniform(0.1, limit)) ** 2) / 2)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    kernel[kernel < 1e-12] = 0  # products with numbers this small fall below float32's normal range, and are slow
    # As the channels of one picture, which is many times faster than a batch of two channels.
    picture = torch.nn.functional.pad(frames.flatten(0, 1).unsqueeze(0), (2, 2, 2, 2), mode="reflect")
    weight = kernel.expand(picture.shape[1], 1, 5, 5)
    return torch.nn.functional.conv2d(picture, weight, groups=picture.shape[1]).view_as(frames)


def _add_noise(frames: Tensor, limit: float) -> Tensor:
    """Add one event to up to this share of the cells."""
    return frames + (torch.rand(frames.shape) < _uniform(0, limit)).to(frames.dtype)


_OPERATIONS = ((_cut_square, 0.5), (_cut_time, 0.5), (_blur, 1.0), (_add_noise, 0.3))
_NAMED = {
    "none": None,
    "snn_wide": SNNAugmentWide(),
    "snn_wide_sdt": SNNAugmentWide(erase=False),
    "crop": PaddedCrop(),
    "resformer": ResformerAugment(),
    "roll": Roll(5),
    "roll_flip": Roll(5),  # the flip comes with `Augment.filled`, so that --hflip can change it
    "rotate": Rotate(15),
    "shear": Shear(15),
    "cutout": Cutout(16),
    "event_drop": EventDrop(),
    # On its own, each way takes every second sample, as in the authors' script.
    "drop_time": EventDrop(("nothing", "time")),
    "drop_area": EventDrop(("nothing", "area")),
    "drop_random": EventDrop(("nothing", "random")),
}


def event_transforms(augment: Augment) -> tuple:
    """Return the transforms of training samples in their order: flips, those of `event_augment`, RandAugment.

    Args:
        augment: with no field left None that concerns events.

    Raises:
        UserError: for an unknown name in `event_augment`, or `none` beside another.
    """
    if augment.no_aug:
        return ()
    names = augment.event_names
    if strange := [name for name in names if name not in _NAMED]:
        raise unknown("event augmentation", strange[0], _NAMED)
    if "none" in names and len(names) > 1:
        raise UserError(f"--event-augment none excludes {', '.join(names)}; leave none out")
    flips = [(HorizontalFlip, augment.hflip), (VerticalFlip, augment.vflip)]
    steps = [flip(probability) for flip, probability in flips if probability]
    steps += [_NAMED[name] for name in names if name != "none"]
    steps += [EventRandAugment(augment.randaug_n, augment.randaug_m)] if augment.rand_aug else []
    return tuple(steps)
