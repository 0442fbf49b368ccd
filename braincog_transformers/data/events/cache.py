"""Frames kept on disk after resizing: one memory-mapped .npy file per split, which can't be served stale.

The file's name is the SHA-256 of everything that its content depends on: the files with their sizes and times of
change, the sensor, every rule of the frames and the version of the format. Beside it lies a list of the recordings that
could not be read, and a sum of each sample, with which it is compared when it is served. Both are written under
temporary names and renamed when complete, under a lock, so that several processes may ask for them at once and one of
them builds. Rows are appended with plain writes: a mapped file would end the process without a word where the disk is
full.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from numpy.lib.format import dtype_to_descr, read_array_header_1_0, read_magic, write_array_header_1_0

from ...errors import UserError
from ..loading.reading import Damaged, read_all
from ..readers import Segment, read_recording
from ..settings import Rule, choices, option
from .frames import (
    count_factor,
    event_channels,
    events_to_frames,
    normalize_frames,
    resize_counts,
    time_surfaces,
    voxel_grid,
)

__all__ = ["CachedFrames", "FrameRule", "cache_key", "cached_frames", "damaged_in", "writing_folder"]

_FORMAT_VERSION = 2
_DTYPES = (np.uint8, np.uint16, np.float32)
_PARTIAL = ".partial"


@dataclass(frozen=True, kw_only=True)
class FrameRule(Rule):
    """Say how a recording becomes frames; every field is part of the cache's key.

    Args:
        sensor: (H, W) of the camera; `build_datasets` fills in the set's.
        size: (H, W) of the frames; by default the set's.
        steps: T, frames per recording.
        kind: `count`, `voxel` or `surface`, see `frames.events_to_frames`, `voxel_grid` and `time_surfaces`.
        by: see `frames.events_to_frames`; for counts.
        remainder: the same.
        clip: largest count of a pixel of the sensor, before resizing; 1 makes binary frames.
        merge: take both polarities as one; for counts and surfaces.
        tau_us: time constant of surfaces.
        resize: see `frames.resize_counts`.
        norm: see `frames.normalize_frames`; comes last.
    """

    sensor: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    steps: int = option("step", default=4)
    kind: str = option("frames", kind="kind of --frames")
    by: str = option("frames_by", choices=(*choices("frames_by"), "given"), kind="rule of --frames-by")
    remainder: str = option("remainder", kind="rule of --remainder")
    clip: int | None = option("clip_counts")
    merge: bool = option("merge_polarity")
    tau_us: float = option("surface_tau", unit=" microseconds")
    resize: str = option("event_resize", "resize", kind="resizing of events")
    norm: str = option("frame_norm", kind="rule of --frame-norm")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, P, H, W) of a sample."""
        return (self.steps, event_channels(self.kind, merge=self.merge), *self.size)

    @property
    def factor(self) -> int | None:
        """Number by which the frames become whole counts, None where there is none."""
        return count_factor(self.sensor, self.size, self.resize) if self.kind == "count" else None

    def __call__(self, path: Path | Segment) -> np.ndarray:
        """Read a recording and return its frames (T, P, H, W) float32."""
        return normalize_frames(self._frames(path), self.norm)

    def pack(self, path: Path | Segment) -> np.ndarray:
        """Read a recording and return its frames as they are stored: whole counts in the narrowest type, or float32."""
        frames = self._frames(path)
        if not self.factor:
            return frames
        counts = np.rint(frames * self.factor)  # a 25th, times 25, may be a little less than 1
        most = counts.max()
        return counts.astype(next(kind for kind in _DTYPES if kind is np.float32 or most <= np.iinfo(kind).max))

    def unpack(self, stored: np.ndarray) -> np.ndarray:
        """Return the frames of `pack`'s result."""
        return normalize_frames(stored.astype(np.float32) / np.float32(self.factor or 1), self.norm)

    def _frames(self, path: Path | Segment) -> np.ndarray:
        events = read_recording(path, self.sensor)
        if self.kind == "voxel":
            frames = voxel_grid(events, self.steps, self.sensor)
        elif self.kind == "surface":
            frames = time_surfaces(events, self.steps, self.sensor, tau_us=self.tau_us, merge=self.merge)
        else:
            cut = {"by": self.by, "remainder": self.remainder, "merge": self.merge}
            frames = events_to_frames(events, self.steps, self.sensor, **cut)
        if not frames.any():
            rule = "last" if self.remainder == "drop" else self.remainder
            raise UserError(f"{path}: no event is left in its frames; use fewer steps, or --remainder {rule}")
        if self.clip:
            np.minimum(frames, self.clip, out=frames)
        return resize_counts(frames, self.size, self.resize)


