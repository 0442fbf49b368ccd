"""Event data sets: which recordings belong to which split, and samples of frames (T, P, H, W)."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError, unknown
from .cache import CachedFrames, FrameRule, cached_frames, damaged_in
from .catalog import DatasetInfo
from .fetching import fetch
from .layouts import LAYOUTS
from .places import class_files, find_root, warn_if_incomplete
from .readers import Segment
from .reading import Damaged, read_all, read_or_damaged
from .recordings import TopLeft
from .saccades import ndigits_folder
from .splits import split_by_class

__all__ = ["EventDataset", "event_datasets"]

Side = tuple[list[Path | Segment], list[int]]


class EventDataset(Dataset):
    """Serve recordings as frames, from the cache or straight from the files.

    Args:
        files: recordings in the order of the samples.
        targets: their labels.
        rule: from a recording to frames.
        transforms: applied in turn to each sample's frames.
        cache: file written by `cache.cached_frames` for this rule, or None to read the recordings.
        rows: places of the files in it; by default one after the other.
        left_out: what was wrong with recordings that belong to the set and aren't among `files`.
    """

    def __init__(
        self,
        files: Sequence[Path | Segment],
        targets: Sequence[int],
        rule: FrameRule,
        *,
        transforms: Sequence[Callable[[Tensor], Tensor]] = (),
        cache: Path | None = None,
        rows: Sequence[int] | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        self.files = list(files)
        self.targets = list(targets)
        self.rule = rule
        self.transforms = tuple(transforms)
        self.cache = cache
        self.rows = range(len(self.files)) if rows is None else rows
        self.left_out = tuple(left_out)
        self._store: CachedFrames | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return frames (T, P, H, W) float32, raw counts, and the label; P is 2 unless a transform changes it."""
        frames = torch.from_numpy(self._frames(index))
        for transform in self.transforms:
            frames = transform(frames)
        return frames, self.targets[index]

    def __getstate__(self) -> dict:
        """Leave the mapped file out: pickling it for a worker would copy the whole of it."""
        return {**self.__dict__, "_store": None}

    def _frames(self, index: int) -> np.ndarray:
        if self.cache is None:
            frames = read_or_damaged(self.rule, self.files[index])
            if isinstance(frames, Damaged):
                raise frames.error()
            return frames
        if self._store is None:
            self._store = _open(self.cache)
        return self.rule.unpack(self._store[self.rows[index]])


def _open(cache: Path) -> CachedFrames:
    try:
        return CachedFrames(cache)
    except (OSError, ValueError) as error:
        raise UserError(f"{cache}: the cached frames can't be read any more ({error}); start again") from None


def event_datasets(
    info: DatasetInfo,
    data_dir: Path,
    cache_dir: Path,
    rule: FrameRule,
    *,
    class_order: Sequence[int],
    download: bool = False,
    transforms: Sequence[Callable[[Tensor], Tensor]] = (),
    test_transforms: Sequence[Callable[[Tensor], Tensor]] = (),
    use_cache: bool = True,
    workers: int = 0,
    skip_bad: bool = False,
    split: str | None = None,
    train_portion: float = 0.9,
    split_seed: int = 0,
) -> tuple[EventDataset, EventDataset]:
    """Return the training and the test set.

    Args:
        info: entry of the catalogue.
        data_dir: folder in which it is looked for.
        cache_dir: folder of the cached frames and of simulated recordings.
        rule: from recordings to frames.
        class_order: the catalogue's class behind each label.
        download: let tonic fetch a missing set, of those that it can fetch.
        transforms: of training samples.
        test_transforms: of test samples.
        use_cache: keep the frames on disk.
        workers: processes that read recordings for the cache.
        skip_bad: leave recordings out that can't be read, after the split.
        split: named rule where there is no official test split; None is the set's first.
        train_portion: share of training samples there.
        split_seed: seed of the split `random`.

    Raises:
        UserError: for a missing set, a class without recordings, or an unknown split.
    """
    if download and info.downloadable:
        fetch(info, data_dir)
    root = ndigits_folder(cache_dir) if info.name == "ndigits" else find_root(info, data_dir)
    if info.name in LAYOUTS:
        sides = LAYOUTS[info.name](root, info)
    elif info.split_folders:
        sides = [_folder_side(root / folder, info) for folder in info.split_folders]
    else:
        sides = _named_split(root, info, split or info.splits[0], train_portion, split_seed)
    warn_if_incomplete(root, info, [len(files) for files, _ in sides])
    _warn_of_doubles(root, info, sides)
    if info.top_left:
        sides = [([TopLeft(path) for path in files], targets) for files, targets in sides]
    sets = []
    for (files, targets), part, varied in zip(sides, ("train", "test"), (transforms, test_transforms), strict=True):
        name, cache, damaged = f"{info.name}-{part}", None, {}
        if use_cache:
            cache = cached_frames(cache_dir, name, files, rule, workers=workers, skip_bad=skip_bad)
            damaged = damaged_in(cache)
        elif skip_bad:
            damaged = _find_damaged(files, rule, workers=workers, name=name)
        if len(damaged) == len(files):
            raise UserError(f"none of the {len(files)} recordings of {name} can be read; the first: {damaged[0]}")
        rows = [row for row in range(len(files)) if row not in damaged]
        sets.append(
            EventDataset(
                [files[row] for row in rows],
                [class_order.index(targets[row]) for row in rows],
                rule,
                transforms=varied,
                cache=cache,
                rows=rows,
                left_out=damaged.values(),
            )
        )
    return sets[0], sets[1]


def _warn_of_doubles(root: Path, info: DatasetInfo, sides: Sequence[Side]) -> None:
    """Tell of samples that the lists of a set name twice, be it for training and for the test."""
    counts = Counter(path for files, _ in sides for path in files)
    if double := [path for path, count in counts.items() if count > 1]:
        warnings.warn(
            f"{root}: {len(double)} samples of {info.name} are listed more than once, each counts: {double[0]}",
            stacklevel=3,
        )


def _find_damaged(files: Sequence[Path | Segment], rule: FrameRule, *, workers: int, name: str) -> dict[int, str]:
    """Read every recording once; return the places of those that can't be, and why."""
    results = read_all(partial(_check, rule=rule), files, workers=workers, title=f"check of {name}")
    return {place: result.text for place, result in enumerate(results) if isinstance(result, Damaged)}


def _check(path: Path | Segment, rule: FrameRule) -> None:
    rule(path)  # what frames it makes is of no interest


def _folder_side(folder: Path, info: DatasetInfo) -> Side:
    groups = class_files(folder, info.classes, info.endings, smallest=info.smallest)
    return [path for group in groups for path in group], [label for label, group in enumerate(groups) for _ in group]


def _named_split(root: Path, info: DatasetInfo, split: str, train_portion: float, seed: int) -> Sequence[Side]:
    if split not in info.splits:
        raise unknown(f"split of data set {info.name}", split, info.splits)
    if split == "tebn" and train_portion != 0.9:
        raise UserError("split 'tebn' is fixed at files 0 to 99 for the test; leave out --train-portion")
    if not 0 < train_portion < 1:
        raise UserError(f"--train-portion must be above 0 and below 1; got {train_portion}")
    groups = class_files(root, info.classes, info.endings, smallest=info.smallest)
    return split_by_class(groups, split, train_portion=train_portion, seed=seed)
