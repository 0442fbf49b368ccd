"""Recordings of single sets that their ending alone doesn't tell how to read."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...errors import UserError, shown
from ..formats.arrays import npz_arrays
from ..formats.columns import whole_numbers
from ..formats.opening import complete, file_bytes
from ..formats.pickles import Packet, load_npy
from ..formats.tables import read_table
from ..readers import EVENT, Recording, Segment, make_events, read_aedat4

__all__ = ["GIVEN_STEPS", "Character", "GivenSteps", "Pickled", "TopLeft", "read_stretches"]

GIVEN_STEPS = 8
"""Steps of an ES-ImageNet recording; step k is stored as k, from 1, and read as k - 1 milliseconds."""

_ES_FIELD, _ES_MARGIN, _ES_SIDE = 254, 16, 224
_ES_ARRAY = 256
"""Sides of the array in which BrainCog centres the field: nothing of a recording lies to the right or below."""
_CHARACTER_SENSOR = (260, 346)
_CHARACTER_CORNER, _CHARACTER_SIDE = (4, 54), 250
_NAMES = (("timestamp", "x", "y", "polarity"), ("t", "x", "y", "p"))


@dataclass(frozen=True)
class TopLeft(Recording):
    """Stand for a recording that fills a part of the sensor: its first column and row become the sensor's.

    N-Caltech101 and N-CARS differ in size by recording. tonic gives each a field of its own size, which resizing then
    stretches to the same square; SpikingJelly leaves N-Caltech101 where it was stored. Here no recording is stretched.
    """

    def place(self, events: np.ndarray) -> np.ndarray:
        """Shift the events to the top left."""
        events["x"] -= events["x"].min()
        events["y"] -= events["y"].min()
        return events


@dataclass(frozen=True)
class Pickled(Recording):
    """Stand for an `.npy` file of packets (structured arrays), or of one dictionary of columns."""

    def read(self) -> np.ndarray:
        """Read the packets one after the other."""
        packets = load_npy(self.path)
        try:
            parts = [_columns_of(packet) for packet in packets]
        except (KeyError, ValueError) as error:
            raise UserError(f"needs packets of timestamp, x, y and polarity ({shown(error, 120)})") from error
        if not parts:
            return np.empty(0, EVENT)
        return make_events(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _columns_of(packet: Packet) -> list[np.ndarray]:
    known = packet.keys() if isinstance(packet, dict) else packet.dtype.names
    if known is None:
        raise ValueError(f"got {packet.dtype} {packet.shape}")
    names = _NAMES[0] if "timestamp" in known else _NAMES[1]
    columns = [np.asarray(packet[name]).ravel() for name in names]
    if len({len(column) for column in columns}) != 1:
        raise ValueError("they are not equally many")
    return columns


@dataclass(frozen=True)
class GivenSteps(Recording):
    """Stand for an `.npz` file of ES-ImageNet: ON and OFF events as rows (row, column, step from 1 to 8).

    The picture is centred on a field of 254 and the 224 x 224 pixels from 16 on are kept, as BrainCog has it; an event
    that is stored twice counts once.

    Args:
        tall: rows of the picture.
        wide: columns of the picture.

    Source: Lin et al., ES-ImageNet (Frontiers in Neuroscience 2021).
    """

    tall: int
    wide: int

    @property
    def name(self) -> str:
        """Name it with the size of the picture, on which the place of its events depends."""
        return f"{self.path.name}[{self.tall}x{self.wide}]"

    def read(self) -> np.ndarray:
        """Read the events, sorted by step; a step is a millisecond."""
        with complete(".npz of pos and neg"):
            parts = npz_arrays(file_bytes(self.path), ("neg", "pos"))
        if any(part.ndim != 2 or part.shape[1] != 3 or part.dtype.kind not in "iuf" for part in parts):
            raise UserError("pos and neg need rows of three numbers; fetch it anew")
        p = np.repeat([0, 1], [len(part) for part in parts])
        limit = np.iinfo(np.int32)
        rows = [whole_numbers("pos and neg", part, limit.min, limit.max) for part in parts]
        y, x, step = np.concatenate(rows).T
        if len(step) and (step.min() < 1 or step.max() > GIVEN_STEPS or min(y.min(), x.min()) < 0):
            raise UserError(f"needs steps from 1 to {GIVEN_STEPS} and no negative places; fetch it anew")
        y += (_ES_FIELD - self.tall) // 2 - _ES_MARGIN
        x += (_ES_FIELD - self.wide) // 2 - _ES_MARGIN
        if len(step) and max(y.max(), x.max()) >= _ES_ARRAY - _ES_MARGIN:
            raise UserError(f"has places outside of a picture of {self.tall} x {self.wide}; fetch it anew")
        rows = np.unique(np.stack([step - 1, y, x, p], 1), axis=0)
        t, y, x, p = rows[_inside(rows[:, 2], rows[:, 1], (_ES_SIDE, _ES_SIDE))].T
        return make_events(t * 1000, x, y, p)


@dataclass(frozen=True)
class Character(Segment):
    """Stand for one of the twenty drawings in an N-Omniglot recording, cropped to the 250 x 250 pixels of the screen.

    Args:
        start_us: time of its first event, in microseconds.
        end_us: time of the first event that belongs to it no more.
    """

    start_us: int = 0
    end_us: int = 0

    __str__ = Recording.__str__

    def read(self) -> np.ndarray:
        """Read the drawing."""
        if self.path.suffix.lower() == ".npy":  # one drawing, as BrainCog's reader cut it
            return _cropped(Pickled(self.path).read())
        stat = self.stat()
        events = _whole(self.path, stat.st_mtime_ns, stat.st_size)
        start, end = np.searchsorted(events["t"], (self.start_us, self.end_us))
        return _cropped(events[start:end])


@lru_cache(maxsize=1)
def _whole(path: Path, changed_ns: int, size: int) -> np.ndarray:
    """Decode a recording once for the drawings in it, which are asked for one after the other."""
    del changed_ns, size  # parts of the key: a file that was written anew is read anew
    events = read_aedat4(path)
    if (np.diff(events["t"]) < 0).any():
        raise UserError("time goes backwards, so that the drawings in it can't be told apart; fetch it anew")
    return events


def _cropped(events: np.ndarray) -> np.ndarray:
    height, width = _CHARACTER_SENSOR
    if not _inside(events["x"], events["y"], _CHARACTER_SENSOR).all():
        raise UserError(f"has events outside of the {width} x {height} sensor; a recording of another camera")
    top, left = _CHARACTER_CORNER
    events = make_events(events["t"], events["x"] - left, events["y"] - top, events["p"])
    return events[_inside(events["x"], events["y"], (_CHARACTER_SIDE, _CHARACTER_SIDE))]


def _inside(x: np.ndarray, y: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return (x >= 0) & (y >= 0) & (x < size[1]) & (y < size[0])


def read_stretches(path: Path) -> list[tuple[int, int]]:
    """Return start and end in microseconds of the drawings that an N-Omniglot table names, in its order.

    Raises:
        UserError: for a table that can't be read.
    """
    rows = read_table(path, "rows of number, start and end")
    if any(start >= end for _, start, end in rows):
        raise UserError(f"{path}: needs rows of number, start and a later end; fetch it anew")
    return [(start, end) for _, start, end in rows]
