"""Recordings of single sets that their ending alone doesn't tell how to read."""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..errors import UserError
from .pickles import load_npy
from .readers import EVENT, Recording, make_events, read_aedat4

__all__ = ["GIVEN_STEPS", "Character", "GivenSteps", "Pickled", "TopLeft", "read_stretches"]

GIVEN_STEPS = 8
"""Steps of an ES-ImageNet recording; step k is stored as k, from 1, and read as k - 1 milliseconds."""

_ES_FIELD, _ES_MARGIN, _ES_SIDE = 254, 16, 224
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
        stored = load_npy(self.path)
        packets = list(stored.ravel()) if stored.dtype.hasobject and not stored.dtype.names else [stored]
        try:
            parts = [_events_of(packet) for packet in packets]
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{self.path}: needs packets of timestamp, x, y and polarity ({reason})") from None
        return np.concatenate(parts) if parts else np.empty(0, EVENT)


def _events_of(packet: np.ndarray | dict) -> np.ndarray:
    known = packet.keys() if isinstance(packet, dict) else packet.dtype.names or ()
    names = _NAMES[0] if "timestamp" in known else _NAMES[1]
    t, x, y, p = (np.asarray(packet[name]).ravel() for name in names)
    return make_events(t, x, y, p.astype(np.int64) > 0)


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
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                parts = [np.asarray(stored[name]) for name in ("neg", "pos")]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
            raise UserError(f"{self.path}: not a complete .npz of pos and neg ({reason}); fetch it anew") from None
        if any(part.ndim != 2 or part.shape[1] != 3 or part.dtype.kind not in "iuf" for part in parts):
            raise UserError(f"{self.path}: pos and neg need rows of three numbers; fetch it anew")
        p = np.repeat([0, 1], [len(part) for part in parts])
        y, x, step = np.concatenate(parts).astype(np.int64).T
        if len(step) and (step.min() < 1 or step.max() > GIVEN_STEPS or min(y.min(), x.min()) < 0):
            raise UserError(f"{self.path}: needs steps from 1 to {GIVEN_STEPS} and no negative places; fetch it anew")
        y += (_ES_FIELD - self.tall) // 2 - _ES_MARGIN
        x += (_ES_FIELD - self.wide) // 2 - _ES_MARGIN
        rows = np.unique(np.stack([step - 1, y, x, p], 1), axis=0)
        t, y, x, p = rows[_inside(rows[:, 2], rows[:, 1], (_ES_SIDE, _ES_SIDE))].T
        return make_events(t * 1000, x, y, p)


@dataclass(frozen=True)
class Character(Recording):
    """Stand for one of the twenty drawings in an N-Omniglot recording, cropped to the 250 x 250 pixels of the screen.

    Args:
        start_us: time of its first event, in microseconds.
        end_us: time of the first event that belongs to it no more.
    """

    start_us: int = 0
    end_us: int = 0

    @property
    def name(self) -> str:
        """Name it apart from the other drawings of its recording."""
        return f"{self.path.name}[{self.start_us}:{self.end_us}]"

    def read(self) -> np.ndarray:
        """Read the drawing."""
        if self.path.suffix == ".npy":  # one drawing, as BrainCog's reader cut it
            return _cropped(self.path, Pickled(self.path).read())
        events = _whole(self.path, self.stat().st_mtime_ns)
        start, end = np.searchsorted(events["t"], (self.start_us, self.end_us))
        return _cropped(self.path, events[start:end])


@lru_cache(maxsize=1)
def _whole(path: Path, changed_ns: int) -> np.ndarray:
    """Decode a recording once for the drawings in it, which are asked for one after the other."""
    del changed_ns  # part of the key: a file that was written anew is read anew
    events = read_aedat4(path)
    if (np.diff(events["t"]) < 0).any():
        raise UserError(f"{path}: time goes backwards, so that the drawings in it can't be told apart; fetch it anew")
    return events


def _cropped(path: Path, events: np.ndarray) -> np.ndarray:
    height, width = _CHARACTER_SENSOR
    if not _inside(events["x"], events["y"], _CHARACTER_SENSOR).all():
        raise UserError(f"{path}: has events outside of the {width} x {height} sensor; a recording of another camera")
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
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:]
        found = [(int(row[1]), int(row[2])) for row in rows if row]
    except (OSError, ValueError, IndexError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: needs rows of number, start and end ({reason}); fetch it anew") from None
    if not found or any(start >= end for start, end in found):
        raise UserError(f"{path}: needs rows of number, start and a later end; fetch it anew")
    return found
