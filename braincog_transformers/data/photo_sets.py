"""Sets of photos: classes in folders or tars (`imnet`), and Tiny ImageNet in its official layout."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..errors import UserError, shown
from .catalog import DatasetInfo
from .photo_folders import entries, list_folder, number_classes, photos_below
from .pictures import MOST_PIXELS, decoded, is_photo
from .places import VALIDATION_FOLDERS, MissingData
from .tars import TarPictures, read_tars, tars_in
from .text import read_lines

__all__ = ["FilePictures", "read_class_folders", "read_tiny_imagenet"]


class FilePictures:
    """Photos in files.

    Args:
        paths: of the photos.
        targets: labels.
        max_pixels: of a photo.
    """

    def __init__(self, paths: Sequence[str], targets: Sequence[int], max_pixels: int = MOST_PIXELS) -> None:
        self.paths = list(paths)
        self.targets = list(targets)
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return decoded(self.paths[index], self.paths[index], self.max_pixels)


Photos = FilePictures | TarPictures


def read_class_folders(
    info: DatasetInfo, root: Path, *, max_pixels: int, train: bool
) -> tuple[Photos, Photos, tuple[str, ...]]:
    """Read `train` and `val` or `validation`, each in folders or tars.

    The training classes, in their natural order, number the labels; where only an evaluation is wanted and there are
    none, those of the evaluation do.

    Args:
        info: entry of the catalogue.
        root: folder of the two.
        max_pixels: of a photo.
        train: whether photos for training have to be there.

    Returns:
        Training photos, test photos and the names of the classes.

    Raises:
        UserError: for what can't be read as photos in class folders, and for test classes nothing was trained for.
    """
    held_out = _only(root, VALIDATION_FOLDERS)
    training = _only(root, ("train",))
    if training is None and not train:
        trains, numbers = FilePictures([], []), None
    else:
        trains, numbers = _photos(training, max_pixels)
        _check_training(training, trains, numbers, info)
    tests, test_numbers = _photos(held_out, max_pixels)
    if not len(tests):
        raise UserError(f"{held_out}: Found 0 images in its class folders; complete it; expected {info.tree}")
    if numbers is None:
        numbers = test_numbers
    else:
        _compare(training, numbers, held_out, test_numbers, set(tests.targets))
    names = {number: name for name, number in test_numbers.items()}
    tests.targets = [numbers[names[number]] for number in tests.targets]
    return trains, tests, tuple(numbers)


def _only(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first of some folders or tars that is there, and tell of the others."""
    there = [root / f"{name}{ending}" for name in names for ending in ("", ".tar")]
    there = [path for path in there if (path.is_file() if path.suffix else path.is_dir())]
    for path in there[1:]:
        warnings.warn(f"{path}: is not read as photos of imnet, since {there[0]} is there, too", stacklevel=3)
    return there[0] if there else None


def _photos(part: Path, max_pixels: int) -> tuple[Photos, dict[str, int]]:
    """List the photos of one half, with the labels by class."""
    if part.is_file():
        return read_tars(part, max_pixels)
    tars = tars_in(part)
    if not tars:
        paths, labels, classes = list_folder(part)
        numbers = number_classes(classes, part)
        return FilePictures(paths, [numbers[label] for label in labels], max_pixels), numbers
    for path in map(Path, entries(part)):
        if path.is_dir() or is_photo(path.name) or path.suffixes[-2:-1] == [".tar"] or path.suffix == ".tgz":
            raise UserError(f"{part}: holds {path.name} beside tars such as {tars[0].name}; keep one of the two there")
    return read_tars(part, max_pixels)


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


def _compare(training: Path, numbers: dict[str, int], held_out: Path, own: dict[str, int], held: set[int]) -> None:
    """Raise `UserError` for test classes that nothing was trained for; name training classes without a test."""
    if strangers := sorted(set(own) - set(numbers)):
        told = [name if name == name.strip() else repr(name) for name in strangers[:3]]
        raise UserError(
            f"{held_out}: {len(strangers)} of its class folders are not in {training} "
            f"({shown(', '.join(told))}); sort the validation pictures into the training set's class folders"
        )
    if untested := [name for name in numbers if own.get(name) not in held]:
        counts = f"{len(untested)} of the {len(numbers)} classes"
        warnings.warn(f"{held_out}: no photos of {counts} of imnet ({shown(', '.join(untested[:3]))})", stacklevel=2)
    for once, again in ((training, held_out), *((training / name, held_out / name) for name in own)):
        if once.exists() and again.exists() and os.path.samefile(once, again):
            warnings.warn(f"{again}: is {once} once more; imnet is tested on what was trained on", stacklevel=2)
            break


def read_tiny_imagenet(
    info: DatasetInfo, root: Path, *, max_pixels: int, train: bool
) -> tuple[Photos, Photos, tuple[str, ...]]:
    """Read the official layout, whose validation photos lie in one folder beside a list of their classes.

    Arguments, results and errors are those of `read_class_folders`.
    """
    root /= info.folder
    if train or (root / "train").is_dir():
        trains = _tiny_training(info, root, max_pixels)
    else:
        trains = FilePictures([], [])
    return trains, _tiny_validation(info, root, max_pixels), info.classes


def _tiny_training(info: DatasetInfo, root: Path, max_pixels: int) -> FilePictures:
    folders = [root / "train" / name / "images" for name in info.classes]
    files = [sorted(photos_below(folder)[0]) if folder.is_dir() else [] for folder in folders]
    if empty := [name for name, photos in zip(info.classes, files, strict=True) if not photos]:
        raise MissingData(
            f"{root}: no photos of {len(empty)} of {len(info.classes)} classes in train/<wnid>/images "
            f"({', '.join(empty[:3])}); unpack the archive anew"
        )
    for path in map(Path, entries(root / "train")):
        if path.is_dir() and path.name not in info.classes:
            raise UserError(f"{path}: is no class of {info.name}; move it away")
    labels = [number for number, photos in enumerate(files) for _ in photos]
    return FilePictures([path for photos in files for path in photos], labels, max_pixels)


def _tiny_validation(info: DatasetInfo, root: Path, max_pixels: int) -> FilePictures:
    numbers = {name: number for number, name in enumerate(info.classes)}
    notes, folder = root / "val" / "val_annotations.txt", root / "val" / "images"
    lines = read_lines(notes)
    try:
        rows = sorted(line.split("\t")[:2] for line in lines if line)
        labels = {name: numbers[wnid] for name, wnid in rows}
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{notes}: not a list of photos and their classes ({reason}); unpack the archive anew"
        ) from None
    if not rows:
        raise UserError(f"{notes}: lists no photos; unpack the archive anew")
    listed = {str(folder / name) for name in labels}
    there = set(photos_below(folder)[0]) if folder.is_dir() else set()
    if len(labels) < len(rows) or there != listed:
        odd = next(iter(sorted(there ^ listed)), "one of them twice")
        counts = f"lists {len(rows)} photos, and {len(there)} lie in images ({odd})"
        raise UserError(f"{notes}: {counts}; unpack the archive anew")
    return FilePictures([str(folder / name) for name in labels], list(labels.values()), max_pixels)
