"""Which picture has which mask, in VOC's and in ADE20K's folders."""

from collections.abc import Callable
from pathlib import Path

from ...data.loading.folders import visible
from ...data.pictures.decoding import is_photo
from ...errors import UserError, listed, shown
from ...files import reason
from .settings import SegmentationSettings

__all__ = ["FIRST_CLASS", "Pair", "find_pairs", "read_lines"]

Pair = tuple[Path, Path]
"""A picture and its mask."""
_LARGEST = 64 * 2**20
"""Bytes of a list of names."""


def find_pairs(
    root: Path, layout: str, settings: SegmentationSettings, *, needs_train: bool
) -> tuple[list[Pair], list[Pair]]:
    """Return the training and the test samples of a set, in the order of its list or sorted by name.

    Args:
        root: folder of the set.
        layout: how its files lie.
        settings: which lists are read.
        needs_train: otherwise training samples may be missing.

    Raises:
        UserError: for missing folders, lists or files, names that lead elsewhere, or no samples.
    """
    pairs, names = _LAYOUTS[layout]
    parts = names(settings)
    found = []
    for part, needed in zip(parts, (needs_train, True), strict=True):
        try:
            found.append(pairs(root, part))
        except UserError:
            if needed:
                raise
            found.append([])
    return found[0], found[1]


def read_lines(path: Path, what: str) -> list[str]:
    """Return the lines of a text that are not empty, without blanks around them.

    Raises:
        UserError: for a file that is missing, empty, far too large, or no text.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes are too many for {what}; name another file")
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: {what} can't be read ({reason(error)}); correct its name or the folder") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: {what} is no text in UTF-8; save it as such") from None
    if not (lines := [line.strip() for line in lines if line.strip()]):
        raise UserError(f"{path}: {what} is empty; write one name on each line")
    return lines


def _voc_lists(settings: SegmentationSettings) -> tuple[str, str]:
    for field in ("train_list", "test_list"):
        name = getattr(settings, field)
        if Path(name).name != name or not name:
            raise UserError(f"--task-kwargs {field}: takes the name of a list, as train; got {shown(name, 80)!r}")
    return settings.train_list, settings.test_list


def _voc_pairs(root: Path, part: str) -> list[Pair]:
    path = root / "ImageSets" / "Segmentation" / f"{part}.txt"
    names = read_lines(path, "the list of names")
    for name in names:
        if Path(name).name != name or name == ".." or "\\" in name or "\0" in name:
            raise UserError(f"{path}: {shown(name, 80)!r} is no name of a picture in JPEGImages; correct the line")
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise UserError(f"{path}: names {shown(twice, 80)} twice; remove one of the lines")
    pictures, masks = _by_stem(root / "JPEGImages"), _by_stem(root / "SegmentationClass")
    return _paired(names, pictures, masks, f"{path} names")


def _ade_pairs(root: Path, part: str) -> list[Pair]:
    pictures, masks = _by_stem(root / "images" / part), _by_stem(root / "annotations" / part)
    names = sorted(pictures.keys() | masks.keys())
    if not names:
        raise UserError(f"{root / 'images' / part}: holds no pictures; complete the folder")
    return _paired(names, pictures, masks, f"{root} has")


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return a folder's photos by their names without ending."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; complete the data set, or name another place with --data-dir")
    found: dict[str, Path] = {}
    for path in visible(folder, "*"):
        if is_photo(path.name):
            if path.stem in found:
                raise UserError(f"{path}: beside {found[path.stem].name}, so it isn't clear which is meant; keep one")
            found[path.stem] = path
    return found


def _paired(names: list[str], pictures: dict[str, Path], masks: dict[str, Path], says: str) -> list[Pair]:
    for kind, having in (("picture", pictures), ("mask", masks)):
        if missing := [name for name in names if name not in having]:
            there = next(iter(having.values()), None)
            place = f" in {there.parent}" if there else ", nor any other"
            raise UserError(
                f"{says} {listed([shown(name, 60) for name in missing], 3)}, of which there is no {kind}{place}; "
                "complete the data, or leave the sample out"
            )
    return [(pictures[name], masks[name]) for name in names]


_Names = Callable[[SegmentationSettings], tuple[str, str]]
_LAYOUTS: dict[str, tuple[Callable[[Path, str], list[Pair]], _Names]] = {
    "voc": (_voc_pairs, _voc_lists),
    "ade20k": (_ade_pairs, lambda settings: ("training", "validation")),
}
FIRST_CLASS = {"voc": 0, "ade20k": 1}
"""Number of the first class in the masks of a layout."""
