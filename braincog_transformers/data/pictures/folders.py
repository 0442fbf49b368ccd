"""Photos in class folders: the top folders are the classes; what can't be read like this is refused or warned of.

Hidden files and folders, and those that archive programs and file servers leave behind, are ignored.
"""

import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError, shown
from ...files import reason
from ..loading.folders import is_left_behind
from .decoding import is_photo

__all__ = ["entries", "list_folder", "natural_key", "number_classes", "once", "photos_below", "warn_of_others"]

_LISTS = frozenset(("", ".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".yaml", ".yml"))
"""Endings of files that may describe the class folders beside them."""


def natural_key(name: str) -> tuple:
    """Sort "n2" before "n10", and names that then are equal, such as "n2" and "n02", always the same way."""
    parts = re.split(r"(\d+)", name.lower())
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def number_classes(names: Iterable[str], part: Path) -> dict[str, int]:
    """Return the label of each class: its place in the natural order of the names.

    Args:
        names: of the classes.
        part: where they were found, for the message.

    Raises:
        UserError: for names that differ in capitals, in blanks or in the writing of an accent only.
    """
    alike: dict[str, str] = {}
    for name in sorted(set(names), key=natural_key):
        key = " ".join(unicodedata.normalize("NFC", name).casefold().split())
        if (other := alike.setdefault(key, name)) != name:
            both = f"{shown(repr(other), 160)} and {shown(repr(name), 160)}"
            raise UserError(f"{part}: its classes {both} differ in writing only; rename one")
    return {name: number for number, name in enumerate(alike.values())}


def list_folder(part: Path, name: str) -> tuple[list[str], list[str], list[str]]:
    """List the photos of one half of a data set.

    Args:
        part: folder whose top folders are the classes; a photo counts for its class however deep below it is.
        name: of the data set, for messages.

    Returns:
        Paths in natural order, the class of each, and the names of all top folders, empty ones too.

    Raises:
        UserError: for photos outside of class folders, a class none of whose files is a photo, links that lead
            nowhere, and folders that are reached twice.
    """
    seen = {_identity(part): part}
    found, others, classes, stray, beside, deep = [], [], [], [], [], []
    for entry in entries(part):
        if not entry.is_dir():
            (stray if is_photo(entry.name) else beside).append(entry.path)
            continue
        classes.append(entry.name)
        photos, rest = photos_below(Path(entry.path), seen)
        if rest and not photos:
            raise UserError(f"{entry.path}: Found 0 images, but files as {rest[0]}; convert or remove them")
        found += [(path, entry.name) for path in photos]
        deep += [path for path in photos if os.path.dirname(path) != os.path.dirname(photos[0])]
        others += rest
    if stray:
        place = "beside the class folders" if found else "in no class folder"
        remedy = "move them into one, or away" if found else f"sort them into {part}/<class>/"
        raise UserError(f"{part}: {len(stray)} photos lie {place} ({stray[0]}); {remedy}")
    # others beside the class folders may hold a class that is missing
    others += [path for path in beside if os.path.splitext(path)[1].lower() not in _LISTS]
    warn_of_others(part, others, name)
    _warn_of_links(part, [path for path, _ in found], name)
    if deep:
        example = f"{len(deep)} photos, such as {deep[0]}, lie in other folders than the rest of their class"
        warnings.warn(f"{part}: {example}; the top folders are the classes of {name}", stacklevel=2)
    found.sort(key=lambda photo: natural_key(photo[0]))
    return [path for path, _ in found], [name for _, name in found], classes


def once(path: Path, identity: Any, seen: dict[Any, Path]) -> None:
    """Put a folder or file down as seen; raise `UserError` if it was already, under another path."""
    if (earlier := seen.setdefault(identity, path)) is not path:
        raise UserError(f"{path}: is {earlier} once more, through a link; each photo would count twice, remove it")


def photos_below(folder: Path, seen: dict | None = None) -> tuple[list[str], list[str]]:
    """Return the paths of the photos and of the other files in a folder and all folders below it.

    Args:
        folder: where they are.
        seen: folders that were looked through before, by device and number; no folder is read twice.

    Raises:
        UserError: for links that lead nowhere, folders that are reached twice, and what can't be looked at.
    """
    seen = {} if seen is None else seen
    photos, others, waiting = [], [], [folder]
    while waiting:
        here = waiting.pop()
        once(here, _identity(here), seen)
        for entry in entries(here):
            if entry.is_dir():
                waiting.append(Path(entry.path))
            else:
                (photos if is_photo(entry.name) else others).append(entry.path)
    return photos, others


def warn_of_others(part: Path, names: list[str], dataset: str) -> None:
    """Warn of files that are not read as photos: how many, and with which endings."""
    if names:
        kinds = Counter(os.path.splitext(name)[1].lower() or "without an ending" for name in names)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))
        problem = f"{len(names)} files are not read as photos of {dataset} ({counts}): {names[0]}"
        warnings.warn(f"{part}: {problem}", stacklevel=2)


def entries(folder: Path) -> Iterator[os.DirEntry]:
    """Yield what lies in a folder and is part of a data set, sorted by name: folders and regular files."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry for entry in found if not is_left_behind(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: can't be looked into ({reason(error)})") from None
    for entry in entries:
        if not _is_ordinary(entry):
            raise UserError(f"{entry.path}: is a link that leads nowhere, or no ordinary file; mend or remove it")
        yield entry


def _is_ordinary(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir() or entry.is_file()
    except OSError:  # such as of a link to itself
        return False


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path}: can't be looked into ({reason(error)})") from None
    return found.st_dev, found.st_ino


def _warn_of_links(folder: Path, photos: list[str], name: str) -> None:
    """Warn of photos that are links to other photos of the same half, which count twice."""
    links = [path for path in photos if os.path.islink(path)]
    if links:
        own = {os.path.realpath(path) for path in photos if not os.path.islink(path)}
        targets = Counter(map(os.path.realpath, links))
        double = [path for path in links if os.path.realpath(path) in own or targets[os.path.realpath(path)] > 1]
        if double:
            warnings.warn(f"{folder}: {len(double)} photos of {name} are links to others: {double[0]}", stacklevel=2)
