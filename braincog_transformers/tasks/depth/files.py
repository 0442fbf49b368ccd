"""The files of spike cameras: spike tensors and depth maps (`.npy`), lists of times, and raw streams (`.dat`).

A raw stream is one frame after the other, a bit for each pixel, row by row, the lowest bit of a byte first and the
lowest row of the picture first: what the reader and writer of SpikeCV (spikecv/spikecv, spkData/load_dat.py and
save_dat.py, with `flipud`) have for the camera of 250x400 pixels.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data.formats.arrays import npy_array, npy_heading
from ...data.formats.opening import file_bytes, named
from ...data.formats.text import read_lines
from ...errors import UserError, shown

__all__ = ["Stream", "array_shape", "pack_frames", "read_depth", "read_spikes", "read_times"]

_HEADING = 1 << 16


def array_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of a `.npy` file, from its heading alone.

    Raises:
        UserError: for a file that is missing or no such array.
    """
    with named(path), path.open("rb") as file:
        return npy_heading(file.read(_HEADING))[0]


def read_spikes(path: Path, *, normalize: bool = False) -> np.ndarray:
    """Return spikes `(C, H, W)` as float32.

    Args:
        path: a `.npy` file of whole numbers, booleans or floating point.
        normalize: accept other values than 0 and 1, and bring those that are not 0 to mean 0 and deviation 1, unless
            all are the same; what the official loader does.

    Raises:
        UserError: for a file that is missing, damaged, of another type, or holds other values.
    """
    with named(path):
        spikes = npy_array(file_bytes(path))
        if spikes.ndim != 3 or not spikes.size:
            raise UserError(f"spikes are (frames, rows, columns), none of them 0; this has the shape {spikes.shape}")
        if spikes.dtype.kind not in "buif":
            raise UserError(f"spikes are 0 and 1, as booleans or numbers; this holds {spikes.dtype}")
        if not normalize:
            if not ((spikes == 0) | (spikes == 1)).all():
                raise UserError("holds other values than 0 and 1; --task-kwargs normalize=true reads counts")
            return spikes.astype(np.float32)
        spikes = spikes.astype(np.float32)
        if not np.isfinite(spikes).all():
            raise UserError("holds spikes that are infinite or not a number")
        fired = spikes != 0
        if fired.any() and (deviation := spikes[fired].std()) > 0:
            spikes[fired] = (spikes[fired] - spikes[fired].mean()) / deviation
        return spikes


def read_depth(path: Path) -> np.ndarray:
    """Return a depth map `(H, W)` in metres as float32, NaN where it is not known.

    Args:
        path: a `.npy` file of floating point, `(H, W)` or `(H, W, 1)`.

    Raises:
        UserError: for a file that is missing, damaged, of another type, holds a depth below 0, or none at all.
    """
    with named(path):
        depth = npy_array(file_bytes(path))
        if depth.ndim == 3 and depth.shape[2] == 1:
            depth = depth[..., 0]
        if depth.ndim != 2 or not depth.size:
            raise UserError(f"a depth map is (rows, columns), neither of them 0; this has the shape {depth.shape}")
        if depth.dtype.kind != "f":
            raise UserError(f"depth is in metres as floating point, NaN where not known; this holds {depth.dtype}")
        depth = depth.astype(np.float32)
        if np.isnan(depth).all():
            raise UserError("no depth is known, all of it is NaN; leave this frame out of both lists of times")
        if np.nanmin(depth) < 0:
            raise UserError(f"holds a depth of {np.nanmin(depth):g} m; what is not known is NaN")
        return depth


def read_times(path: Path) -> np.ndarray:
    """Return the times of numbered files in seconds: the second column of a list of number and time.

    Raises:
        UserError: for a file that is missing, is no such list, or whose times don't grow.
    """
    rows = [line.split("#")[0].replace(",", " ").split() for line in read_lines(path)]
    rows = [row for row in rows if row]
    try:
        times = np.array([float(row[1]) for row in rows])
    except (IndexError, ValueError):
        times = np.array([np.nan])
    wrong = next((row for row in rows if len(row) < 2 or not _is_number(row[1])), None)
    if not rows or wrong is not None:
        got = "it is empty" if wrong is None else f"got {shown(' '.join(wrong), 60)!r}"
        raise UserError(f"{path}: needs lines of number and time in seconds; {got}")
    if (np.diff(times) <= 0).any():
        place = int((np.diff(times) <= 0).argmax()) + 1
        raise UserError(f"{path}: times have to grow; that of row {place + 1}, {times[place]:g}, does not")
    return times


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@dataclass(frozen=True)
class Stream:
    """A raw stream of a spike camera.

    Args:
        path: of the `.dat` file.
        height, width: of a frame in pixels, a multiple of 8 together.
        name: by which predictions are filed.
    """

    path: Path
    height: int
    width: int
    name: str

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return self.height * self.width // 8

    def count(self) -> int:
        """Return the number of frames.

        Raises:
            UserError: for a file that is missing, empty, or no whole number of frames.
        """
        with named(self.path):
            size = self.path.stat().st_size
            if not self.path.is_file():
                raise UserError("can't be read (it is no file)")
            if not size or size % self.frame_bytes:
                raise UserError(
                    f"{size:,} bytes are no whole number of frames of {self.height}x{self.width} pixels, "
                    f"{self.frame_bytes:,} bytes each; fetch it anew, or give --task-kwargs height=H width=W"
                )
        return size // self.frame_bytes

    def read(self, start: int, frames: int) -> np.ndarray:
        """Return frames `(frames, H, W)` from number `start` on, as float32.

        Raises:
            UserError: for a file that ends before.
        """
        with named(self.path), self.path.open("rb") as file:
            file.seek(start * self.frame_bytes)
            raw = file.read(frames * self.frame_bytes)
            if len(raw) < frames * self.frame_bytes:
                raise UserError(f"ends before frame {start + frames}; fetch it anew")
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        return bits.reshape(frames, self.height, self.width)[:, ::-1].astype(np.float32)


def pack_frames(frames: np.ndarray) -> bytes:
    """Return frames `(T, H, W)` of 0 and 1 as the bytes of a raw stream, which `Stream` reads back."""
    return np.packbits(frames[:, ::-1].astype(np.uint8).reshape(len(frames), -1), axis=1, bitorder="little").tobytes()
