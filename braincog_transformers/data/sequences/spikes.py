"""Spiking Heidelberg Digits and Speech Commands (`shd`, `ssc`): spikes of 700 channels, counted in T stretches of time.

The cut is tonic's `ToFrame(n_time_bins=T)`, with which the published accuracies were measured: a stretch is
(last time - first time) // T microseconds long and includes its start but not its end, so that the remainder, with at
least the last spike, is dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import UserError
from ..formats.columns import LATEST_US
from ..formats.hdf5 import read_spikes
from ..formats.opening import named
from ..loading.fetching import fetched_root
from ..loading.folders import MissingData, warn_if_incomplete
from ..registry import SequenceSet
from ..settings import Access, Split

__all__ = ["SpikeDataset", "read_spike_files", "spike_counts"]


def spike_counts(seconds: np.ndarray, channels: np.ndarray, steps: int, width: int) -> np.ndarray:
    """Count the spikes of one sample per stretch of time and channel.

    Args:
        seconds: (N,) times, N at least 1; whole microseconds count.
        channels: (N,) from 0 to below `width`.
        steps: T, 1 or more.
        width: number of channels.

    Returns:
        counts (T, width) float32.
    """
    t = (seconds.astype(np.float64) * 1e6).astype(np.int64)
    t -= t.min()
    length = t.max() // steps
    step = t // length if length else np.full(len(t), steps)
    kept = step < steps
    cell = step[kept] * width + channels[kept]
    return np.bincount(cell, minlength=steps * width).reshape(steps, width).astype(np.float32)


@dataclass(eq=False)
class SpikeDataset(Dataset):
    """Serve the samples of one HDF5 file, which is held in memory as it was stored.

    Args:
        seconds: times of all spikes, one sample after the other.
        channels: of the same spikes.
        ends: (N,) number of spikes up to the end of each sample.
        targets: labels.
        steps: T.
        width: number of channels.
        classes: their names, where the file has them.
    """

    seconds: np.ndarray
    channels: np.ndarray
    ends: np.ndarray
    targets: list[int]
    steps: int
    width: int
    classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return counts (T, width) float32 and the label."""
        start = self.ends[index - 1] if index else 0
        own = slice(start, self.ends[index])
        counts = spike_counts(self.seconds[own], self.channels[own], self.steps, self.width)
        return torch.from_numpy(counts), self.targets[index]


def read_spike_files(
    info: SequenceSet, data_dir: Path, access: Access, *, steps: int, split: Split
) -> tuple[SpikeDataset, SpikeDataset]:
    """Return the training and the test set.

    Args:
        info: entry of the table.
        data_dir: folder in which it is looked for.
        access: whether missing files are fetched.
        steps: T.
        split: the rule `valid` puts the validation samples in the place of the test samples.

    Raises:
        UserError: for a set that is missing, damaged, or can't be fetched.
    """
    root, names = fetched_root(info, data_dir, access), ("train", split.rule or "test")
    train, test = (_read(_file(root, f"{info.name}_{part}.h5"), info, steps) for part in names)
    warn_if_incomplete(root, info, [len(train), len(test)])
    return train, test


def _file(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise MissingData(f"{root}: holds no {name} and no {name}.gz, though other parts are there; put it beside")


def _read(path: Path, info: SequenceSet, steps: int) -> SpikeDataset:
    width = info.size[1]
    with named(path):
        seconds, channels, counts, targets, classes = read_spikes(path, 0 if info.classes else info.num_classes)
        if not len(counts) or not counts.all():
            empty = int((counts == 0).sum())
            raise UserError(f"holds {len(counts)} samples, {empty} of them without spikes; fetch it anew")
        outside = channels.min() < 0 or channels.max() >= width
        late = not max(abs(float(seconds.min())), abs(float(seconds.max()))) <= LATEST_US / 1e6  # true of NaN, too
        if outside or late or targets.min() < 0 or targets.max() >= info.num_classes:
            raise UserError(f"has spikes outside of {width} channels, times that are no numbers, or unknown labels")
    ends = np.cumsum(counts)
    return SpikeDataset(seconds, channels, ends, targets.tolist(), steps, width, classes)
