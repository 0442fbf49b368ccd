"""Frames kept on disk after resizing: one memory-mapped .npy file per split, which can't be served stale.

The file's name is the SHA-256 of everything that its content depends on: the files with their sizes and times of
change, the sensor, every rule of the frames and the version of the format. Beside it is a list of the recordings that
could not be read, and a sum of each sample, with which it is compared when it is served. Both are written under
temporary names and renamed when complete, under a lock, so that several processes may ask for them at once and one of
them builds. Rows are appended with ordinary writes: a mapped file would end the process without a message where the
disk is full.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock

from ...errors import UserError
from ...files import reason
from ..loading.reading import Damaged, read_all
from ..readers import Recording
from .frames import STORED_TYPES, FrameRule

__all__ = ["CachedFrames", "build_once", "cache_key", "cached_frames", "damaged_in"]

_FORMAT_VERSION = 2
_PARTIAL = ".partial"


def cache_key(name: str, files: Sequence[Path | Recording], rule: FrameRule) -> str:
    """Return the SHA-256 of the files' places, sizes and times of change, and of the rule."""
    folders = {folder: str(folder.resolve()) for folder in {path.parent for path in files}}
    listing = [(folders[path.parent], path.name, *_state(path)) for path in files]
    content = {"format": _FORMAT_VERSION, "set": name, "rule": asdict(rule), "files": listing}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _state(path: Path | Recording) -> tuple[int, int]:
    """Return size and time of change, or a sign for a file that isn't there, which its reader will name."""
    try:
        stat = path.stat()
    except (OSError, ValueError):  # the latter for a name with a zero byte
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def build_once(
    folder: Path, is_built: Callable[[], bool], build: Callable[[], None], way_out: str = ", or use --no-cache"
) -> None:
    """Build something in the folder of the cache if it isn't there, in one of the processes that ask at once.

    Args:
        folder: made if missing.
        is_built: whether it is there.
        build: writes it.
        way_out: what to do besides naming another folder, where this one can't be written.

    Raises:
        UserError: for a folder that can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not is_built():
            with FileLock(folder / ".lock"):
                if not is_built():
                    build()
    except UserError:
        raise
    except OSError as error:
        problem = f"the cache {folder} can't be written ({reason(error)})"
        raise UserError(f"{problem}; name another with --cache-dir{way_out}") from None


def cached_frames(
    folder: Path,
    name: str,
    files: Sequence[Path | Recording],
    rule: FrameRule,
    *,
    workers: int = 0,
    skip_bad: bool = False,
) -> Path:
    """Return the file that holds the frames of all `files`, building it first if it isn't there.

    Args:
        folder: of the cache; made if missing.
        name: of the data set and split, for the file's name and the progress bar.
        files: recordings, in the order of the samples.
        rule: from recordings to frames.
        workers: processes that read recordings; 0 reads them in this one.
        skip_bad: write zeros for a recording that can't be read; `damaged_in` lists them.

    Returns:
        an .npy file (N, T, P, H, W): what `rule.pack` gives of each recording, in uint8, uint16 or float32.

    Raises:
        UserError: for a folder that can't be written, or, without `skip_bad`, the first recording that can't be read.
    """
    key = cache_key(name, files, rule)
    target = folder / f"{name}-{key}.npy"
    shape = (len(files), *rule.shape)

    def build() -> None:
        _clear(folder)
        with closing(read_all(rule.pack, files, workers=workers, title=f"frames of {name}")) as packed:
            _write(target, shape, packed, skip_bad=skip_bad)
        if cache_key(name, files, rule) != key:
            target.unlink()
            raise UserError(f"recordings of {name} changed while they were read; start again")

    build_once(folder, lambda: _complete(target, shape), build)
    if not skip_bad and (damaged := damaged_in(target)):
        raise Damaged(next(iter(damaged.values()))).error()
    return target


def damaged_in(target: Path) -> dict[int, str]:
    """Return the places of the recordings that a file of `cached_frames` holds zeros for, and what is wrong with them.

    Raises:
        OSError, ValueError: where the list is missing or damaged.
    """
    return {int(place): str(text) for place, text in _beside(target)[0]}


class CachedFrames:
    """Serve what `cached_frames` stored, as long as it is what was stored.

    Args:
        path: of the .npy file; one of an earlier version, without sums, is served without a check.

    Raises:
        UserError: for a file that can't be read any more.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.path, self.rows, self.sums = path, np.load(path, mmap_mode="r"), _beside(path)[1]
        except (OSError, ValueError) as error:
            why = f"the cached frames can't be read any more ({reason(error)}); start again"
            raise UserError(f"{path}: {why}") from None

    def __getitem__(self, place: int) -> np.ndarray:
        row = self.rows[place]
        if self.sums and zlib.crc32(row) != self.sums[place]:
            raise UserError(f"{self.path}: the cached frames of sample {place} are damaged; remove this file")
        return row


