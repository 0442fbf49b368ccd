"""Readers of event recordings: every format ends in the same structured array, checked before it is returned.

| ending | format | used by |
|---|---|---|
| `.bin` | 5-byte records of the ATIS camera | N-MNIST, N-Caltech101 |
| `.aedat` | AEDAT 2.0 of jAER, 128 x 128 DVS | CIFAR10-DVS (official files) |
| `.aedat4` | AEDAT4 container of DV, in `aedat4.py` | CIFAR10-DVS (tonic's files) |
| `.aedat` | AEDAT 3.1, in `aedat3.py`, cut into `Segment`s | DVS128 Gesture (official files) |
| `.npy` | rows x, y, polarity, milliseconds | DVS128 Gesture (tonic's files) |
| `.dat` | Prophesee's DAT, version 2 | N-CARS |
| `.mat` | MATLAB columns ts, x, y, pol | UCF101-DVS, HMDB-DVS |

What an ending doesn't tell (a stretch of a longer file, a format of one set) is said by a `Recording`; those of single
sets stand in `recordings.py`.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from .aedat3 import decode_aedat3
from .aedat4 import decode_aedat4

__all__ = [
    "EVENT",
    "READERS",
    "Recording",
    "Segment",
    "encode_bin",
    "make_events",
    "read_aedat2",
    "read_aedat4",
    "read_bin",
    "read_dat",
    "read_mat",
    "read_npy",
    "read_recording",
]

EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "?")], align=True)
"""One event: time in microseconds, column, row (downwards), polarity (True: brighter)."""

_BIN_OVERFLOW_ROW = 240
_BIN_OVERFLOW_US = 8192
_BIN_LONGEST_US = 1 << 23
_AEDAT2_MAGIC = b"#!AER-DAT2."
_MAT_ROWS = 180


def make_events(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return columns of equal length (N,) as one array of `EVENT`; `t` in microseconds."""
    events = np.empty(len(t), EVENT)
    events["t"], events["x"], events["y"], events["p"] = t, x, y, p
    return events


def read_bin(path: Path) -> np.ndarray:
    """Read 5-byte records: x, y, polarity and 23 bits of time, the most significant bit first.

    A record in row 240 is no event: it says that the clock overflowed, and adds 8192 microseconds to every later one.
    """
    raw = _read(path)
    if len(raw) % 5:
        raise UserError(f"{path}: truncated or foreign; {len(raw)} bytes are no whole 5-byte events, fetch it anew")
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


def read_aedat2(path: Path) -> np.ndarray:
    """Read AEDAT 2.0 of a 128 x 128 DVS: lines of text, then pairs (address, microseconds) of big-endian uint32.

    Both axes and the polarity are turned over, as SpikingJelly and BrainCog's fork of tonic decode CIFAR10-DVS, so that
    published frames are met: x = 127 - bits 14..8, y = 127 - bits 7..1, p = 1 - bit 0.
    """
    raw = _read(path)
    if not raw.startswith(_AEDAT2_MAGIC):
        raise UserError(f"{path}: not an AEDAT 2.0 recording; it doesn't begin with '#!AER-DAT2.', fetch it anew")
    start = 0
    while raw[start : start + 1] == b"#":
        start = raw.find(b"\n", start) + 1
        if start == 0:
            raise UserError(f"{path}: truncated AEDAT 2.0 recording; the heading doesn't end, fetch it anew")
    if (len(raw) - start) % 8:
        raise UserError(f"{path}: truncated AEDAT 2.0 recording; the last event is incomplete, fetch it anew")
    address, t = np.frombuffer(raw, ">u4", offset=start).reshape(-1, 2).astype(np.int64).T
    if (address >> 16).any():
        raise UserError(f"{path}: not a recording of a 128 x 128 DVS; it has addresses of more than 16 bits")
    return make_events(t, 127 - (address >> 8 & 127), 127 - (address >> 1 & 127), 1 - (address & 1))


