"""Which recordings belong to which split, for the event sets whose folders don't say it by themselves.

`bullying10k`: every fifth clip tests, from the first on, counted over all clips sorted by folder and name (the rule of
its authors, whose order is that of their disk). `nomni`: the first fifteen drawings of each character train and the
last five test, over background and evaluation alphabets together (BrainCog's "full" task, whose order is again that of
the disk). `esimnet`: as its two lists say.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ..errors import UserError, shown
from .catalog import DatasetInfo
from .gesture import gesture_sides
from .photo_folders import is_left_behind
from .places import MissingData
from .readers import Recording
from .recordings import Character, GivenSteps, Pickled, read_stretches
from .text import read_lines

__all__ = ["LAYOUTS"]

Side = tuple[list[Path | Recording], list[int]]
_TEST_EVERY = 5
_WHOLE = re.compile(r"[0-9]{1,5}")
_DRAWINGS, _TRAINING_DRAWINGS = 20, 15


def _bullying_sides(root: Path, info: DatasetInfo) -> list[Side]:
    samples, missing, kinds = [], [], set()
    for name in sorted(info.classes):
        clips = [path for path in _visible(root / name, "**/*") if path.suffix.lower() in info.endings]
        kinds |= {path.suffix.lower() for path in clips}
        missing += [] if clips else [name]
        label = info.classes.index(name)
        samples += [(Pickled(path) if path.suffix.lower() == ".npy" else path, label) for path in clips]
    if missing:
        shown = ", ".join(missing)
        raise MissingData(f"{root}: no recordings of {len(missing)} of {len(info.classes)} classes ({shown}); add them")
    if len(kinds) > 1:
        raise UserError(f"{root}: holds recordings in {' and '.join(sorted(kinds))}; keep one of the two there")
    chosen = range(0, len(samples), _TEST_EVERY)
    return [
        _side([sample for place, sample in enumerate(samples) if place not in chosen]),
        _side([samples[place] for place in chosen]),
    ]


def _esimnet_sides(root: Path, info: DatasetInfo) -> list[Side]:
    return [_listed(root, part, info.num_classes) for part in ("train", "val")]


def _listed(root: Path, part: str, classes: int) -> Side:
    path = root / f"{part}label.txt"
    samples = []
    for line in read_lines(path):
        row = line.split()
        if not row:
            continue
        numbers = row[1:] if all(_WHOLE.fullmatch(cell) for cell in row[1:]) else []
        if len(numbers) != 3:
            wanted = "lines of file, class, rows and columns"
            raise UserError(f"{path}: needs {wanted}; got {shown(line, 60)!r}, fetch it anew")
        label, tall, wide = map(int, numbers)
        samples.append((GivenSteps(root / part / f"{Path(row[0]).stem}.npz", tall, wide), label))
    if not samples or any(not 0 <= label < classes for _, label in samples):
        raise UserError(f"{path}: needs at least one line, and classes from 0 to {classes - 1}; fetch it anew")
    return _side(samples)


def _nomni_sides(root: Path, info: DatasetInfo) -> list[Side]:
    cut = not (root / "dvs_background").is_dir()
    parts = [root / "events_npy" / "background", root / "events_npy" / "evaluation"]
    parts = parts if cut else [root / "dvs_background", root / "dvs_evaluation"]
    sides, missing = [[], []], []
    for label, name in enumerate(info.classes):
        folder = next((found for part in parts if (found := _folder(part, name))), None)
        drawings = folder and (_cut_drawings(folder) if cut else _drawings(folder))
        if not drawings:
            missing.append(name)
            continue
        if len(drawings) != _DRAWINGS:
            raise UserError(f"{folder}: needs {_DRAWINGS} drawings, of which the last five test; got {len(drawings)}")
        for side, own in zip(sides, (drawings[:_TRAINING_DRAWINGS], drawings[_TRAINING_DRAWINGS:]), strict=True):
            side += [(drawing, label) for drawing in own]
    if missing:
        count = f"{len(missing)} of {len(info.classes)} characters"
        raise MissingData(f"{root}: no recordings of {count} ({', '.join(missing[:3])}, ...); complete the folders")
    return [_side(side) for side in sides]


def _drawings(folder: Path) -> list[Character]:
    found = [_ending_in(folder, ending) for ending in (".aedat4", ".csv")]
    if [len(paths) for paths in found] != [1, 1]:
        counts = " and ".join(f"{len(paths)} {name}" for paths, name in zip(found, (".aedat4", ".csv"), strict=True))
        raise UserError(f"{folder}: needs one recording and its table of times; got {counts}")
    return [Character(found[0][0], *stretch) for stretch in read_stretches(found[1][0])]


def _cut_drawings(folder: Path) -> list[Character]:
    return [Character(path) for path in _ending_in(folder, ".npy")]


def _ending_in(folder: Path, ending: str) -> list[Path]:
    return [path for path in _visible(folder, "*") if path.suffix.lower() == ending]


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Return what matches below a folder, sorted, without what is hidden or left behind by other programs."""
    found = (path for path in folder.glob(pattern) if not any(map(is_left_behind, path.relative_to(folder).parts)))
    return sorted(found)


def _folder(parent: Path, name: str) -> Path | None:
    """Return a folder below another one, whatever the case and the signs between the letters of its name."""
    if (parent / name).is_dir():
        return parent / name
    alphabet, character = name.split("/")
    found = _by_letters(parent).get(_letters(alphabet))
    return found / character if found and (found / character).is_dir() else None


@lru_cache(maxsize=4)
def _by_letters(parent: Path) -> dict[str, Path]:
    return {_letters(path.name): path for path in sorted(parent.iterdir())} if parent.is_dir() else {}


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _side(samples: list[tuple[Path | Recording, int]]) -> Side:
    return [path for path, _ in samples], [label for _, label in samples]


LAYOUTS: dict[str, Callable[[Path, DatasetInfo], list[Side]]] = {
    "dvsg": lambda root, _: gesture_sides(root),
    "bullying10k": _bullying_sides,
    "nomni": _nomni_sides,
    "esimnet": _esimnet_sides,
}
