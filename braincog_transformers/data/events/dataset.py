"""Event data sets: which recordings belong to which split, and samples of frames (T, P, H, W)."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import UserError, unknown
from ..loading.fetching import fetched_root
from ..loading.folders import class_files, unpaired, warn_if_incomplete
from ..loading.reading import Damaged, read_all, read_or_damaged
from ..readers import Recording
from ..registry import EventSet
from ..settings import Access, Split
from .cache import CachedFrames, cached_frames, damaged_in
from .frames import FrameRule
from .recordings import TopLeft
from .splits import split_by_class

__all__ = ["EventDataset", "class_sides", "event_datasets"]

Side = tuple[list[Path | Recording], list[int]]


@dataclass(eq=False)
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

    files: Sequence[Path | Recording]
    targets: Sequence[int]
    rule: FrameRule
    transforms: Sequence[Callable[[Tensor], Tensor]] = ()
    cache: Path | None = None
    rows: Sequence[int] | None = None
    left_out: Sequence[str] = ()
    _store: CachedFrames | None = None

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
            self._store = CachedFrames(self.cache)
        row = index if self.rows is None else self.rows[index]
        return self.rule.unpack(self._store[row])


def event_datasets(
    info: EventSet,
    data_dir: Path,
    rule: FrameRule,
    *,
    split: Split,
    access: Access,
    class_order: Sequence[int],
    transforms: Sequence[Callable[[Tensor], Tensor]],
    test_transforms: Sequence[Callable[[Tensor], Tensor]],
) -> tuple[EventDataset, EventDataset]:
    """Return the training and the test set.

    Args:
        info: entry of the table.
        data_dir: folder in which it is looked for.
        rule: from recordings to frames.
        split: where there is no official test split.
        access: how recordings are read, and their frames kept.
        class_order: the entry's class behind each label.
        transforms: of training samples.
        test_transforms: of test samples.

    Raises:
        UserError: for a missing set, a class without recordings, or an unknown split.
    """
    cache_dir = Path(access.cache_dir or data_dir / "cache")
    root = info.simulate(cache_dir) if info.simulate else fetched_root(info, data_dir, access)
    sides = info.sides(root, info, split)
    warn_if_incomplete(root, info, [len(files) for files, _ in sides])
    _warn_of_doubles(root, info, sides)
    if info.top_left:
        sides = [([TopLeft(path) for path in files], targets) for files, targets in sides]
    labels, sets = {kind: label for label, kind in enumerate(class_order)}, []
    for (files, targets), part, varied in zip(sides, ("train", "test"), (transforms, test_transforms), strict=True):
        name, cache, damaged = f"{info.name}-{part}", None, {}
        if access.use_cache:
            cache = cached_frames(cache_dir, name, files, rule, workers=access.workers, skip_bad=access.skip_bad)
            damaged = damaged_in(cache)
        elif access.skip_bad:
            found = read_all(partial(_check, rule), files, workers=access.workers, title=f"check of {name}")
            damaged = {row: result.text for row, result in enumerate(found) if isinstance(result, Damaged)}
        if len(damaged) == len(files):
            raise UserError(f"none of the {len(files)} recordings of {name} can be read; the first: {damaged[0]}")
        rows = [row for row in range(len(files)) if row not in damaged]
        kept = [files[row] for row in rows], [labels[targets[row]] for row in rows]
        sets.append(EventDataset(*kept, rule, varied, cache, rows, tuple(damaged.values())))
    return sets[0], sets[1]


def class_sides(root: Path, info: EventSet, split: Split) -> list[Side]:
    """Return the recordings in class folders, in the set's folders for each split or split by a rule.

    Raises:
        UserError: for a class without recordings, or an unknown split.
    """
    find = partial(class_files, classes=info.classes, endings=info.endings, smallest=info.smallest)
    if info.split_folders:
        found = [find(root / folder) for folder in info.split_folders]
        return [unpaired([(path, label) for label, group in enumerate(groups) for path in group]) for groups in found]
    rule = split.rule or info.splits[0]
    if rule not in info.splits:
        raise unknown(f"split of data set {info.name}", rule, info.splits)
    return split_by_class(find(root), rule, train_portion=split.portion, seed=split.seed)


def _warn_of_doubles(root: Path, info: EventSet, sides: Sequence[Side]) -> None:
    """Warn of samples that the lists of a set name twice, in one split or in both."""
    counts = Counter(path for files, _ in sides for path in files)
    if double := [path for path, count in counts.items() if count > 1]:
        warnings.warn(
            f"{root}: {len(double)} samples of {info.name} are listed more than once, each counts: {double[0]}",
            stacklevel=3,
        )


def _check(rule: FrameRule, path: Path | Recording) -> None:
    rule(path)  # its frames are not sent to the process that asks
