"""Rules that check themselves, without torch or NumPy: how a set is split, normalised, read and varied in training.

Each is a frozen object with a few fields. A field that is an option of the command line takes default, choices and
limits from there; `build_datasets` takes the same word as a keyword, and a message names what the user wrote. How
recordings become frames is one more, `events.frames.FrameRule`.
"""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import UserError, unknown
from ..recipe import ENTRIES, Options
from ..recipe.fields import FACTS
from ..recipe.options import broken_rules

__all__ = [
    "CHARACTERS", "EVENTS", "MOST_PIXELS", "NOTHING", "PHOTOS", "SEEDED", "SOURCES", "STREAMED", "Access", "Augment",
    "Colours", "Rule", "Split", "choices", "option",
    "source_problems",
]  # fmt: skip

MOST_PIXELS = ENTRIES["max_pixels"].default
"""Of a photo by default: where Pillow, too, refuses one."""

SEEDED = ("random", "stratified")
"""Splits that `--split-seed` chooses among."""

SOURCES = {"wds": "webdataset", "hfids": "datasets", "tfds": "tensorflow_datasets", "hfds": "datasets", "torch": ""}
"""Prefixes of timm's dataset factory, with the package that each needs besides torchvision."""
STREAMED = ("wds", "hfids", "tfds")
"""Those of them whose samples come one after the other."""

_FLIPPED = frozenset(("resformer", "roll_flip"))
"""Published augmentations of events that a flip of every second sample belongs to."""


def source_problems(options: Options) -> Iterator[str]:
    """Yield what is wrong with `--dataset-source`, and options that don't fit it."""
    data, (prefix, _, name) = options.data, options.data.dataset_source.lower().partition("/")
    if not data.dataset_source:
        return
    if data.dataset != "imnet":
        yield f"--dataset-source reads photos under --dataset imnet, not {data.dataset}"
    if prefix not in SOURCES or not name:
        yield f"--dataset-source takes {', '.join(f'{one}/NAME' for one in SOURCES)}; got {data.dataset_source!r}"
    streamed, only = prefix in STREAMED, ", ".join(STREAMED)
    yield from broken_rules(options, (
        (prefix == "torch", ("class_map", "input_key", "target_key"),
         "sets of torchvision have their own labels; leave it out"),
        (not streamed, ("train_num_samples", "val_num_samples"), f"for streams ({only}) only; leave it out"),
        (streamed, ("aug_repeats", "use_multi_epochs_loader"), "a stream is read once in an epoch; leave it out"),
    ))  # fmt: skip


def choices(name: str) -> tuple[str, ...]:
    """Return the values of an option that takes one of a few names."""
    return ENTRIES[name].metadata["choices"]


def option(name: str, keyword: str = "", *, default: Any = MISSING, **other: Any) -> Any:
    """Describe a field of a `Rule` by the option that it stands for, if there is one of that name.

    Args:
        name: of the option.
        keyword: of `build_datasets`, where it isn't that name.
        default: its value, where it isn't the option's.
        other: choices and limits that aren't the option's, and for messages the `kind` of the choices or the `unit` of
            a number.
    """
    entry = ENTRIES.get(name)
    about = {"option": keyword or name, "flag": "--" + name.replace("_", "-"), "kind": "", "unit": ""}
    facts = {**(entry.metadata if entry else FACTS), **about, **other}
    return field(default=entry.default if default is MISSING else default, metadata=facts)


_RESIZED = (*choices("interpolation"), "hamming", "box")  # timm's interpolations


