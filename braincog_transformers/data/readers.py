"""Readers of event recordings: every format ends in the same structured array, checked before it is returned.

| ending | format | used by |
|---|---|---|
| `.bin` | 5-byte records of the ATIS camera | N-MNIST, N-Caltech101 |
| `.aedat` | AEDAT 2.0 of jAER, 128 x 128 DVS | CIFAR10-DVS (official files) |
| `.aedat4` | AEDAT4 container of DV, in `aedat4.py` | CIFAR10-DVS (tonic's files) |
| `.aedat` | AEDAT 3.1, in `aedat3.py`, cut into `Segment`s | DVS128 Gesture (official files) |
| `.npy` | rows x, y, polarity, milliseconds | DVS128 Gesture (tonic's files) |
| `.dat` | Prophesee's DAT, version 2 | N-CARS, Gen1 |
| `.mat` | MATLAB columns ts, x, y, pol | UCF101-DVS, HMDB-DVS |

Where an ending doesn't say it all (a stretch of a longer file, a format of one set), a class derived from `Recording`
does; those of single sets are in `events/recordings.py`.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import UserError
from .formats.aedat3 import decode_aedat3
from .formats.aedat4 import decode_aedat4
from .formats.arrays import npy_array
from .formats.columns import LATEST_US, check_clock, inside, make_events, whole_numbers
from .formats.mat5 import mat_columns
from .formats.opening import after_lines, complete, file_bytes, named

__all__ = ["READERS", "DatStretch", "Recording", "Segment", "dat_start", "encode_bin", "make_events", "read_recording"]

_BIN_OVERFLOW_ROW = 240
_BIN_OVERFLOW_US = 8192
_BIN_LONGEST_US = 1 << 23
_AEDAT2_MAGIC = b"#!AER-DAT2."
_AEDAT2_SPECIAL = 1 << 31 | 1 << 15
_DAT_KINDS = (0, 12)
_DAT_HEAD = 1 << 16
"""Bytes that are enough for the lines of text in front of the events."""
_MAT_ROWS = 180
_ANY_PIXEL = 1 << 15


READERS: dict[str, Callable[[Path], np.ndarray]] = {}
"""Readers by the ending of their files."""


def _reader(ending: str) -> Callable[[Callable[[bytes], np.ndarray]], Callable[[Path], np.ndarray]]:
    """Turn a function of a file's bytes into a reader of such files, whose errors are one line with the file."""

    def entered(decode: Callable[[bytes], np.ndarray]) -> Callable[[Path], np.ndarray]:
        @wraps(decode)
        def read(path: Path) -> np.ndarray:
            with named(path):
                return decode(file_bytes(path))

        READERS[ending] = read
        return read

    return entered


@_reader(".bin")
def read_bin(raw: bytes) -> np.ndarray:
    """Read 5-byte records: x, y, polarity and 23 bits of time, the most significant bit first.

    A record in row 240 is no event but an overflow of the clock: it adds 8192 microseconds to every later one.
    """
    if len(raw) % 5:
        raise UserError(f"truncated or foreign; {len(raw)} bytes are no whole 5-byte events, fetch it anew")
    x, y, high, middle, low = np.frombuffer(raw, np.uint8).reshape(-1, 5).astype(np.int64).T
    overflow = y == _BIN_OVERFLOW_ROW
    t = ((high & 127) << 16 | middle << 8 | low) + _BIN_OVERFLOW_US * np.cumsum(overflow)
    keep = ~overflow
    return make_events(t[keep], x[keep], y[keep], high[keep] >> 7)


def encode_bin(events: np.ndarray) -> bytes:
    """Return the bytes of a `.bin` recording shorter than 8.39 s, the format that `read_bin` reads.

    Raises:
        ValueError: for an event that the format cannot hold.
    """
    t = events["t"].astype(np.int64)
    if len(events) and (t.min() < 0 or t.max() >= _BIN_LONGEST_US or events["y"].max() >= _BIN_OVERFLOW_ROW):
        raise ValueError(".bin recordings hold times from 0 to 8388607 us and rows from 0 to 239")
    records = np.empty((len(events), 5), np.uint8)
    records[:, 0], records[:, 1] = events["x"], events["y"]
    records[:, 2] = t >> 16 | events["p"].astype(np.int64) << 7
    records[:, 3], records[:, 4] = t >> 8 & 255, t & 255
    return records.tobytes()