def read_aedat4(path: Path) -> np.ndarray:
    """Read the first event stream of an AEDAT4 container, as it was stored."""
    try:
        stored = decode_aedat4(_read(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return make_events(stored["t"], stored["x"], stored["y"], stored["on"])


def read_npy(path: Path) -> np.ndarray:
    """Read a plain array (N, 4) of x, y, polarity and time in milliseconds, as tonic cuts DVS128 Gesture."""
    try:
        rows = np.load(path, allow_pickle=False)
    except Exception as error:
        # A damaged heading is parsed as Python, and may ask for any amount of memory.
        raise UserError(f"{path}: not a complete .npy array ({' '.join(str(error).split())}); fetch it anew") from None
    if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "iuf":
        raise UserError(f"{path}: needs numbers (N, 4), x, y, p and milliseconds; got {rows.dtype} {rows.shape}")
    x, y, p, t = rows.T
    return make_events(t.astype(np.int64) * 1000, x, y, p)


def read_dat(path: Path) -> np.ndarray:
    """Read Prophesee's DAT: lines that begin with %, kind and size of the events, then pairs (microseconds, address).

    The address has x in bits 13..0, y in bits 27..14 and the polarity above. Both axes stay as they were stored.
    """
    raw = _read(path)
    start = 0
    while raw[start : start + 1] == b"%":
        start = raw.find(b"\n", start) + 1 or len(raw)
    version = re.search(rb"^% Version (\d+)", raw[:start], re.MULTILINE)
    if not start or (version and version.group(1) != b"2"):
        raise UserError(f"{path}: not a DAT recording of version 2; it doesn't begin with such lines, fetch it anew")
    if (len(raw) - start) % 8 != 2 or raw[start + 1] != 8:
        raise UserError(f"{path}: truncated DAT recording; it doesn't hold whole 8-byte events, fetch it anew")
    t, address = np.frombuffer(raw, "<u4", offset=start + 2).reshape(-1, 2).astype(np.int64).T
    return make_events(t, address & 0x3FFF, address >> 14 & 0x3FFF, address >> 28)


def read_mat(path: Path) -> np.ndarray:
    """Read the columns ts (microseconds), x, y and pol of a MATLAB file; y counts from below: row = 179 - y."""
    from scipy.io import loadmat

    try:
        stored = loadmat(path, variable_names=("ts", "x", "y", "pol"))
        columns = np.stack([np.asarray(stored[name], float).ravel() for name in ("ts", "x", "y", "pol")])
    except Exception as error:
        # scipy lets through whatever a damaged file makes of its parts.
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not a complete MATLAB file of ts, x, y and pol ({reason}); fetch it anew") from None
    whole = np.isfinite(columns).all() and (columns == np.trunc(columns)).all()
    if not whole or (np.abs(columns[1:]) >= 1 << 14).any():
        raise UserError(f"{path}: ts, x, y and pol must be whole numbers, x and y those of pixels; fetch it anew")
    t, x, y, p = columns
    return make_events(t, x, _MAT_ROWS - 1 - y, p > 0)


@dataclass(frozen=True)
class Recording:
    """Stand, where a recording's path is expected, for one whose ending doesn't say all.

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
        return READERS[self.path.suffix](self.path)

    def place(self, events: np.ndarray) -> np.ndarray:
        """Return the checked events where they are to lie on the sensor."""
        return events


@dataclass(frozen=True)
class Segment(Recording):
    """Stand for one stretch of a longer AEDAT 3.1 recording.

    Args:
        start_us: time of its first event, in microseconds.
        end_us: time from which on events belong to it no more.
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
        raw = _read(self.path)
        try:
            return make_events(*decode_aedat3(raw, self.start_us, self.end_us))
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".bin": read_bin,
    ".aedat": read_aedat2,
    ".aedat4": read_aedat4,
    ".npy": read_npy,
    ".dat": read_dat,
    ".mat": read_mat,
}


def read_recording(path: Path | Recording, size: tuple[int, int]) -> np.ndarray:
    """Read a recording by its ending and check it.

    Args:
        path: file of an ending in `READERS`, or a recording that knows how to read itself.
        size: (H, W) of the sensor.

    Returns:
        events (N,) of dtype `EVENT`, N at least 1, times never going backwards.

    Raises:
        UserError: for a file that is missing, foreign, truncated, empty, unsorted or of a larger sensor.
    """
    recording = Recording(path) if isinstance(path, Path) else path
    events = recording.read()
    if not len(events):
        raise UserError(f"{path}: the recording holds no events; fetch it anew or remove it")
    height, width = size
    outside = (events["x"] < 0) | (events["x"] >= width) | (events["y"] < 0) | (events["y"] >= height)
    if outside.any():
        first = events[outside.argmax()]
        raise UserError(
            f"{path}: {int(outside.sum())} of {len(events)} events lie outside of the {width} x {height} sensor, the "
            f"first at x={first['x']}, y={first['y']}; damaged, or a recording of another camera"
        )
    backwards = int((np.diff(events["t"]) < 0).sum())
    if backwards:
        raise UserError(f"{path}: time goes backwards {backwards} times in {len(events)} events; fetch it anew")
    return recording.place(events)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from None
