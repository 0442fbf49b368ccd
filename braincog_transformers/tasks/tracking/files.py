"""Sequences of event frames with a box for each: the layout that the official code of STNet reads.

    ROOT/img_120_split/PART/list.txt                       names of the sequences
    ROOT/img_120_split/PART/NAME/groundtruth_rect.txt      x y w h, a line for each frame
    ROOT/img_120_split/PART/NAME/{pos,neg}/FRAME.jpg       a frame of each polarity, whose name alone is used
    ROOT/img_120_5_split/PART/NAME/{pos,neg}/FRAME_1.jpg   to FRAME_5.jpg: the five sub-frames

How events become sub-frames is not in that code. `event_frames` does what its author says of it: a sub-frame marks the
pixels in which an event of its polarity occurred in its fifth of the time since the frame before.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...data.loading.folders import visible
from ...data.pictures.decoding import decoded
from ...errors import UserError, listed, shown
from ...files import reason

__all__ = ["SUB_FRAMES", "Video", "event_frames", "find_sequences", "write_sequence"]

SUB_FRAMES = 5
POLARITIES = ("pos", "neg")
_NAMES, _PIXELS = "img_120_split", "img_120_5_split"
_LONGEST = 2**24
"""Bytes of a list of boxes."""
_FARTHEST = 1e6
"""Pixels: what is larger in a list of boxes is no place and no size."""


def event_frames(events: np.ndarray, borders: np.ndarray, height: int, width: int) -> np.ndarray:
    """Turn events into binary sub-frames.

    Args:
        events: structured, with fields x, y, t and p (1: brighter); any order.
        borders: times `(F + 1,)`, ascending: frame f has the events from border f on and before border f + 1.
        height, width: of the sensor.

    Returns:
        `(F, 2, 5, height, width)`, uint8, 0 and 255: frame, polarity (positive first), fifth of the time.

    Raises:
        UserError: for borders that do not rise, or events outside of the sensor.
    """
    borders = np.asarray(borders, dtype=np.float64)
    if len(borders) < 2 or not (np.diff(borders) > 0).all():
        raise UserError("event_frames: borders must be two or more rising times")
    x, y = events["x"], events["y"]
    if ((x < 0) | (x >= width) | (y < 0) | (y >= height)).any():
        raise UserError(f"event_frames: events lie outside of the sensor of {width} x {height} pixels")
    frames = np.zeros((len(borders) - 1, 2, SUB_FRAMES, height, width), dtype=np.uint8)
    times = events["t"].astype(np.float64)
    frame = np.searchsorted(borders, times, side="right") - 1
    used = (frame >= 0) & (frame < len(frames))
    frame, times, events = frame[used], times[used], events[used]
    share = (times - borders[frame]) / (borders[frame + 1] - borders[frame])
    part = np.minimum((share * SUB_FRAMES).astype(int), SUB_FRAMES - 1)
    frames[frame, (events["p"] <= 0).astype(int), part, events["y"], events["x"]] = 255
    return frames


@dataclass(frozen=True)
class Video:
    """A sequence whose frames are read when they are asked for; as an input of the tracker, one sample.

    Args:
        name: of the sequence.
        folder: of the sub-frames, with `pos` and `neg`.
        frames: names of the frames, in order.
        boxes: x, y, w, h `(F, 4)`, float64; zeros where the object is not in the picture, if that is allowed.
        size: height and width of a frame.
    """

    name: str
    folder: Path
    frames: tuple[str, ...]
    boxes: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        """Return the number of samples."""
        return 1

    def to(self, *_: object, **__: object) -> "Video":
        """Return the sequence; the tracker brings its frames to the network's device."""
        return self

    def pin_memory(self) -> "Video":
        """Return the sequence, which is in files."""
        return self

    def record_stream(self, stream: object) -> None:
        """Do nothing: no frame has been read."""

    @staticmethod
    def stack(samples: "tuple[Video, ...]") -> "Video":
        """Return the one sequence of a batch."""
        (sequence,) = samples
        return sequence

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Video) and (self.folder, self.frames) == (other.folder, other.frames)

    def __hash__(self) -> int:
        return hash((self.folder, self.frames))

    @property
    def present(self) -> Tensor:
        """Which frames have a box: `(F,)`."""
        return self.boxes[:, 2:].amin(1) > 0

    def paths(self, number: int) -> list[Path]:
        """Return the files of a frame, of the positive polarity first."""
        parts = range(1, SUB_FRAMES + 1)
        return [self.folder / sign / f"{self.frames[number]}_{part}.jpg" for sign in POLARITIES for part in parts]

    def frame(self, number: int) -> Tensor:
        """Read a frame: `(2, 5, 3, H, W)`, uint8, in the order blue, green, red.

        Raises:
            UserError: for a file that is not there, damaged, or of another size.
        """
        images = [_read(path, self.size) for path in self.paths(number)]
        return torch.from_numpy(np.stack(images)).unflatten(0, (2, SUB_FRAMES))