@_reader(".aedat")
def read_aedat2(raw: bytes) -> np.ndarray:
    """Read AEDAT 2.0 of a 128 x 128 DVS: lines of text, then pairs (address, microseconds) of big-endian uint32.

    Both axes and the polarity are turned over, as SpikingJelly and BrainCog's fork of tonic decode CIFAR10-DVS, so that
    published frames are met: x = 127 - bits 14..8, y = 127 - bits 7..1, p = 1 - bit 0. An address with bit 15 or 31 is
    that of a special event (a trigger, a reset of the clock), which no pixel sent.
    """
    if not raw.startswith(_AEDAT2_MAGIC):
        raise UserError("not an AEDAT 2.0 recording; it doesn't begin with '#!AER-DAT2.', fetch it anew")
    start = after_lines(raw, b"#")
    if raw[start - 1 : start] != b"\n":
        raise UserError("truncated AEDAT 2.0 recording; the heading doesn't end, fetch it anew")
    if (len(raw) - start) % 8:
        raise UserError("truncated AEDAT 2.0 recording; the last event is incomplete, fetch it anew")
    address, t = np.frombuffer(raw, ">u4", offset=start).reshape(-1, 2).astype(np.int64).T
    sent = address & _AEDAT2_SPECIAL == 0
    address, t = address[sent], t[sent]
    if (address >> 16).any():
        raise UserError("not a recording of a 128 x 128 DVS; it has addresses of more than 16 bits")
    return make_events(t, 127 - (address >> 8 & 127), 127 - (address >> 1 & 127), 1 - (address & 1))


@_reader(".aedat4")
def read_aedat4(raw: bytes) -> np.ndarray:
    """Read the first event stream of an AEDAT4 container, as it was stored."""
    return make_events(*decode_aedat4(raw))


