"""Frames kept on disk after resizing: one memory-mapped .npy file per split, which can't be served stale.

The file's name is the SHA-256 of everything that its content depends on: the files with their sizes and times of
change, the sensor, the cut, T, the resizing and the version of the format. It is written under a temporary name and
renamed when complete, under a lock, so that several processes may ask for it at once and one of them builds it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.lib.format import open_memmap
from tqdm import tqdm

from ..errors import UserError
from .frames import count_factor, events_to_frames, resize_counts
from .readers import Segment, read_recording

__all__ = ["FrameRule", "cached_frames", "cache_key", "writing_folder"]

_FORMAT_VERSION = 1
_DTYPES = (np.uint8, np.uint16, np.float32)


@dataclass(frozen=True, kw_only=True)
class FrameRule:
    """Say how a recording becomes frames; its `repr` is part of the cache's key.

    Args:
        sensor: (H, W) of the camera.
        size: (H, W) of the frames.
        steps: T.
        by: see `frames.events_to_frames`.
        remainder: the same.
        resize: see `frames.resize_counts`.
    """

    sensor: tuple[int, int]
    size: tuple[int, int]
    steps: int
    by: str = "number"
    remainder: str = "last"
    resize: str = "area"

    @property
    def factor(self) -> int | None:
        """Number by which the frames become whole counts, None where there is none."""
        return count_factor(self.sensor, self.size, self.resize)

    def __call__(self, path: Path | Segment) -> np.ndarray:
        """Read a recording and return its frames (T, 2, H, W) float32."""
        events = read_recording(path, self.sensor)
        counts = events_to_frames(events, self.steps, self.sensor, by=self.by, remainder=self.remainder)
        return resize_counts(counts, self.size, self.resize)


def cache_key(name: str, files: Sequence[Path | Segment], rule: FrameRule) -> str:
    """Return the SHA-256 of the files' places, sizes and times of change, and of the rule."""
    folders = {folder: str(folder.resolve()) for folder in {path.parent for path in files}}
    listing = [(folders[path.parent], path.name, *_state(path)) for path in files]
    content = {"format": _FORMAT_VERSION, "set": name, "rule": asdict(rule), "files": listing}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def cached_frames(folder: Path, name: str, files: Sequence[Path | Segment], rule: FrameRule) -> Path:
    """Return the file that holds the frames of all `files`, building it first if it isn't there.

    Args:
        folder: of the cache; made if missing.
        name: of the data set and split, for the file's name and the progress bar.
        files: recordings, in the order of the samples.
        rule: from recordings to frames.

    Returns:
        an .npy file (N, T, 2, H, W): whole counts (`rule.factor` times the frames) in uint8, uint16 or float32, or the
        frames themselves in float32 where the factor is None.
    """
    key = cache_key(name, files, rule)
    target = folder / f"{name}-{key}.npy"
    shape = (len(files), rule.steps, 2, *rule.size)
    with writing_folder(folder):
        if not _complete(target, shape):
            with FileLock(folder / ".lock"):
                if not _complete(target, shape):
                    _build(target, shape, name, files, rule)
                    if cache_key(name, files, rule) != key:
                        target.unlink()
                        raise UserError(f"recordings of {name} changed while they were read; start again")
    return target


@contextmanager
def writing_folder(folder: Path) -> Iterator[None]:
    """Make a folder of the cache, and turn a failure to write there into one line with the remedy."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if isinstance(error, UserError):
            raise
        reason = error.strerror or error
        raise UserError(
            f"the cache {folder} can't be written ({reason}); name another with --cache-dir, or use --no-cache"
        ) from None


def _state(path: Path | Segment) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    return stat.st_size, stat.st_mtime_ns


def _complete(target: Path, shape: tuple[int, ...]) -> bool:
    try:
        # A file that was cut short fails here: its mapping would be longer than the file.
        return np.load(target, mmap_mode="r").shape == shape
    except (OSError, ValueError, EOFError):
        return False


def _build(target: Path, shape: tuple[int, ...], name: str, files: Sequence[Path | Segment], rule: FrameRule) -> None:
    scale = rule.factor
    kinds = list(_DTYPES if scale else _DTYPES[-1:])
    kind = kinds.pop(0)
    for abandoned in target.parent.glob(".*.npy.partial"):  # by a process that was killed: we hold the lock
        abandoned.unlink()
    partial = _partial(target)
    try:
        store = open_memmap(partial, "w+", kind, shape)
        for index, path in enumerate(tqdm(files, desc=f"frames of {name}", unit="file", mininterval=0.5)):
            frames = rule(path) * (scale or 1)
            while kinds and frames.max() > np.iinfo(kind).max:
                kind = kinds.pop(0)
                store, partial = _widen(store, partial, _partial(target), kind, index)
            store[index] = frames
        store.flush()
        del store
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _widen(store: np.memmap, old: Path, new: Path, kind: type, filled: int) -> tuple[np.memmap, Path]:
    """Copy the samples so far into a file of a wider type."""
    wider = open_memmap(new, "w+", kind, store.shape)
    wider[:filled] = store[:filled]
    del store
    old.unlink()
    return wider, new


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.stem[:40]}-{os.getpid()}-{os.urandom(4).hex()}.npy.partial")
