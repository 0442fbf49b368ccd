"""Photos inside tar files: a tar of class folders, a folder of tars (one for each class), or a tar of such tars.

A tar is read as the folder that it would unpack to. Only the heads of its members are read to list them, each up to a
limit, and whatever would be left out, read twice, or lies outside the file is refused.
"""

import io
import os
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import UserError, shown
from ...files import reason
from ..formats.opening import named
from ..loading.folders import is_left_behind
from .decoding import MOST_PIXELS, decoded, is_photo
from .folders import natural_key, once, warn_of_others

__all__ = ["TarPictures", "read_tars", "tars_in"]

_LONGEST_HEAD = 1 << 20
"""Bytes of a member's head, which holds long names and notes of file systems."""
_LARGEST_PHOTO = 1 << 30
_MOST_MEMBERS = 20_000_000
_LONGEST_NAME = 4096
_BEHIND = 16 << 20
"""Bytes behind the end of a tar that are looked at; it is padded to some 10 KB."""


@dataclass(eq=False)
class TarPictures:
    """Photos at known places of uncompressed tar files.

    A file is opened for each photo: no handle is kept whose position worker processes would share.

    Args:
        files: the tar files.
        file: (N,) which of them holds the photo.
        start: (N,) its first byte there.
        size: (N,) its number of bytes.
        names: of the photos inside.
        targets: labels; at first the names of the classes.
        max_pixels: of a photo.
    """

    files: Sequence[Path]
    file: np.ndarray
    start: np.ndarray
    size: np.ndarray
    names: Sequence[str]
    targets: list[int] | list[str]
    max_pixels: int = MOST_PIXELS

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image.Image:
        path = self.files[self.file[index]]
        with named(path), path.open("rb") as stored:
            stored.seek(self.start[index])
            content = io.BytesIO(stored.read(self.size[index]))
        return decoded(content, f"{path}: {shown(self.names[index], 160)}", self.max_pixels)


@dataclass
class _Tar:
    """What was found in one tar, which may lie inside another.

    Args:
        stem: name of the tar without its ending.
        where: the tar in messages.
        file: number of the file that holds it.
        photos: (folders and name, first byte in the file, size) of each.
        inner: (name, first byte, end) of tars in it.
        below: folders and name of each file that is no photo, and the folders and "" for each folder.
    """

    stem: str
    where: str
    file: int
    photos: list[tuple[list[str], int, int]] = field(default_factory=list)
    inner: list[tuple[str, int, int]] = field(default_factory=list)
    below: list[list[str]] = field(default_factory=list)


def tars_in(folder: Path) -> list[Path]:
    """Return the tar files that lie in a folder, sorted by name."""
    found = (path for path in folder.iterdir() if path.suffix.lower() == ".tar" and path.is_file())
    return sorted(path for path in found if not is_left_behind(path.name))


def read_tars(root: Path, max_pixels: int = MOST_PIXELS, *, dataset: str = "the set") -> tuple[TarPictures, set[str]]:
    """List the photos of a tar file, or of all tar files in a folder.

    Args:
        root: a .tar file, or a folder that holds such files; a photo's class is the name of its top folder inside, or
            that of its tar where none has folders.
        max_pixels: of a photo.
        dataset: its name, for messages.

    Returns:
        The photos, whose targets are the names of their classes, and the names of all classes.

    Raises:
        UserError: for a file that is no tar, is cut short, holds no photos, or members that can't be read as photos in
            class folders.
    """
    files = [root] if root.is_file() else tars_in(root)
    seen: dict[str, Path] = {}
    for path in files:
        once(path, os.path.realpath(path), seen)
    tars = [tar for number, path in enumerate(files) for tar in _tars_of(path, number)]
    labels, classes = _labels(root, tars, dataset)
    rows = [(natural_key("/".join(names)), tar.file, start, size, label)
            for tar, own in zip(tars, labels, strict=True)
            for (names, start, size), label in zip(tar.photos, own, strict=True)]  # fmt: skip
    if not rows:
        raise _damaged(str(root), "it holds no photos")
    rows.sort()
    others = [f"{tar.where}: {shown('/'.join(names), 160)}" for tar in tars for names in tar.below if names[-1]]
    warn_of_others(root, others, dataset)
    names, file, start, size, own = zip(*rows, strict=True)
    places = (np.array(file, np.int32), np.array(start, np.int64), np.array(size, np.int64))
    return TarPictures(files, *places, [name for _, name in names], list(own), max_pixels), classes


