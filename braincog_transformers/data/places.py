"""Where data sets lie: finding them below the data folder, and one line that tells how to get what is missing."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .catalog import DatasetInfo, lookup

__all__ = [
    "VALIDATION_FOLDERS",
    "MissingData",
    "class_files",
    "describe",
    "find_root",
    "photo_part",
    "warn_if_incomplete",
]

VALIDATION_FOLDERS = ("val", "validation")
"""Of photos; the first that is there counts."""


class MissingData(UserError, FileNotFoundError):
    """Data that the user asked for and that are not there."""


def describe(name: str, data_dir: str | Path) -> str:
    """Say in one line where a data set was looked for, what must lie there and how to get it.

    Args:
        name: a name in `DATASETS`.
        data_dir: folder that was given as `--data-dir`.
    """
    info = lookup(name)
    looked = [str(Path(data_dir) / place / _below(info)) for place in info.places]
    fetch = "add --download to fetch it" if info.downloadable else f"to get it, {info.source} (--download can't)"
    return (
        f"data set {name} not found; looked in {', '.join(looked)}; expected {info.tree} below --data-dir; {fetch}; "
        "if it lies elsewhere, name the folder with --data-dir"
    )


def find_root(info: DatasetInfo, data_dir: str | Path, *, train: bool = True) -> Path:
    """Return the first of the set's places that holds at least one of its files or folders.

    Args:
        info: entry of the catalogue.
        data_dir: folder in which it is looked for.
        train: of photos, whether those for training have to be there too; a place that has them comes first.

    Raises:
        MissingData: if there is none.
    """
    roots = [Path(data_dir) / place for place in info.places]
    for needed in (True, train):
        for root in roots:
            if _holds(info, root, needed):
                return root
    raise MissingData(describe(info.name, data_dir))


def photo_part(root: Path, name: str) -> Path | None:
    """Return the folder or the tar file of that name, or None where there is neither."""
    if (root / name).is_dir():
        return root / name
    return root / f"{name}.tar" if (root / f"{name}.tar").is_file() else None


def class_files(
    root: Path, classes: tuple[str, ...], endings: tuple[str, ...], *, smallest: int = 0
) -> list[list[Path]]:
    """Return the recordings in each class's folder, sorted by name as text.

    Args:
        root: folder of the class folders.
        classes: their names.
        endings: of recordings.
        smallest: size in bytes below which a recording is passed over.

    Raises:
        UserError: for a class without recordings, or for recordings of two formats side by side.
    """
    found = [_recordings(root / name, endings, smallest) for name in classes]
    kinds = {path.suffix.lower() for files in found for path in files}
    if len(kinds) > 1:
        raise UserError(
            f"{root}: holds recordings in {' and '.join(sorted(kinds))}; the two may differ in orientation and are "
            "never mixed, keep one of them there"
        )
    empty = [name for name, files in zip(classes, found, strict=True) if not files]
    if empty:
        raise MissingData(
            f"{root}: no {' or '.join(endings)} recordings of {len(empty)} of {len(classes)} classes "
            f"({', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}); complete the folders, or name another place "
            "with --data-dir"
        )
    return found


def warn_if_incomplete(root: Path, info: DatasetInfo, found: Sequence[int]) -> None:
    """Warn of a set with fewer (or more) samples than published figures were measured on.

    Args:
        root: where the set lies.
        info: entry of the catalogue.
        found: number of training and of test samples.
    """
    if tuple(found) in info.editions:
        return
    complete = info.samples
    if info.splits:  # sets that were split by name have only their total to compare with
        found, complete = [sum(found)], [sum(complete)]
    if list(found) != list(complete):
        counts = " and ".join(f"{a} of {b}" for a, b in zip(found, complete, strict=True))
        warnings.warn(f"{root}: {counts} recordings of {info.name}; published figures need all of them", stacklevel=4)


def _recordings(folder: Path, endings: tuple[str, ...], smallest: int = 0) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.suffix.lower() in endings and not path.name.startswith("."))
    # What is no file, such as a link that leads nowhere, stays: its reader names it.
    return sorted(path for path in found if not path.is_file() or path.stat().st_size >= smallest)


def _below(info: DatasetInfo) -> str:
    """Return what is looked for below each place, apart from the place itself."""
    if info.name == "imnet":
        return "train"
    return info.folder if info.kind == "image" else ""


def _holds(info: DatasetInfo, root: Path, train: bool) -> bool:
    if info.name == "imnet":
        trains = not train or photo_part(root, "train") is not None
        return trains and any(photo_part(root, name) for name in VALIDATION_FOLDERS)
    if info.marks:
        return any((root / mark).exists() for mark in info.marks)
    if info.kind == "image":
        return (root / _below(info)).is_dir()
    parents = [root / split for split in info.split_folders or (".",)]
    return any(_recordings(parent / name, info.endings) for parent in parents for name in info.classes)