class Rule:
    """Base of frozen dataclasses whose fields are checked when they are made."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value, about = getattr(self, one.name), one.metadata
            if value is None or not about:
                continue
            flag, choices, low, above = (about[key] for key in ("flag", "choices", "low", "above"))
            if choices and value not in choices:
                must = f"{flag} must be one of {', '.join(choices)}; got {value!r}"
                raise unknown(about["kind"], value, choices) if about["kind"] else UserError(must)
            if low is not None and value < low:
                raise UserError(f"{flag} must be {low:g} or more; got {value}")
            if above is not None and not value > above:
                raise UserError(f"{flag} must be above {above:g}{about['unit']}; got {value}")

    def with_options(self, given: dict[str, Any]) -> Any:
        """Return the rule with the values that are given under the names of its options, and take them out."""
        names = {one.metadata["option"]: one.name for one in fields(self) if one.metadata}
        return replace(self, **{names[name]: given.pop(name) for name in names.keys() & given.keys()})


@dataclass(frozen=True, kw_only=True)
class Split(Rule):
    """Say how a set without an official test split is split.

    Args:
        rule: a name in `events.splits.SPLITS` that the set offers; None is its first. Or `valid`, for the validation
            samples of a set that has them in the place of its test samples.
        portion: share of the training samples, above 0 and below 1.
        seed: of the rules in `SEEDED`.
    """

    rule: str | None = option("split", choices=())
    portion: float = option("train_portion", above=None)
    seed: int = option("split_seed")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.portion < 1:
            raise UserError(f"--train-portion must be above 0 and below 1; got {self.portion}")
        if self.rule == "tebn" and self.portion != Split.portion:
            raise UserError("split 'tebn' is fixed at files 0 to 99 for the test; leave out --train-portion")


@dataclass(frozen=True, kw_only=True)
class Colours(Rule):
    """Say how pictures are brought to zero mean and unit deviation.

    Args:
        mean: per channel, of training pictures in [0, 1]; None is the set's.
        std: the same for the standard deviation.
        origin: of a set's own, where they come from, and who uses others.
        normalize: subtract and divide; otherwise values stay in [0, 1].
    """

    mean: tuple[float, ...] | None = option("mean")
    std: tuple[float, ...] | None = option("std", above=None)
    origin: str = ""
    normalize: bool = option("normalize", default=True)

    def per_channel(self, own: "Colours", chans: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation of each of `chans` channels, where nothing is said those of the set."""
        found = []
        for flag, values in (("--mean", self.mean or own.mean), ("--std", self.std or own.std)):
            found.append(tuple(values) * (chans if len(values) == 1 else 1))
            if len(found[-1]) != chans:
                raise UserError(f"{flag} needs one number, or one for each of {chans} channels; got {len(values)}")
        mean, std = found
        if min(std) <= 0:
            raise UserError(f"--std must be above 0; got {min(std)}")
        return mean, std


@dataclass(frozen=True, kw_only=True)
class Access(Rule):
    """Say how files are read and kept.

    Args:
        download: fetch a missing set, where that is possible.
        cache_dir: folder of cached frames and simulated recordings; None is `cache` in the data folder.
        use_cache: keep event frames on disk; otherwise recordings are read at each access.
        workers: processes that read recordings when the cache is built.
        skip_bad: leave recordings out that can't be read, see `DataBundle.left_out`.
        max_pixels: of a photo; a larger one is refused.
        needs_train: whether photos for training have to be there; otherwise the training set may be empty.
    """

    download: bool = option("download")
    cache_dir: str | Path | None = option("cache_dir")  # noqa: RUF009
    use_cache: bool = option("use_cache", default=True)
    workers: int = option("workers", default=0)
    skip_bad: bool = option("skip_bad")
    max_pixels: int = option("max_pixels")
    needs_train: bool = option("needs_train", default=True)


@dataclass(frozen=True, kw_only=True)
class Augment(Rule):
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
    remode: str | None = option("remode")
    recount: int | None = None
    resplit: bool = False
    train_interpolation: str | None = option("train_interpolation", choices=("random", *_RESIZED))
    interpolation: str | None = option("interpolation", choices=_RESIZED)
    crop_pct: float | None = None
    event_augment: str | tuple[str, ...] | None = None
    rand_aug: bool = False
    randaug_n: int = 3
    randaug_m: int = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resplit:
            raise UserError("--resplit needs several augmented copies of each picture, which this loader doesn't make")

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


CHARACTERS = Augment(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0, vflip=0.0, color_jitter=0.0, aa="", reprob=0.0, remode="const",
    recount=1, train_interpolation="bicubic", interpolation="bicubic", crop_pct=1.0, event_augment="none",
)  # fmt: skip
"""Of small grey pictures: a flip makes another character, colour changes mean nothing."""
PHOTOS = Augment(
    scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, vflip=0.0, color_jitter=0.4, aa="rand-m9-mstd0.5-inc1",
    reprob=0.25, remode="pixel", recount=1, train_interpolation="random", interpolation="bicubic", crop_pct=0.875,
    event_augment="none",
)  # fmt: skip
"""The defaults of BrainCog's command line, which are timm's."""
EVENTS = Augment(hflip=0.0, vflip=0.0, event_augment="none")
"""Of events: nothing is varied."""
NOTHING = Augment()
"""Of sequences."""