def _labels(root: Path, tars: list[_Tar], dataset: str) -> tuple[list[list[str]], set[str]]:
    """Return each photo's class, by tar: its top folder or, where none has folders, the tar; and all classes."""
    tops = [_top_folders(tar) for tar in tars]
    bare = next((tar for tar, own in zip(tars, tops, strict=True) if "" in own), None)
    if bare is None:
        classes = {top for own in tops for top in own}
        _warn_of_doubles(root, tars, dataset)
        return tops, classes | _without_photos(tars, classes)
    alone = root.is_file() and len(tars) == 1
    folders = next((tar for tar, own in zip(tars, tops, strict=True) if any(own)), None)
    if alone or folders is not None:
        place = tops[tars.index(bare)].index("")
        name = shown("/".join(bare.photos[place][0]), 160)
        beside = f", while {folders.where} has folders" if folders not in (None, bare) else ""
        raise UserError(f"{bare.where}: {name} lies in no class folder{beside}; put all photos into <class>/")
    return [[tar.stem] * len(tar.photos) for tar in tars], {tar.stem for tar in tars}


def _without_photos(tars: list[_Tar], classes: set[str]) -> set[str]:
    """Return the top folders in which nothing lies.

    Raises:
        UserError: for one that holds files, none of which is a photo.
    """
    empty = set()
    for tar in tars:
        around = _around(tar)
        for *folders, name in tar.below:
            top = folders[len(around)] if folders[: len(around)] == around and len(folders) > len(around) else None
            if name and top not in (None, *classes):
                example = shown("/".join([*folders, name]), 160)
                raise UserError(f"{tar.where}: Found 0 images in {top}, but files as {example}; convert or remove them")
            empty |= {top} - {None}
    return empty - classes


def _warn_of_doubles(root: Path, tars: list[_Tar], dataset: str) -> None:
    """Warn of photos that have the same place in several tars, and may count twice."""
    places = Counter("/".join(names) for tar in tars for names, *_ in tar.photos)
    if double := [name for name, count in places.items() if count > 1]:
        example = f"{len(double)} photos of {dataset} lie in more than one tar, each counts: {shown(double[0], 160)}"
        warnings.warn(f"{root}: {example}", stacklevel=4)


def _top_folders(tar: _Tar) -> list[str]:
    """Return each photo's top folder, "" without one."""
    around = _around(tar)
    return [names[len(around)] if len(names) > len(around) + 1 else "" for names, *_ in tar.photos]


def _around(tar: _Tar) -> list[str]:
    """Return the folders around all photos that end in the tar's name, which are no classes."""
    first = tar.photos[0][0] if tar.photos else []
    around = first[: first.index(tar.stem, 0, len(first) - 1) + 1] if tar.stem in first[:-1] else []
    if any(names[:-1][: len(around)] != around for names, *_ in tar.photos):
        return []
    return around


def _tars_of(path: Path, number: int) -> list[_Tar]:
    """Return a tar file, or the tars that lie in it."""
    with named(path):
        file = _Bounded(io.FileIO(path))
    with file:
        outer = _Tar(path.stem, str(path), number)
        _list(outer, file, 0, os.fstat(file.fileno()).st_size)
        if outer.inner and outer.photos:
            name, beside = shown("/".join(outer.photos[0][0]), 160), shown(outer.inner[0][0], 160)
            raise UserError(f"{path}: holds photos ({name}) beside tars ({beside}); keep one of the two")
        tars = []
        for name, begin, end in outer.inner:
            tars.append(_Tar(Path(name).stem, f"{path}: {shown(name, 160)}", number))
            _list(tars[-1], file, begin, end)
            if tars[-1].inner:
                deeper = shown(tars[-1].inner[0][0], 160)
                raise UserError(f"{path}: {shown(name, 160)} holds tars in its turn ({deeper}); unpack it")
    return tars or [outer]


