"""Recordings of single sets whose ending alone doesn't say how to read them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..formats.aedat4 import decode_aedat4
from ..formats.arrays import npz_arrays
from ..formats.columns import EVENT, inside, make_events, whole_numbers
from ..formats.opening import complete, file_bytes
from ..formats.pickles import Packet, load_npy, packets_needed
from ..formats.text import read_table
from ..readers import Recording, Segment

__all__ = ["GIVEN_STEPS", "Character", "GivenSteps", "Pickled", "TopLeft", "read_stretches"]

GIVEN_STEPS = 8
"""Steps of an ES-ImageNet recording; step k is stored as k, from 1, and read as k - 1 milliseconds."""

_ES_FIELD, _ES_MARGIN, _ES_SIDE = 254, 16, 224
_ES_ARRAY = 256
"""Sides of the array in which BrainCog centres the field: nothing of a recording is to the right or below."""
_CHARACTER_SENSOR = (260, 346)
_CHARACTER_CORNER, _CHARACTER_SIDE = (4, 54), 250
_NAMES = {True: ("timestamp", "x", "y", "polarity"), False: ("t", "x", "y", "p")}


class TopLeft(Recording):
    """Describe a recording that fills a part of the sensor: its first column and row become the sensor's.

    N-Caltech101 and N-CARS differ in size by recording. tonic gives each a field of its own size, which resizing then
    stretches to the same square; SpikingJelly leaves N-Caltech101 where it was stored. Here no recording is stretched.
    """

    def place(self, events: np.ndarray) -> np.ndarray:
        """Shift the events to the top left."""
        events["x"] -= events["x"].min()
        events["y"] -= events["y"].min()
        return events


class Pickled(Recording):
    """Describe an `.npy` file of packets (structured arrays), or of one dictionary of columns."""

    def read(self) -> np.ndarray:
        """Read the packets one after the other."""
        packets = load_npy(self.path)
        with packets_needed():
            parts = [_columns_of(packet) for packet in packets]
        if not parts:
            return np.empty(0, EVENT)
        return make_events(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _columns_of(packet: Packet) -> list[np.ndarray]:
    known = packet.keys() if isinstance(packet, dict) else packet.dtype.names
    if known is None:
        raise ValueError(f"got {packet.dtype} {packet.shape}")
    columns = [np.asarray(packet[name]).ravel() for name in _NAMES["timestamp" in known]]
    if len({len(column) for column in columns}) != 1:
        raise ValueError("they are not equally many")
    return columns


@dataclass(frozen=True)
class GivenSteps(Recording):
    """Describe an `.npz` file of ES-ImageNet: ON and OFF events as rows (row, column, step from 1 to 8).

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
        t, y, x, p = rows[inside(rows[:, 2], rows[:, 1], (_ES_SIDE, _ES_SIDE))].T
        return make_events(t * 1000, x, y, p)


@dataclass(frozen=True)
class Character(Segment):
    """Describe one of the twenty drawings in an N-Omniglot recording, cropped to the 250 x 250 pixels of the screen.

    Args:
        start_us: as of a `Segment`; unused for an `.npy` file, which is one drawing, cut by BrainCog's reader.
        end_us: the same.
    """

    start_us: int = 0
    end_us: int = 0

    __str__ = Recording.__str__

    def read(self) -> np.ndarray:
        """Read the drawing."""
        events = Pickled(self.path).read() if self.path.suffix.lower() == ".npy" else super().read()
        height, width = _CHARACTER_SENSOR
        if not inside(events["x"], events["y"], _CHARACTER_SENSOR).all():
            raise UserError(f"has events outside of the {width} x {height} sensor; a recording of another camera")
        top, left = _CHARACTER_CORNER
        events = make_events(events["t"], events["x"] - left, events["y"] - top, events["p"])
        return events[inside(events["x"], events["y"], (_CHARACTER_SIDE, _CHARACTER_SIDE))]

    @staticmethod
    def decode(raw: bytes) -> np.ndarray:
        """Return all events of the file."""
        events = make_events(*decode_aedat4(raw))
        if (np.diff(events["t"]) < 0).any():
            raise UserError("time goes backwards, so that the drawings in it can't be told apart; fetch it anew")
        return events


def read_stretches(path: Path) -> list[tuple[int, int]]:
    """Return start and end in microseconds of the drawings that an N-Omniglot table names, in its order.

    Raises:
        UserError: for a table that can't be read.
    """
    return [(start, end) for _, start, end in read_table(path, "number")]