def _read(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Read a picture: `(3, H, W)`, blue first."""
    if not path.is_file():
        raise UserError(f"{path}: is missing; each frame has {SUB_FRAMES} sub-frames of each polarity")
    picture = np.asarray(decoded(path, str(path)))
    if size is not None and picture.shape[:2] != size:
        got, first = (f"{width} x {height}" for height, width in (picture.shape[:2], size))
        raise UserError(f"{path}: has {got} pixels, and the first frame of its sequence {first}")
    return np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LONGEST:
            raise UserError(f"{path}: is too large for a list ({path.stat().st_size} bytes)")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as text ({reason(error)})") from error


def _boxes(path: Path) -> np.ndarray:
    """Read x, y, w, h of each line, with blanks or commas between them: `(F, 4)`."""
    rows = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = [float(one) for one in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != 4 or not all(map(math.isfinite, row)):
            raise UserError(f"{path}, line {number}: needs four numbers x y w h; got {shown(line, 60)!r}")
        if max(map(abs, row)) > _FARTHEST:
            raise UserError(
                f"{path}, line {number}: x y w h are pixels, of at most {_FARTHEST:,.0f}; got {shown(line, 60)!r}"
            )
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _checked(boxes: np.ndarray, path: Path, size: tuple[int, int], absent: bool) -> np.ndarray:
    """Refuse boxes that are empty, which is less than a pixel, or outside of the picture; with `absent` the empty ones
    become zeros."""
    height, width = size
    for number, (x, y, w, h) in enumerate(boxes, start=1):
        if absent and number > 1 and min(w, h) < 1:
            boxes[number - 1] = 0
            continue
        if min(w, h) < 1:
            remedy = "the first must hold the object" if absent else "--task-kwargs absent=True leaves such frames out"
            raise UserError(f"{path}: box {number} is empty ({w:g} x {h:g}); {remedy}")
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise UserError(
                f"{path}: box {number} ({x:g} {y:g} {w:g} {h:g}) lies outside of the picture of {width} x {height}"
            )
    return boxes


def _sequence(root: Path, part: str, name: str, absent: bool) -> Video:
    about, pixels = root / _NAMES / part / name, root / _PIXELS / part / name
    for folder in (about, pixels):
        if not folder.is_dir():
            raise UserError(f"{folder}: is missing, and {root / _NAMES / part / 'list.txt'} names it")
    names = {sign: [path.stem for path in visible(about / sign, "*.jpg")] for sign in POLARITIES}
    path = about / "groundtruth_rect.txt"
    boxes, (pos, neg) = _boxes(path), names.values()
    if pos != neg:
        odd = listed(sorted(set(pos) ^ set(neg)))
        raise UserError(f"{about}: pos and neg hold different frames ({odd}); complete them")
    if len(pos) < 2:
        raise UserError(f"{about}: a track needs two frames or more; it has {len(pos)}")
    if len(boxes) != len(pos):
        raise UserError(f"{path}: has {len(boxes)} boxes for {len(pos)} frames")
    first = pixels / "pos" / f"{pos[0]}_1.jpg"
    size = _read(first, None).shape[1:]
    boxes = torch.from_numpy(_checked(boxes, path, size, absent))
    sequence = Video(name, pixels, tuple(pos), boxes, size)
    if missing := [str(path) for number in range(len(pos)) for path in sequence.paths(number) if not path.is_file()]:
        raise UserError(f"{missing[0]}: is missing; each frame has {SUB_FRAMES} sub-frames of each polarity")
    return sequence


def find_sequences(root: Path, part: str, *, absent: bool = False) -> list[Video]:
    """List the sequences of a part of a data set.

    Args:
        root: folder with `img_120_split` and `img_120_5_split`.
        part: folder below them, as `train`.
        absent: allow empty boxes, of frames without the object, from the second frame on.

    Raises:
        UserError: in one line with the file, for what is missing, damaged, or does not belong together.
    """
    path = root / _NAMES / part / "list.txt"
    if not path.is_file():
        raise UserError(f"{path}: is missing; it lists the sequences of the {part} part, one name in a line")
    names = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not names:
        raise UserError(f"{path}: names no sequence")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{path}: {shown(name, 60)!r} is no name of a sequence; name folders beside this file")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: names {shown(twice, 60)!r} twice")
    return [_sequence(root, part, name, absent) for name in names]


def write_sequence(root: Path, part: str, name: str, frames: np.ndarray, boxes: np.ndarray) -> None:
    """Write sub-frames and boxes as files of the layout; the list of names is the caller's.

    Args:
        root: folder of the data set.
        part: as `train`.
        name: of the sequence.
        frames: `(F, 2, 5, H, W)`, uint8, as `event_frames` gives them.
        boxes: x, y, w, h `(F, 4)`.
    """
    from PIL import Image

    for sign in POLARITIES:
        for folder in (_NAMES, _PIXELS):
            (root / folder / part / name / sign).mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        for sign, parts in zip(POLARITIES, frame, strict=True):
            Image.fromarray(parts.max(0)).save(root / _NAMES / part / name / sign / f"{number:04d}.jpg", quality=90)
            for place, image in enumerate(parts, start=1):
                path = root / _PIXELS / part / name / sign / f"{number:04d}_{place}.jpg"
                Image.fromarray(image).save(path, quality=90)
    lines = (" ".join(f"{value:.2f}" for value in box) for box in boxes)
    (root / _NAMES / part / name / "groundtruth_rect.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
