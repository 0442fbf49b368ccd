"""Photos in `train` and `val` or `validation`, sorted into class folders or tars: `imnet`, and sets of a user's own."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, shown
from ..loading.folders import VALIDATION_FOLDERS, MissingData, describe, find_root, photo_parts
from ..registry import DatasetInfo
from ..settings import Access
from .decoding import is_photo
from .folders import entries, list_folder, number_classes
from .stored import FilePictures
from .tars import TarPictures, read_tars, tars_in

__all__ = ["read_class_folders"]

Photos = FilePictures | TarPictures


def read_class_folders(info: DatasetInfo, data_dir: Path, access: Access) -> tuple[Photos, Photos, tuple[str, ...]]:
    """Read `train` and `val` or `validation`, each in folders or tars.

    The entry's classes number the labels; where it has none, the training classes in their natural order; and where
    only an evaluation is wanted and there are none of these, those of the evaluation.

    Args:
        info: entry of the table.
        data_dir: folder in which the two are looked for.
        access: whether photos for training have to be there, and how large a photo may be.

    Returns:
        Training photos, test photos and the names of the classes.

    Raises:
        UserError: for what can't be read as photos in class folders, and for test classes nothing was trained for.
    """
    root = find_root(info, data_dir, train=access.needs_train)
    held_out = _only(root, VALIDATION_FOLDERS, info.name)
    training = _only(root, ("train",), info.name)
    if held_out is None or (training is None and access.needs_train):  # the entry has marks of its own
        raise MissingData(describe(info.name, data_dir))
    trains, numbers = FilePictures([], []), None
    if training is not None:
        trains, numbers = _photos(training, access.max_pixels, info)
        _check_training(training, trains, numbers, info)
    tests, own = _photos(held_out, access.max_pixels, info)
    if not len(tests):
        raise UserError(f"{held_out}: Found 0 images in its class folders; complete it; expected {info.tree}")
    if numbers is not None:
        _compare(training, numbers, held_out, own, set(tests.targets), info.name)
    labels = own if numbers is None else numbers
    if info.classes:
        if other := sorted(set(labels) ^ set(info.classes)):
            place = f"{training or held_out}: its class folders are not"
            raise UserError(f"{place} the {info.num_classes} classes of {info.name} ({other[0]})")
        labels = {name: label for label, name in enumerate(info.classes)}
    for photos in (trains, tests):
        photos.targets = [labels[name] for name in photos.targets]
    return trains, tests, tuple(labels)


def _only(root: Path, names: Sequence[str], dataset: str) -> Path | None:
    """Return the first of some folders or tars that is there, and warn of the others."""
    there = photo_parts(root, names)
    for path in there[1:]:
        warnings.warn(f"{path}: is not read as photos of {dataset}, since {there[0]} is there, too", stacklevel=3)
    return there[0] if there else None


def _photos(part: Path, max_pixels: int, info: DatasetInfo) -> tuple[Photos, dict[str, int]]:
    """List the photos of one half, which have the names of their classes as targets, and number the classes."""
    tars = [] if part.is_file() else tars_in(part)
    if part.is_dir() and not tars:
        paths, names, classes = list_folder(part, info.name)
        return FilePictures(paths, names, max_pixels), number_classes(classes, part)
    for path in map(Path, entries(part) if tars else ()):
        if path.is_dir() or is_photo(path.name) or path.suffixes[-2:-1] == [".tar"] or path.suffix == ".tgz":
            raise UserError(f"{part}: holds {path.name} beside tars such as {tars[0].name}; keep one of the two there")
    photos, classes = read_tars(part, max_pixels, dataset=info.name)
    return photos, number_classes(classes, part)


def _check_training(part: Path, photos: Photos, numbers: dict[str, int], info: DatasetInfo) -> None:
    """Raise `UserError` for classes without photos, and for fewer than two."""
    held = set(photos.targets)
    if empty := [name for name in numbers if name not in held]:
        raise UserError(
            f"{part}: Found 0 images in {len(empty)} of its class folders ({', '.join(empty[:3])}); complete or remove "
            f"them; expected {info.tree}"
        )
    if len(numbers) < 2:
        where = f"one folder, {shown(next(iter(numbers)), 160)}" if numbers else "no folder"
        raise UserError(
            f"{part}: all of its photos lie in {where}; its top folders are the classes, expected {info.tree}"
        )


def _compare(
    training: Path, numbers: dict[str, int], held_out: Path, own: dict[str, int], held: set[str], dataset: str
) -> None:
    """Raise `UserError` for test classes that nothing was trained for; name training classes without a test."""
    if strangers := sorted(set(own) - set(numbers)):
        names = [name if name == name.strip() else repr(name) for name in strangers[:3]]
        raise UserError(
            f"{held_out}: {len(strangers)} of its class folders are not in {training} "
            f"({shown(', '.join(names))}); sort the validation pictures into the training set's class folders"
        )
    if untested := [name for name in numbers if name not in held]:
        counts = f"{len(untested)} of the {len(numbers)} classes of {dataset}"
        warnings.warn(f"{held_out}: no photos of {counts} ({shown(', '.join(untested[:3]))})", stacklevel=2)
    for once, again in ((training, held_out), *((training / name, held_out / name) for name in own)):
        if once.exists() and again.exists() and os.path.samefile(once, again):
            warnings.warn(f"{again}: is {once} once more; {dataset} is tested on what was trained on", stacklevel=2)
            break