def _list(target: Path) -> Path:
    return target.with_suffix(".damaged.json")


def _beside(target: Path) -> tuple[list, list[int]]:
    """Return the list beside a file of frames: what was damaged, and a sum of each row, or none of an older version."""
    stored = json.loads(_list(target).read_text(encoding="utf-8"))
    return (stored["damaged"], stored["sums"]) if isinstance(stored, dict) else (stored, [])


def _complete(target: Path, shape: tuple[int, ...]) -> bool:
    try:
        damaged_in(target)
        if len(_beside(target)[1]) not in (0, shape[0]):
            return False
        # A file that was cut short fails here: its mapping would be longer than the file.
        stored = np.load(target, mmap_mode="r")
        return stored.shape == shape and stored.dtype in STORED_TYPES and stored.flags.c_contiguous
    except Exception:  # a damaged heading or list may raise anything; both are written anew
        return False


def _clear(folder: Path) -> None:
    """Remove what this build, or a process that was killed, left behind; only whoever holds the lock may do so."""
    for abandoned in folder.glob(f".*{_PARTIAL}"):
        abandoned.unlink()


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name[:40]}-{os.getpid()}-{os.urandom(4).hex()}{_PARTIAL}")


def _write(target: Path, shape: tuple[int, ...], packed: Iterable[np.ndarray | Damaged], *, skip_bad: bool) -> None:
    rows, list_beside, damaged = _Rows(_partial(target), shape), _partial(_list(target)), []
    try:
        for place, frames in enumerate(packed):
            if isinstance(frames, Damaged):
                if not skip_bad:
                    raise frames.error()
                damaged.append((place, frames.text))
                frames = np.zeros(shape[1:], np.uint8)
            rows.append(frames)
        rows.file.flush()
        os.fsync(rows.file.fileno())
        rows.file.close()
        list_beside.write_text(json.dumps({"damaged": damaged, "sums": rows.sums}), encoding="utf-8")
        os.replace(list_beside, _list(target))
        os.replace(rows.path, target)
    finally:
        with suppress(OSError):  # where the disk is full, what is left in the buffer can't be written either
            rows.file.close()
        _clear(target.parent)


class _Rows:
    """Write an .npy file row by row, in the narrowest type that holds all rows so far, and keep a sum of each.

    Args:
        path: of the file.
        shape: of the complete array.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.file, self.start, self.sums = self._started(np.dtype(STORED_TYPES[0]))

    def _started(self, kind: np.dtype) -> tuple[BinaryIO, int, list[int]]:
        self.kind, file = kind, self.path.open("wb")
        header = {"descr": kind.str, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file, file.tell(), []

    def append(self, row: np.ndarray) -> None:
        kind = np.promote_types(self.kind, row.dtype)
        if kind != self.kind:
            self._widen(kind)
        content = row.astype(kind, copy=False).tobytes()
        self.sums.append(zlib.crc32(content))
        self.file.write(content)

    def _widen(self, kind: np.dtype) -> None:
        """Copy the rows so far into a file of a wider type."""
        self.file.close()
        old = _partial(self.path)
        os.replace(self.path, old)
        narrow, start, size = self.kind, self.start, int(np.prod(self.shape[1:]))
        self.file, self.start, self.sums = self._started(kind)
        with old.open("rb") as rows:
            rows.seek(start)
            while len(row := np.fromfile(rows, narrow, size)):
                self.append(row)
        old.unlink()