class _Bounded(io.BufferedReader):
    """Refuse to read at once what no head of a member has, but a damaged file may declare."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _LONGEST_HEAD:
            raise tarfile.ReadError(f"a head of {size} bytes")
        return super().read(size)


def _list(tar: _Tar, file: _Bounded, begin: int, end: int) -> None:
    """Add to `tar` what lies between the bytes `begin` and `end` of a file."""
    seen: set[str] = set()
    for member in _members(tar.where, file, begin, end):
        names = [name for name in member.name.split("/") if name not in ("", ".")]
        if not names or any(map(is_left_behind, set(names) - {".."})):
            continue
        if member.isdir():
            tar.below.append([*names, ""])
            continue
        name = "/".join(names)
        _check(tar.where, name, names, member, seen)
        seen.add(name)
        start = member.offset_data
        if is_photo(name):
            tar.photos.append((names, start, member.size))
        elif name.lower().endswith(".tar"):
            tar.inner.append((name, start, start + member.size))
        else:
            tar.below.append(names)


def _check(where: str, name: str, names: list[str], member: tarfile.TarInfo, seen: set[str]) -> None:
    """Raise `UserError` for a member that would unpack to something else than one ordinary file of its own."""
    told = shown(name, 160)
    problem = None
    if member.issym() or member.islnk():
        problem = "a link"
    elif not member.isreg() or member.issparse():
        problem = "a device, a sparse file or the like"
    elif ".." in names or len(name) > _LONGEST_NAME:
        problem = "a name that leads outside" if ".." in names else f"a name of {len(name)} characters"
    elif name in seen:
        problem = "a name for the second time"
    elif is_photo(name) and member.size > _LARGEST_PHOTO:
        problem = f"{member.size:,} bytes, more than any photo"
    elif name.lower().endswith(".cls"):
        raise UserError(f"{where}: holds WebDataset's labels ({told}); read it with --dataset-source wds/NAME")
    if problem:
        raise UserError(f"{where}: {told} is or has {problem}; unpack the tar, or write it anew from plain files")


def _members(where: str, file: _Bounded, begin: int, end: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar that ends where it says.

    Raises:
        UserError: for one that is cut short, damaged, or followed by another one, which would not be seen.
    """
    file.seek(begin)
    opened = _guarded(where, lambda: tarfile.TarFile(fileobj=file))
    member, count, after = _guarded(where, opened.next), 0, begin
    while member is not None:
        count += 1
        if opened.offset <= after or count > _MOST_MEMBERS:
            raise _damaged(where, f"more than {_MOST_MEMBERS:,} members, or one of less than no bytes")
        if member.isreg() and not 0 <= member.size <= end - member.offset_data:
            raise _damaged(where, f"{shown(member.name, 160)} declares {member.size:,} bytes, more than there are")
        yield member
        opened.members.clear()  # or it would keep them all
        after = opened.offset
        member = _guarded(where, opened.next) if after < end else None
    file.seek(opened.offset)
    behind = io.BufferedReader.read(file, max(0, min(end - opened.offset, _BEHIND)))
    if len(behind) < tarfile.BLOCKSIZE or behind.strip(b"\0"):
        raise _damaged(where, "something lies behind its end" if behind.strip(b"\0") else "it is cut short")


def _guarded(where: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        # tarfile passes on whatever the bytes of a damaged head make it raise.
        raise _damaged(where, reason(error)) from None


def _damaged(where: str, reason: str) -> UserError:
    return UserError(f"{where}: not a complete tar file of photos ({reason}); fetch it anew, or pack it anew")