def cache_key(name: str, files: Sequence[Path | Segment], rule: FrameRule) -> str:
    """Return the SHA-256 of the files' places, sizes and times of change, and of the rule."""
    folders = {folder: str(folder.resolve()) for folder in {path.parent for path in files}}
    listing = [(folders[path.parent], path.name, *_state(path)) for path in files]
    content = {"format": _FORMAT_VERSION, "set": name, "rule": asdict(rule), "files": listing}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def cached_frames(
    folder: Path,
    name: str,
    files: Sequence[Path | Segment],
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
        skip_bad: leave zeros in the place of a recording that can't be read; `damaged_in` tells which.

    Returns:
        an .npy file (N, T, P, H, W): what `rule.pack` gives of each recording, in uint8, uint16 or float32.

    Raises:
        UserError: for a folder that can't be written, or, without `skip_bad`, the first recording that can't be read.
    """
    key = cache_key(name, files, rule)
    target = folder / f"{name}-{key}.npy"
    shape = (len(files), *rule.shape)
    with writing_folder(folder):
        if not _complete(target, shape):
            with FileLock(folder / ".lock"):
                if not _complete(target, shape):
                    _clear(folder)
                    reading = read_all(rule.pack, files, workers=workers, title=f"frames of {name}")
                    with closing(reading) as packed:
                        _build(target, shape, packed, skip_bad=skip_bad)
                    if cache_key(name, files, rule) != key:
                        target.unlink()
                        raise UserError(f"recordings of {name} changed while they were read; start again")
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
        path: of the .npy file; one of an earlier version, without sums, is served unseen.

    Raises:
        OSError, ValueError: for a file that can't be read any more.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, np.load(path, mmap_mode="r")
        self.sums = _beside(path)[1]

    def __getitem__(self, place: int) -> np.ndarray:
        row = self.rows[place]
        if self.sums and zlib.crc32(row) != self.sums[place]:
            raise UserError(f"{self.path}: the cached frames of sample {place} are damaged; remove this file")
        return row


@contextmanager
def writing_folder(folder: Path, *, needed: bool = False) -> Iterator[None]:
    """Make a folder of the cache, and turn a failure to write there into one line with the remedy.

    Args:
        folder: to be made.
        needed: whether --no-cache would not help, because what is written is the data set itself.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if isinstance(error, UserError):
            raise
        reason = error.strerror or error
        way_out = "" if needed else ", or use --no-cache"
        raise UserError(
            f"the cache {folder} can't be written ({reason}); name another with --cache-dir{way_out}"
        ) from None


def _beside(target: Path) -> tuple[list, list[int]]:
    """Return the list beside a file of frames: what was damaged, and a sum of each row, or none of an older version."""
    stored = json.loads(_list(target).read_text(encoding="utf-8"))
    return (stored["damaged"], stored["sums"]) if isinstance(stored, dict) else (stored, [])


def _state(path: Path | Segment) -> tuple[int, int]:
    """Return size and time of change, or a sign for a file that isn't there, which its reader will name."""
    try:
        stat = path.stat()
    except (OSError, ValueError):  # the latter for a name with a zero byte
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _complete(target: Path, shape: tuple[int, ...]) -> bool:
    try:
        damaged_in(target)
        if len(_beside(target)[1]) not in (0, shape[0]):
            return False
        # A file that was cut short fails here: its mapping would be longer than the file.
        stored = np.load(target, mmap_mode="r")
        return stored.shape == shape and stored.dtype in _DTYPES and stored.flags.c_contiguous
    except Exception:  # whatever a damaged heading or list leads to, both are written anew
        return False


def _clear(folder: Path) -> None:
    """Remove what this build, or a process that was killed, left behind; only whoever holds the lock may do so."""
    for abandoned in folder.glob(f".*{_PARTIAL}"):
        abandoned.unlink()


def _build(target: Path, shape: tuple[int, ...], packed: Iterable[np.ndarray | Damaged], *, skip_bad: bool) -> None:
    frames_beside, list_beside = _partial(target), _partial(_list(target))
    damaged = []
    rows = _Rows(frames_beside, shape)
    try:
        for place, frames in enumerate(packed):
            if isinstance(frames, Damaged):
                if not skip_bad:
                    raise frames.error()
                damaged.append((place, frames.text))
                frames = np.zeros(shape[1:], np.uint8)
            rows.append(frames)
        rows.close()
        list_beside.write_text(json.dumps({"damaged": damaged, "sums": rows.sums}), encoding="utf-8")
        os.replace(list_beside, _list(target))
        os.replace(frames_beside, target)
    finally:
        rows.abandon()
        _clear(target.parent)


class _Rows:
    """Write an .npy file row by row, in the narrowest type that holds all rows so far, and keep a sum of each.

    Args:
        path: of the file.
        shape: of the complete array.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.kind, self.sums = np.dtype(_DTYPES[0]), []
        self.file = self._start(path)

    def append(self, row: np.ndarray) -> None:
        kind = np.promote_types(self.kind, row.dtype)
        if kind != self.kind:
            self._widen(kind)
        self._write(row.astype(self.kind, copy=False).tobytes())

    def _write(self, row: bytes) -> None:
        self.sums.append(zlib.crc32(row))
        self.file.write(row)

    def close(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    def abandon(self) -> None:
        """Close without a word: where the disk is full, what is left in the buffer can't be written either."""
        with suppress(OSError):
            self.file.close()

    def _start(self, path: Path) -> BinaryIO:
        file = path.open("wb")
        header = {"descr": dtype_to_descr(self.kind), "fortran_order": False, "shape": self.shape}
        write_array_header_1_0(file, header)
        return file

    def _widen(self, kind: np.dtype) -> None:
        """Copy the rows so far into a file of a wider type."""
        self.file.close()
        old = self.path.with_name(self.path.name.removesuffix(_PARTIAL) + "-narrow" + _PARTIAL)
        os.replace(self.path, old)
        narrow, self.kind = self.kind, kind
        self.file, self.sums = self._start(self.path), []
        with old.open("rb") as rows:
            read_magic(rows)
            read_array_header_1_0(rows)
            while row := rows.read(int(np.prod(self.shape[1:])) * narrow.itemsize):
                self._write(np.frombuffer(row, narrow).astype(kind).tobytes())
        old.unlink()


def _list(target: Path) -> Path:
    return target.with_suffix(".damaged.json")


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name[:40]}-{os.getpid()}-{os.urandom(4).hex()}{_PARTIAL}")
