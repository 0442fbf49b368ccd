"""From a name and a folder to a training and a test set: the one call that the rest of the package makes."""

from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from ..errors import UserError, unknown
from .cache import FrameRule
from .catalog import DatasetInfo, lookup
from .event_transforms import PolaritySum, event_transforms
from .events import event_datasets
from .frames import FRAMES_BY, REMAINDERS, RESIZES
from .image_transforms import picture_transforms
from .images import PictureDataset, picture_sources
from .places import describe
from .sequences import sequence_datasets
from .settings import Augment

__all__ = ["Augment", "DataBundle", "build_datasets", "describe"]

LABEL_ORDERS = ("number", "text")


@dataclass(frozen=True)
class DataBundle:
    """Hold what training needs to know of its data.

    Args:
        info: entry of the catalogue.
        train: samples (x, label), augmented.
        test: samples (x, label), not varied.
        num_classes: classes in the data that were found.
        input_shape: of one sample: (C, H, W), (T, C, H, W) for events, or (T, channels) for a sequence.
        classes: names in the order of the labels.
    """

    info: DatasetInfo
    train: Dataset
    test: Dataset
    num_classes: int
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]


def build_datasets(
    name: str,
    data_dir: str | Path,
    *,
    step: int = 4,
    size: tuple[int, int] | None = None,
    in_chans: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    download: bool = False,
    cache_dir: str | Path | None = None,
    use_cache: bool = True,
    train_portion: float = 0.9,
    split: str | None = None,
    split_seed: int = 0,
    frames_by: str = "number",
    remainder: str = "last",
    resize: str = "area",
    polarity_sum: bool = False,
    label_order: str = "number",
    augment: Augment | None = None,
    normalize: bool = True,
) -> DataBundle:
    """Build the training and the test set of one name.

    Args:
        name: in `DATASETS`.
        data_dir: folder in which the set is looked for.
        step: T, frames per recording; pictures have no steps.
        size: (H, W) of a sample; by default the set's own, and always that for a sequence.
        in_chans: channels; grey pictures can be had with 3, everything else only as it is.
        mean: per channel of pictures; by default the set's.
        std: the same.
        download: fetch a missing set, where that is possible.
        cache_dir: of cached frames and simulated recordings; by default `cache` in the data folder.
        use_cache: keep event frames on disk; otherwise recordings are read at each access.
        train_portion: share of training samples where a set has no test split, above 0 and below 1.
        split: named rule there; by default the set's first.
        split_seed: of the split `random`.
        frames_by: `number` or `time`, see `frames`.
        remainder: `last` or `drop`, see `frames`.
        resize: `area` or `bilinear`, see `frames`.
        polarity_sum: append the sum of both polarities to event frames as a third channel.
        label_order: `number` for the data set's own labels, `text` for SpikingJelly's of DVS128 Gesture: class folders
            "0" to "10" sorted as text, so that label 2 is class 10.
        augment: how training samples are varied; by default as the set's entry says.
        normalize: bring pictures to zero mean; otherwise they stay in [0, 1]. Events are raw counts either way.

    Raises:
        UserError: for an unknown name or rule, missing or damaged data, or a value that doesn't fit the set.
    """
    info = lookup(name)
    size = _checked_size(size or info.size)
    augment = (augment or Augment()).filled(info.augment)
    chans = _channels(info, in_chans, polarity_sum)
    order = _class_order(info, label_order)
    if not info.splits:
        _refuse_split(info, split, train_portion)
    if info.kind == "image":
        colours = [_per_channel(mean or info.mean, chans, "--mean"), _per_channel(std or info.std, chans, "--std")]
        return _pictures(info, Path(data_dir), size, colours, augment, download=download, normalize=normalize)
    if mean or std:
        raise UserError(f"data set {name} holds events, raw counts that are not normalised; leave out --mean and --std")
    _check_rules(step=step, frames_by=frames_by, remainder=remainder, resize=resize)
    if info.kind == "sequence":
        sides = sequence_datasets(info, Path(data_dir), step, download=download)
        return DataBundle(info, *sides, info.num_classes, (step, info.size[1]), info.classes)
    rule = FrameRule(sensor=info.size, size=size, steps=step, by=frames_by, remainder=remainder, resize=resize)
    appended = (PolaritySum(),) if polarity_sum else ()
    train, test = event_datasets(
        info,
        Path(data_dir),
        Path(cache_dir or Path(data_dir) / "cache"),
        rule,
        transforms=(*event_transforms(augment), *appended),
        test_transforms=appended,
        use_cache=use_cache,
        split=split,
        train_portion=train_portion,
        split_seed=split_seed,
        class_order=order,
    )
    classes = tuple(info.classes[label] for label in order)
    return DataBundle(info, train, test, info.num_classes, (step, chans, *size), classes)


