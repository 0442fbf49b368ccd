"""From a name and a folder to a training and a test set: the one call that the rest of the package makes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ..errors import UserError, unknown
from .events.dataset import event_datasets
from .events.frames import FrameRule, event_channels
from .events.transforms import PolaritySum, event_transforms
from .loading.folders import describe
from .pictures.sources import PictureStream, Source, SourcePictures
from .pictures.stored import FilePictures, PictureDataset
from .pictures.transforms import Transform, picture_transforms
from .registry import DatasetInfo, EventSet, PictureSet, lookup
from .settings import Access, Augment, Colours, Split, choices

__all__ = ["Access", "Augment", "Colours", "DataBundle", "FrameRule", "Source", "Split", "build_datasets", "describe"]


@dataclass(frozen=True)
class DataBundle:
    """Hold what training needs to know of its data.

    Args:
        info: entry of the table.
        train: samples (x, label), augmented.
        test: samples (x, label), not varied.
        num_classes: classes in the data that were found.
        input_shape: of one sample: (C, H, W), (T, C, H, W) for events, or (T, channels) for a sequence.
        classes: names in the order of the labels.
        left_out: what was wrong with each recording that `skip_bad` left out.
        watched: samples whose inputs a network takes, for the analysis, where those of `test` are something else.
    """

    info: DatasetInfo
    train: Dataset
    test: Dataset
    num_classes: int
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    watched: Dataset | None = None


def build_datasets(
    name: str,
    data_dir: str | Path,
    *,
    size: tuple[int, int] | None = None,
    in_chans: int | None = None,
    frames: FrameRule | str | None = None,
    split: Split | str | None = None,
    colours: Colours | None = None,
    augment: Augment | None = None,
    access: Access | None = None,
    source: Source | None = None,
    polarity_sum: bool = False,
    label_order: str = "number",
    num_classes: int | None = None,
    **options: Any,
) -> DataBundle:
    """Build the training and the test set of one name.

    Args:
        name: in `DATASETS`.
        data_dir: folder in which the set is looked for.
        size: (H, W) of a sample; by default the set's own, and always that for a sequence.
        in_chans: channels; grey pictures can be had with 3, everything else only as it is.
        frames: how a recording becomes frames, or the kind of frames alone. Of a sequence, the number of steps;
            pictures have no steps, and a set with a `length` has that many.
        split: how a set without an official test split is split, or the name of the rule alone.
        colours: how pictures are normalised. Events are raw counts either way.
        augment: how training samples are varied; by default as the set's entry says.
        access: how files are read and kept.
        source: read photos from here, through timm's dataset factory, and not from folders.
        polarity_sum: append the sum of both polarities to event frames as a third channel.
        label_order: `number` for the data set's own labels, `text` for SpikingJelly's of DVS128 Gesture: class folders
            "0" to "10" sorted as text, so that label 2 is class 10, and for BrainCog's of Bullying10K, by name.
        num_classes: of a source that does not name its classes; by default the set's.
        options: single fields of the four rules above, under the names of their options: `step`, `frames_by`,
            `remainder`, `resize`, `surface_tau`, `clip_counts`, `frame_norm`, `merge_polarity`; `train_portion`,
            `split_seed`; `mean`, `std`, `normalize`; `download`, `cache_dir`, `use_cache`, `workers`, `skip_bad`,
            `max_pixels`, `needs_train`.

    Raises:
        UserError: for an unknown name or rule, missing or damaged data, or a value that doesn't fit the set.
        TypeError: for an unknown option.
    """
    info = lookup(name)
    if info.kind == "task":
        raise UserError(f"data set {name} is for --task {info.task}, and has no classes of samples; see docs/tasks.md")
    data_dir = Path(data_dir)
    frames = FrameRule(kind=frames) if isinstance(frames, str) else frames or FrameRule()
    split = split if isinstance(split, Split) else Split(rule=split)
    rules = (frames, split, colours or Colours(), access or Access())
    frames, split, colours, access = (rule.with_options(options) for rule in rules)
    if options:
        raise TypeError(f"build_datasets() has no argument {next(iter(options))!r}")
    size = _checked_size(size or info.size)
    augment = (augment or Augment()).filled(info.augment)
    chans = _channels(info, in_chans, frames, appended=polarity_sum)
    order = _class_order(info, label_order)
    validates = info.validation and split.rule == "valid"
    if not info.splits and (split.portion != Split.portion or not (split.rule is None or validates)):
        raise UserError(f"data set {name} has its own test split; leave out --split and --train-portion")
    if info.kind == "image":
        mean, std = colours.per_channel(info.colours, chans)
        pair = picture_transforms(size, augment, mean=mean, std=std, normalize=colours.normalize)
        if source is not None:
            ends = {"num_classes": num_classes or info.num_classes, "max_pixels": access.max_pixels}
            train, test = _source_pictures(source, *pair, needs_train=access.needs_train, **ends)
            return DataBundle(info, train, test, test.num_classes, (chans, *size), test.classes)
        *halves, classes = info.read(info, data_dir, access)
        mode = "L" if chans == 1 else "RGB"
        sets = (PictureDataset(half, mode=mode, transform=one) for half, one in zip(halves, pair, strict=True))
        return DataBundle(info, *sets, len(classes), (chans, *size), classes)
    if colours.mean or colours.std:
        has = "its own mean and deviation" if info.mean else "raw counts, which are not normalised"
        raise UserError(f"data set {name} has {has}; leave out --mean and --std")
    if info.kind == "sequence":
        steps = info.length or frames.steps
        train, test = info.read(info, data_dir, access, steps=steps, split=split)
        classes = info.classes or tuple(getattr(train, "classes", ()))
        return DataBundle(info, train, test, info.num_classes, (steps, info.size[1]), classes)
    appended = (PolaritySum(),) if polarity_sum else ()
    train, test = event_datasets(
        info,
        data_dir,
        replace(_with_steps(info, frames), sensor=info.size, size=size),
        split=split,
        access=access,
        class_order=order,
        transforms=(*event_transforms(augment), *appended),
        test_transforms=appended,
    )
    classes = tuple(info.classes[label] for label in order) if info.classes else ()
    shape = (frames.steps, chans, *size)
    return DataBundle(info, train, test, info.num_classes, shape, classes, (*train.left_out, *test.left_out))


def _source_pictures(
    source: Source, varied: Transform, plain: Transform, *, needs_train: bool, **ends: int
) -> tuple[Dataset, Dataset]:
    kind = PictureStream if source.streamed else SourcePictures
    try:
        train = kind(source, train=True, transform=varied, **ends)
    except UserError:
        if needs_train:
            raise
        train = None
    test = kind(source, train=False, transform=plain, **ends)
    if train is None:
        train = PictureDataset(FilePictures([], []), mode="RGB", transform=varied)
    elif train.classes != test.classes:
        raise UserError(f"--dataset-source {source.name}: its two splits have different classes; give a --class-map")
    return train, test


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"the size of a sample must be two sides of 1 pixel or more; got {tuple(size)}")
    return int(size[0]), int(size[1])


def _channels(info: PictureSet | EventSet, wanted: int | None, frames: FrameRule, *, appended: bool) -> int:
    flags = "--polarity-sum" * appended or "--merge-polarity" * frames.merge
    if flags and info.kind != "event":
        raise UserError(f"data set {info.name} holds no events, which alone have polarities; leave out {flags}")
    if flags and (frames.kind == "voxel" or (frames.merge and appended)):
        raise UserError(f"{flags}: frames {frames.kind!r} of one channel have no two polarities to add; leave it out")
    has = info.in_chans
    if info.kind == "event":
        has = event_channels(frames.kind, merge=frames.merge, appended=appended)
    grey = info.kind == "image" and has == 1
    if wanted in (None, has):
        return has
    if grey and wanted == 3:
        return 3
    can = "1 channel, or 3 with the grey values repeated" if grey else f"{has} channel{'s' * (has > 1)}"
    raise UserError(f"data set {info.name} gives {can}; got in_chans={wanted}, choose a model with such an input")


def _class_order(info: DatasetInfo, rule: str) -> list[int]:
    """Return the class behind each label."""
    if rule not in choices("label_order"):
        raise unknown("rule of --label-order", rule, choices("label_order"))
    if rule == "text" and not info.text_order:
        raise UserError(f"data set {info.name} has one order of labels; leave out --label-order")
    return list(info.text_order) if rule == "text" else list(range(info.num_classes))


def _with_steps(info: EventSet, frames: FrameRule) -> FrameRule:
    """Return the rule, by the recordings' own steps where they come in such."""
    if frames.by not in choices("frames_by"):
        raise unknown("rule of --frames-by", frames.by, choices("frames_by"))
    if not info.given_steps:
        return frames
    if info.given_steps % frames.steps:
        problem = f"comes in {info.given_steps} steps; --step must divide them, got {frames.steps}"
        raise UserError(f"data set {info.name} {problem}")
    if (frames.by, frames.remainder) != ("number", "last"):
        raise UserError(f"data set {info.name} comes in steps of its own; leave out --frames-by and --remainder")
    return replace(frames, by="given")
