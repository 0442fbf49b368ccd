"""Photos in `train` and `val` or `validation`, sorted into class folders or tars: `imnet`, and sets of a user's own."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, shown
from ..loading.folders import VALIDATION_FOLDERS, find_root, photo_parts
from ..registry import DatasetInfo
from ..settings import Access
from .decoding import is_photo
from .folders import entries, list_folder, number_classes
from .stored import FilePictures
from .tars import TarPictures, read_tars, tars_in

__all__ = ["read_class_folders"]

Photos = FilePictures | TarPictures


def read_class_folders(
    info: DatasetInfo, data_dir: Path, access: Access
) -> tuple[Photos, Photos, tuple[str, ...]]:
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
    if training is None and not access.needs_train:
        trains, numbers = FilePictures([], []), None
    else:
        trains, numbers = _photos(training, access.max_pixels, info)
        _check_training(training, trains, numbers, info)
    tests, test_numbers = _photos(held_out, access.max_pixels, info)
    if not len(tests):
        raise UserError(f"{held_out}: Found 0 images in its class folders; complete it; expected {info.tree}")
    if numbers is None:
        numbers = test_numbers
    else:
        _compare(training, numbers, held_out, test_numbers, set(tests.targets), info.name)
    labels = _labels(training or held_out, numbers, info)
    trains.targets = [labels[number] for number in trains.targets]
    names = {number: name for name, number in test_numbers.items()}
    tests.targets = [labels[numbers[names[number]]] for number in tests.targets]
    return trains, tests, info.classes or tuple(numbers)


def _labels(part: Path, numbers: dict[str, int], info: DatasetInfo) -> dict[int, int]:
    """Return the label of each class by its place among the folders: the entry's, where it names the classes."""
    if not info.classes:
        return {number: number for number in numbers.values()}
    if other := sorted(set(numbers) ^ set(info.classes)):
        raise UserError(f"{part}: its class folders are not the {info.num_classes} classes of {info.name} ({other[0]})")
    return {number: info.classes.index(name) for name, number in numbers.items()}


def _only(root: Path, names: Sequence[str], dataset: str) -> Path | None:
    """Return the first of some folders or tars that is there, and warn of the others."""
    there = photo_parts(root, names)
    for path in there[1:]:
        warnings.warn(f"{path}: is not read as photos of {dataset}, since {there[0]} is there, too", stacklevel=3)
    return there[0] if there else None


def _photos(part: Path, max_pixels: int, info: DatasetInfo) -> tuple[Photos, dict[str, int]]:
    """List the photos of one half, with the labels by class."""
    if part.is_file():
        return read_tars(part, max_pixels, dataset=info.name)
    tars = tars_in(part)
    if not tars:
        paths, labels, classes = list_folder(part, info.name)
        numbers = number_classes(classes, part)
        return FilePictures(paths, [numbers[label] for label in labels], max_pixels), numbers
    for path in map(Path, entries(part)):
        if path.is_dir() or is_photo(path.name) or path.suffixes[-2:-1] == [".tar"] or path.suffix == ".tgz":
            raise UserError(f"{part}: holds {path.name} beside tars such as {tars[0].name}; keep one of the two there")
    return read_tars(part, max_pixels, dataset=info.name)


def _check_training(part: Path, photos: Photos, numbers: dict[str, int], info: DatasetInfo) -> None:
    """Raise `UserError` for classes without photos, and for fewer than two."""
    held = set(photos.targets)
    if empty := [name for name, number in numbers.items() if number not in held]:
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
    training: Path, numbers: dict[str, int], held_out: Path, own: dict[str, int], held: set[int], dataset: str
) -> None:
    """Raise `UserError` for test classes that nothing was trained for; name training classes without a test."""
    if strangers := sorted(set(own) - set(numbers)):
        names = [name if name == name.strip() else repr(name) for name in strangers[:3]]
        raise UserError(
            f"{held_out}: {len(strangers)} of its class folders are not in {training} "
            f"({shown(', '.join(names))}); sort the validation pictures into the training set's class folders"
        )
    if untested := [name for name in numbers if own.get(name) not in held]:
        counts = f"{len(untested)} of the {len(numbers)} classes of {dataset}"
        warnings.warn(f"{held_out}: no photos of {counts} ({shown(', '.join(untested[:3]))})", stacklevel=2)
    for once, again in ((training, held_out), *((training / name, held_out / name) for name in own)):
        if once.exists() and again.exists() and os.path.samefile(once, again):
            warnings.warn(f"{again}: is {once} once more; {dataset} is tested on what was trained on", stacklevel=2)
            break
