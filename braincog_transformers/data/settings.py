"""What the catalogue and the options share, without torch: how training samples are varied, and names of rules."""

from dataclasses import dataclass, fields, replace
from typing import Literal

__all__ = ["PREFIXES", "SEEDED", "STREAMED", "Augment"]

SEEDED = ("random", "stratified")
"""Splits that `--split-seed` chooses among."""

STREAMED = ("wds", "hfids", "tfds")
"""Sources of timm's dataset factory whose samples come one after the other."""
PREFIXES = (*STREAMED, "hfds", "torch")

_FLIPPED = frozenset(("resformer", "roll_flip"))
"""Published augmentations of events that a flip of every second sample belongs to."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Say how training samples are varied; a field that is None takes the data set's own default.

    Args:
        no_aug: nothing is varied, whatever the other fields say.
        scale: range of the cropped area as a share of the picture.
        ratio: range of the crop's width over height.
        hflip: probability of a left-right flip (all frames of an event sample together).
        vflip: probability of an upside-down flip.
        color_jitter: strength of brightness, contrast and saturation changes; unused where `aa` is set, as in timm.
        aa: policy of timm (`rand-m9-mstd0.5-inc1`, `original`, ...), `spikformer-m9-n1-mstd0.4-inc1` for RandAugment
            with Spikformer's five operations, or an empty text for none.
        reprob: probability of erasing a rectangle.
        remode: what the rectangle is filled with.
        recount: most rectangles per picture.
        resplit: erase only in the second of several augmented copies; refused, since there are no copies.
        train_interpolation: how training pictures are resized: bilinear, bicubic, lanczos, nearest or random.
        interpolation: how test pictures are resized.
        crop_pct: share of a test picture's side that the central crop keeps, above 0 and up to 1.
        event_augment: one name, or several that are applied in this order: `snn_wide` is the Spikformer family's
            SNNAugmentWide, `snn_wide_sdt` Spike-driven Transformer's copy without erasing and `cutout` its square,
            `crop` BrainCog's padded random crop, `rotate` and `shear` turn and shear by up to 15 degrees, `roll`
            shifts by up to 5 pixels, `roll_flip` is that of OST and TET and `resformer` SpikingResformer's rule, whose
            flip of half of the samples `hflip` can change, `event_drop` is EventDrop, `drop_time`, `drop_area` and
            `drop_random` its parts.
        rand_aug: apply BrainCog's RandAugment to event frames.
        randaug_n: operations that are drawn per sample.
        randaug_m: their strength, 0 to 30.
    """

    no_aug: bool = False
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] | None = None
    hflip: float | None = None
    vflip: float | None = None
    color_jitter: float | None = None
    aa: str | None = None
    reprob: float | None = None
    remode: Literal["const", "pixel", "rand"] | None = None
    recount: int | None = None
    resplit: bool = False
    train_interpolation: str | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    event_augment: str | tuple[str, ...] | None = None
    rand_aug: bool = False
    randaug_n: int = 3
    randaug_m: int = 15

    @property
    def event_names(self) -> tuple[str, ...]:
        """Return `event_augment` as names in their order."""
        names = self.event_augment
        return (names,) if isinstance(names, str) else tuple(names or ())

    def filled(self, defaults: "Augment") -> "Augment":
        """Return these options with `defaults` in the place of every None."""
        if _FLIPPED.intersection(self.event_names):
            defaults = replace(defaults, hflip=0.5)
        empty = [field.name for field in fields(self) if getattr(self, field.name) is None]
        return replace(self, **{name: getattr(defaults, name) for name in empty})