def _pictures(
    info: DatasetInfo,
    data_dir: Path,
    size: tuple[int, int],
    colours: list[tuple[float, ...]],
    augment: Augment,
    *,
    download: bool,
    normalize: bool,
) -> DataBundle:
    train, test, classes = picture_sources(info, data_dir, download=download)
    mean, std = colours
    varied, plain = picture_transforms(size, augment, mean=mean, std=std, normalize=normalize)
    mode = "L" if len(mean) == 1 else "RGB"
    sets = (PictureDataset(s, mode=mode, transform=t) for s, t in ((train, varied), (test, plain)))
    return DataBundle(info, *sets, len(classes), (len(mean), *size), classes)


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"the size of a sample must be two sides of 1 pixel or more; got {tuple(size)}")
    return int(size[0]), int(size[1])


def _channels(info: DatasetInfo, wanted: int | None, polarity_sum: bool) -> int:
    if polarity_sum and info.kind != "event":
        raise UserError(f"data set {info.name} holds no events, which alone have polarities; leave out --polarity-sum")
    has = info.in_chans + polarity_sum
    grey = info.kind == "image" and has == 1
    if wanted in (None, has):
        return has
    if grey and wanted == 3:
        return 3
    can = "1 channel, or 3 with the grey values repeated" if grey else f"{has} channels"
    raise UserError(f"data set {info.name} gives {can}; got in_chans={wanted}, choose a model with such an input")


def _per_channel(values: tuple[float, ...], chans: int, flag: str) -> tuple[float, ...]:
    values = tuple(values)
    if len(values) == 1:
        values *= chans
    if len(values) != chans:
        raise UserError(f"{flag} needs one number, or one for each of {chans} channels; got {len(values)}")
    if flag == "--std" and min(values) <= 0:
        raise UserError(f"--std must be above 0; got {min(values)}")
    return values


def _class_order(info: DatasetInfo, rule: str) -> list[int]:
    """Return the class behind each label."""
    if rule not in LABEL_ORDERS:
        raise unknown("rule of --label-order", rule, LABEL_ORDERS)
    if rule == "text" and not info.text_order:
        raise UserError(f"data set {info.name} has one order of labels; leave out --label-order")
    return sorted(range(info.num_classes), key=str if rule == "text" else int)


def _check_rules(*, step: int, frames_by: str, remainder: str, resize: str) -> None:
    if step < 1:
        raise UserError(f"--step must be 1 or more; got {step}")
    for kind, value, choices in (
        ("rule of --frames-by", frames_by, FRAMES_BY),
        ("rule of --remainder", remainder, REMAINDERS),
        ("resizing of events", resize, RESIZES),
    ):
        if value not in choices:
            raise unknown(kind, value, choices)


def _refuse_split(info: DatasetInfo, split: str | None, train_portion: float) -> None:
    if split not in (None, "text") or train_portion != 0.9:
        raise UserError(f"data set {info.name} has its own test split; leave out --split and --train-portion")
