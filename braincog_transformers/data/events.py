"""Event data sets: which recordings belong to which split, and samples of frames (T, P, H, W)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError, unknown
from .cache import FrameRule, cached_frames
from .catalog import DatasetInfo
from .gesture import gesture_sides
from .places import class_files, find_root, warn_if_incomplete
from .readers import Segment
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
        cache: file written by `cache.cached_frames` for these files and this rule, or None to read the recordings.
    """

    def __init__(
        self,
        files: Sequence[Path | Segment],
        targets: Sequence[int],
        rule: FrameRule,
        *,
        transforms: Sequence[Callable[[Tensor], Tensor]] = (),
        cache: Path | None = None,
    ) -> None:
        self.files = list(files)
        self.targets = list(targets)
        self.rule = rule
        self.transforms = tuple(transforms)
        self.cache = cache
        self._store: np.ndarray | None = None

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
            return self.rule(self.files[index])
        if self._store is None:
            self._store = _open(self.cache)
        return self._store[index].astype(np.float32) / np.float32(self.rule.factor or 1)


def _open(cache: Path) -> np.ndarray:
    try:
        return np.load(cache, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{cache}: the cached frames can't be read any more ({error}); start again") from None


def event_datasets(
    info: DatasetInfo,
    data_dir: Path,
    cache_dir: Path,
    rule: FrameRule,
    *,
    class_order: Sequence[int],
    transforms: Sequence[Callable[[Tensor], Tensor]] = (),
    test_transforms: Sequence[Callable[[Tensor], Tensor]] = (),
    use_cache: bool = True,
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
        transforms: of training samples.
        test_transforms: of test samples.
        use_cache: keep the frames on disk.
        split: named rule where there is no official test split; None is the set's first.
        train_portion: share of training samples there.
        split_seed: seed of the split `random`.

    Raises:
        UserError: for a missing set, a class without recordings, or an unknown split.
    """
    root = ndigits_folder(cache_dir) if info.name == "ndigits" else find_root(info, data_dir)
    if info.name == "dvsg":
        sides = gesture_sides(root)
    elif info.split_folders:
        sides = [_folder_side(root / folder, info) for folder in info.split_folders]
    else:
        sides = _named_split(root, info, split or info.splits[0], train_portion, split_seed)
    warn_if_incomplete(root, info, [len(files) for files, _ in sides])
    sets = []
    for (files, targets), part, varied in zip(sides, ("train", "test"), (transforms, test_transforms), strict=True):
        cache = cached_frames(cache_dir, f"{info.name}-{part}", files, rule) if use_cache else None
        labels = [class_order.index(target) for target in targets]
        sets.append(EventDataset(files, labels, rule, transforms=varied, cache=cache))
    return sets[0], sets[1]


def _folder_side(folder: Path, info: DatasetInfo) -> Side:
    groups = class_files(folder, info.classes, info.endings)
    return [path for group in groups for path in group], [label for label, group in enumerate(groups) for _ in group]


def _named_split(root: Path, info: DatasetInfo, split: str, train_portion: float, seed: int) -> Sequence[Side]:
    if split not in info.splits:
        raise unknown(f"split of data set {info.name}", split, info.splits)
    if split == "tebn" and train_portion != 0.9:
        raise UserError("split 'tebn' is fixed at files 0 to 99 for the test; leave out --train-portion")
    if not 0 < train_portion < 1:
        raise UserError(f"--train-portion must be above 0 and below 1; got {train_portion}")
    groups = class_files(root, info.classes, info.endings)
    return split_by_class(groups, split, train_portion=train_portion, seed=seed)