@_reader(".npy")
def read_npy(raw: bytes) -> np.ndarray:
    """Read an array (N, 4) of x, y, polarity and time in milliseconds, as tonic cuts DVS128 Gesture.

    Times are kept to the microsecond, in an array of any type.
    """
    rows = npy_array(raw)
    if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "iuf":
        raise UserError(f"needs numbers (N, 4), x, y, p and milliseconds; got {str(rows.dtype)[:60]} {rows.shape}")
    x, y, p, t = rows.T
    if rows.dtype.kind == "f":
        t = np.rint(t.astype(np.float64) * 1000)
    else:
        t = whole_numbers("t", t, -LATEST_US // 1000, LATEST_US // 1000, kind="milliseconds") * 1000
    return make_events(t, x, y, p)


@_reader(".dat")
def read_dat(raw: bytes) -> np.ndarray:
    """Read Prophesee's DAT: lines that begin with %, kind and size of the events, then pairs (microseconds, address).

    The address has x in bits 13..0, y in bits 27..14 and the polarity above. Both axes stay as they were stored.
    """
    return _dat_events(raw, dat_start(raw, len(raw)))


def _dat_events(raw: bytes, start: int) -> np.ndarray:
    t, address = np.frombuffer(raw, "<u4", offset=start).reshape(-1, 2).astype(np.int64).T
    return make_events(t, address & 0x3FFF, address >> 14 & 0x3FFF, address >> 28)


def dat_start(head: bytes, size: int) -> int:
    """Return where the events of a DAT recording begin.

    Args:
        head: the first bytes of the file, or all of them.
        size: of the file in bytes.

    Raises:
        UserError: for another format, or a size that holds no whole events.
    """
    start = after_lines(head, b"%")
    version = re.search(rb"^% Version (\d+)", head[:start], re.MULTILINE)
    if not start or (version and version.group(1) != b"2"):
        raise UserError("not a DAT recording of version 2; it doesn't begin with such lines, fetch it anew")
    if len(head) < start + 2 or (size - start) % 8 != 2 or head[start + 1] != 8:
        raise UserError("truncated DAT recording; it doesn't hold whole 8-byte events, fetch it anew")
    if head[start] not in _DAT_KINDS:
        raise UserError(f"not a DAT recording of pixels; its events are of kind {head[start]}, not 0 or 12")
    return start + 2


@_reader(".mat")
def read_mat(raw: bytes) -> np.ndarray:
    """Read the columns ts (microseconds), x, y and pol of a MATLAB file; y counts from below: row = 179 - y."""
    with complete("MATLAB file of ts, x, y and pol"):
        t, x, y, p = mat_columns(raw, ("ts", "x", "y", "pol"))
        if len({len(column) for column in (t, x, y, p)}) != 1:
            raise ValueError("they are not equally many")
    y = whole_numbers("y", y, -_ANY_PIXEL, _ANY_PIXEL - 1, kind="pixels")
    return make_events(t, x, _MAT_ROWS - 1 - y, p)


@dataclass(frozen=True)
class Recording:
    """Take the place of a recording's path; a derived class says what its ending doesn't.

    Args:
        path: of the file.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Name it, and everything that its events depend on besides the file."""
        return self.path.name

    @property
    def parent(self) -> Path:
        """The recording's folder."""
        return self.path.parent

    def stat(self) -> os.stat_result:
        """Return the recording's size and time of change."""
        return self.path.stat()

    def read(self) -> np.ndarray:
        """Read the events, (N,) of dtype `EVENT`, not checked yet."""
        ending = self.path.suffix.lower()
        if ending not in READERS:
            raise UserError(f"its ending is none of {', '.join(READERS)}; rename it")
        return READERS[ending](self.path)

    def place(self, events: np.ndarray) -> np.ndarray:
        """Return the checked events, moved to their place on the sensor."""
        return events


@dataclass(frozen=True)
class Segment(Recording):
    """Describe one stretch of a longer AEDAT 3.1 recording.

    Args:
        start_us: time in microseconds from which on events belong to it.
        end_us: time of its end, at which an event belongs to it no more.
    """

    start_us: int
    end_us: int

    def __str__(self) -> str:
        return f"{self.path} from {self.start_us} to {self.end_us} us"

    @property
    def name(self) -> str:
        """Name it apart from the other stretches of its recording."""
        return f"{self.path.name}[{self.start_us}:{self.end_us}]"

    def read(self) -> np.ndarray:
        """Read the stretch."""
        stat = self.stat()
        events = _decoded(self.path, self.decode, stat.st_mtime_ns, stat.st_size)
        start, end = np.searchsorted(events["t"], (self.start_us, self.end_us))
        return events[start:end].copy()

    @staticmethod
    def decode(raw: bytes) -> np.ndarray:
        """Return all events of the file; it is refused as a whole if its clock goes backwards anywhere."""
        events = make_events(*decode_aedat3(raw))
        check_clock(events["t"])
        return events


@dataclass(frozen=True)
class DatStretch(Recording):
    """Describe one stretch of a longer DAT recording; only its bytes are read.

    Args:
        start_us: time in microseconds from which on events belong to it.
        end_us: time of its end, at which an event belongs to it no more.
    """

    start_us: int
    end_us: int

    __str__, name = Segment.__str__, Segment.name

    def read(self) -> np.ndarray:
        """Read the stretch, which may be empty; its place is found by bisection, so the clock must not go backwards."""
        size = self.stat().st_size
        with open(self.path, "rb") as file:
            start = dat_start(file.read(_DAT_HEAD), size)
            low, high = (_first_at(file, start, (size - start) // 8, time) for time in (self.start_us, self.end_us))
            file.seek(start + 8 * low)
            return _dat_events(file.read(8 * max(0, high - low)), 0)

    def events(self, size: tuple[int, int]) -> np.ndarray:
        """Return the checked events (N,), none where nothing happened.

        Args:
            size: (H, W) of the sensor.

        Raises:
            UserError: one line with the file, as `read_recording`; for times that are not those of the stretch, too.
        """
        with named(self):
            events = self.read()
            if len(events):
                _check(events, size)
                if events["t"][0] < self.start_us or events["t"][-1] >= self.end_us:
                    raise UserError("time goes backwards in it, so that a stretch can't be found; fetch it anew")
        return events


def _first_at(file: BinaryIO, start: int, count: int, time: int) -> int:
    """Return the number of the first event of a DAT file at a time or later, by bisection."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        file.seek(start + 8 * middle)
        if int.from_bytes(file.read(4), "little") < time:
            low = middle + 1
        else:
            high = middle
    return low


@lru_cache(maxsize=1)
def _decoded(path: Path, decode: Callable[[bytes], np.ndarray], changed_ns: int, size: int) -> np.ndarray:
    """Decode a recording once for all stretches of it, which are asked for one after the other."""
    del changed_ns, size  # parts of the key: a file that was written anew is read anew
    return decode(file_bytes(path))


def read_recording(path: Path | Recording, size: tuple[int, int]) -> np.ndarray:
    """Read a recording by its ending and check it.

    Args:
        path: file of an ending in `READERS`, or a recording that knows how to read itself.
        size: (H, W) of the sensor.

    Returns:
        events (N,) of dtype `EVENT`, N at least 1, times never going backwards.

    Raises:
        UserError: one line with the file, for one that is missing, foreign, truncated, empty, unsorted, of a larger
            sensor, or has numbers that are not whole, not finite or out of range.
    """
    recording = Recording(path) if isinstance(path, Path) else path
    with named(path):
        events = recording.read()
        _check(events, size)
    return recording.place(events)


def _check(events: np.ndarray, size: tuple[int, int]) -> None:
    if not len(events):
        raise UserError("the recording holds no events; fetch it anew or remove it")
    outside = ~inside(events["x"], events["y"], size)
    if outside.any():
        height, width = size
        first = events[outside.argmax()]
        raise UserError(
            f"{int(outside.sum())} of {len(events)} events are outside of the {width} x {height} sensor, the first at "
            f"x={first['x']}, y={first['y']}; damaged, or a recording of another camera"
        )
    check_clock(events["t"])
