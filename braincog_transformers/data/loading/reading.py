"""Read many recordings, in several processes; an error in one of them is returned as a value, not as a traceback."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ...errors import UserError
from ..readers import Recording

__all__ = ["Damaged", "read_all", "read_or_damaged"]

_FEWEST = 64
"""Fewest recordings for which it is worth starting a process."""


@dataclass(frozen=True)
class Damaged:
    """Replace a recording that can't be read.

    Args:
        text: what is wrong, the file first.
    """

    text: str

    def error(self) -> UserError:
        """Return the error that ends a run which doesn't skip it."""
        return UserError(f"{self.text}; --skip-bad leaves such recordings out")


def read_or_damaged(read: Callable[[Path | Recording], Any], path: Path | Recording) -> Any:
    """Return `read(path)`, or a `Damaged`."""
    try:
        return read(path)
    except UserError as error:
        return Damaged(str(error))


class _Recordings(Dataset):
    """Apply one function to each recording."""

    def __init__(self, read: Callable[[Path | Recording], Any], files: Sequence[Path | Recording]) -> None:
        self.read, self.files = read, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Any:
        return read_or_damaged(self.read, self.files[place])


def read_all(
    read: Callable[[Path | Recording], Any], files: Sequence[Path | Recording], *, workers: int, title: str
) -> Iterator[Any]:
    """Yield `read(path)` or a `Damaged` for each file, in their order, under a progress bar.

    Args:
        read: picklable function of a path.
        files: recordings.
        workers: most processes that read; few files are read in this one, as are all where no process can be started.
        title: of the progress bar.
    """
    processes = min(workers, len(files) // _FEWEST)
    if multiprocessing.current_process().daemon:  # a loader's worker, which may start no further ones
        processes = 0
    # torch's loader, because its workers end when this process is killed; else they would hold the lock of the cache
    recordings = _Recordings(read, files)
    try:
        results = iter(_loader(recordings, processes))
    except OSError:
        results = iter(_loader(recordings, 0))
    yield from tqdm(results, desc=title, total=len(files), unit="file", mininterval=0.5)


def _loader(recordings: _Recordings, processes: int) -> DataLoader:
    return DataLoader(
        recordings,
        batch_size=None,
        num_workers=processes,
        collate_fn=_unchanged,
        generator=torch.Generator(),  # its own, so that building draws nothing from the run's
        prefetch_factor=8 if processes else None,
    )


def _unchanged(result: Any) -> Any:
    return result
