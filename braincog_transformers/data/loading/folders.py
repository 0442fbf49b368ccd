"""Find data sets below the data folder, and say in one line how to get what is missing."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..registry import DatasetInfo, lookup

__all__ = [
    "VALIDATION_FOLDERS", "MissingData", "class_files", "describe", "find_root", "is_left_behind", "photo_parts",
    "unpaired", "visible", "warn_if_incomplete",
]  # fmt: skip

VALIDATION_FOLDERS = ("val", "validation")
"""Of photos; the first that is there counts."""
_LEFT_BEHIND = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__")
)


class MissingData(UserError, FileNotFoundError):
    """Data that the user asked for and that are not there."""


def describe(name: str, data_dir: str | Path) -> str:
    """Say in one line where a data set was looked for, what is expected there and how to get it.

    Args:
        name: a name in `DATASETS`.
        data_dir: folder that was given as `--data-dir`.
    """
    info = lookup(name)
    below = info.marks[0] if info.marks and info.kind == "image" else "train" if info.kind == "image" else ""
    looked = [str(Path(data_dir) / folder / below) for folder in info.folders]
    fetch = "add --download to fetch it" if info.downloadable else f"to get it, {info.source} (--download can't)"
    return (
        f"data set {name} not found; looked in {', '.join(looked)}; expected {info.tree} below --data-dir; {fetch}; "
        "if it lies elsewhere, name the folder with --data-dir"
    )


def find_root(info: DatasetInfo, data_dir: str | Path, *, train: bool = True) -> Path:
    """Return the first of the set's folders that holds at least one of its files or folders.

    Args:
        info: entry of the table.
        data_dir: folder in which it is looked for.
        train: of photos, whether those for training have to be there too; a folder that has them comes first.

    Raises:
        MissingData: if there is none.
    """
    roots = [Path(data_dir) / folder for folder in info.folders]
    for needed in (True, train):
        for root in roots:
            if _holds(info, root, needed):
                return root
    raise MissingData(describe(info.name, data_dir))


def photo_parts(root: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders and tar files of those names that are there."""
    there = [root / f"{name}{ending}" for name in names for ending in ("", ".tar")]
    return [path for path in there if (path.is_file() if path.suffix else path.is_dir())]


def class_files(
    root: Path, classes: Sequence[str], endings: tuple[str, ...], *, smallest: int = 0, nested: bool = False
) -> list[list[Path]]:
    """Return the recordings in each class's folder, sorted by name as text.

    Args:
        root: folder of the class folders.
        classes: their names.
        endings: of recordings.
        smallest: size in bytes below which a recording is passed over.
        nested: whether recordings may be in folders below those of the classes.

    Raises:
        UserError: for a class without recordings, or for recordings of two formats side by side.
    """
    found = [_recordings(root / name, endings, smallest, nested=nested) for name in classes]
    kinds = {path.suffix.lower() for files in found for path in files}
    if len(kinds) > 1:
        raise UserError(
            f"{root}: holds recordings in {' and '.join(sorted(kinds))}; keep one of the two there: they may differ in "
            "orientation and are never mixed"
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
        root: folder of the set.
        info: entry of the table.
        found: number of training and of test samples.
    """
    if info.samples is None or tuple(found) in info.editions:
        return
    complete = info.samples
    if info.splits:  # sets that were split by name have only their total to compare with
        found, complete = [sum(found)], [sum(complete)]
    if list(found) != list(complete):
        counts = " and ".join(f"{a} of {b}" for a, b in zip(found, complete, strict=True))
        warnings.warn(f"{root}: {counts} recordings of {info.name}; published figures need all of them", stacklevel=4)


def _recordings(folder: Path, endings: tuple[str, ...], smallest: int = 0, *, nested: bool = False) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in visible(folder, "**/*" if nested else "*") if path.suffix.lower() in endings)
    # What is no file, such as a link that leads nowhere, stays: its reader names it.
    return [path for path in found if not smallest or not path.is_file() or path.stat().st_size >= smallest]


def _holds(info: DatasetInfo, root: Path, train: bool) -> bool:
    if info.marks:
        return any((root / mark).exists() for mark in info.marks)
    if info.kind == "task":  # whose reader names the files that are missing
        return root.is_dir()
    if info.kind == "image":
        return bool(photo_parts(root, VALIDATION_FOLDERS) and (photo_parts(root, ["train"]) or not train))
    if info.kind == "sequence":
        return any((root / f"{info.name}_train.h5{packed}").exists() for packed in ("", ".gz"))
    parents = [root / split for split in info.split_folders or (".",)]
    return any(_recordings(parent / name, info.endings) for parent in parents for name in info.classes)


def is_left_behind(name: str) -> bool:
    """Say whether a file or folder of that name is hidden (`.x`, `._x`), or no part of any data set."""
    return name.startswith(".") or name in _LEFT_BEHIND or bool(re.fullmatch(r"PaxHeaders?(\.\d+)?", name))


def visible(folder: Path, pattern: str) -> list[Path]:
    """Return what matches below a folder, sorted, without what is hidden or left behind by other programs."""
    found = (path for path in folder.glob(pattern) if not any(map(is_left_behind, path.relative_to(folder).parts)))
    return sorted(found)


def unpaired(samples: list[tuple[Any, int]]) -> tuple[list, list[int]]:
    """Return pairs of recording and label as a list of each."""
    return [sample for sample, _ in samples], [label for _, label in samples]
