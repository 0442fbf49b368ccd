"""Picture data sets: scikit-learn's digits, torchvision's MNIST and CIFAR families, and photos in folders or tars."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from .catalog import DatasetInfo
from .digits import digit_pictures
from .pictures import decoded
from .places import VALIDATION_FOLDERS, MissingData, find_root, photo_part
from .tars import TarPictures, read_tars

__all__ = ["ArrayPictures", "FilePictures", "PictureDataset", "picture_sources"]

_TORCHVISION = {
    "mnist": "MNIST", "fashion": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100",
    "smnist": "MNIST", "psmnist": "MNIST", "scifar10": "CIFAR10",
}  # fmt: skip


class ArrayPictures:
    """Pictures held in memory.

    Args:
        pixels: (N, H, W) or (N, H, W, 3) uint8.
        targets: labels.
    """

    def __init__(self, pixels: np.ndarray, targets: Sequence[int]) -> None:
        self.pixels = pixels
        self.targets = [int(target) for target in targets]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


class FilePictures:
    """Photos in files.

    Args:
        paths: of the photos.
        targets: labels.
    """

    def __init__(self, paths: Sequence[str], targets: Sequence[int]) -> None:
        self.paths = list(paths)
        self.targets = list(targets)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return decoded(self.paths[index], self.paths[index])


Pictures = ArrayPictures | FilePictures | TarPictures


class PictureDataset(Dataset):
    """Serve pictures through a transform.

    Args:
        source: pictures and `targets`.
        mode: PIL's mode that the pictures are brought to, `L` or `RGB`.
        transform: from a PIL picture to a tensor.
    """

    def __init__(
        self,
        source: ArrayPictures | FilePictures | TarPictures,
        *,
        mode: str,
        transform: Callable[[Image.Image], Tensor],
    ) -> None:
        self.source = source
        self.targets = source.targets
        self.mode = mode
        self.transform = transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a picture (C, H, W) float32 and its label."""
        picture = self.source[index]
        if picture.mode != self.mode:
            picture = picture.convert(self.mode)
        return self.transform(picture), self.targets[index]


def picture_sources(
    info: DatasetInfo, data_dir: Path, *, download: bool = False
) -> tuple[Pictures, Pictures, tuple[str, ...]]:
    """Return the training pictures, the test pictures and the names of the classes.

    Args:
        info: entry of the catalogue.
        data_dir: folder in which it is looked for.
        download: fetch a missing set, where that is possible.

    Raises:
        UserError: for a set that is missing, damaged, or can't be fetched.
    """
    if info.name == "digits":
        train, test = (_digits(train=train) for train in (True, False))
        return train, test, info.classes
    if info.name in _TORCHVISION:
        root = _torchvision_root(info, data_dir, download)
        train, test = (_from_torchvision(info, root, train=train, download=download) for train in (True, False))
        return train, test, info.classes
    root = find_root(info, data_dir)
    return _tiny_imagenet(info, root) if info.name == "tinyimagenet" else _photo_folders(info, root)


def _digits(*, train: bool) -> ArrayPictures:
    pictures, labels = digit_pictures(train=train)
    return ArrayPictures(np.round(pictures * 255).astype(np.uint8), labels)


def _torchvision_root(info: DatasetInfo, data_dir: Path, download: bool) -> Path:
    if not download:
        return find_root(info, data_dir)
    try:
        return find_root(info, data_dir)
    except UserError:
        return data_dir


def _from_torchvision(info: DatasetInfo, root: Path, *, train: bool, download: bool) -> ArrayPictures:
    """Let torchvision check, fetch and read one half of a set; what it prints is kept away."""
    import torchvision.datasets

    family = getattr(torchvision.datasets, _TORCHVISION[info.name])
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            stored = family(root, train=train, download=download)
    except Exception as error:
        # torchvision raises whatever its reader meets: RuntimeError, ValueError, pickle's, zlib's and urllib's errors.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        remedy = "check the network" if download else "fetch it anew, or let --download fetch it into an empty folder"
        problem = f"data set {info.name} in {root} is missing, incomplete or damaged ({reason})"
        raise UserError(f"{problem}; {remedy}") from None
    return ArrayPictures(np.asarray(stored.data), stored.targets)


def _photo_folders(info: DatasetInfo, root: Path) -> tuple[Pictures, Pictures, tuple[str, ...]]:
    """Read `train` and `val` or `validation`; the training classes, in their natural order, number the labels."""
    held_out = next(path for name in VALIDATION_FOLDERS if (path := photo_part(root, name)))
    training = photo_part(root, "train")
    train, numbers = _photos(training, info)
    test, test_numbers = _photos(held_out, info)
    if strangers := sorted(set(test_numbers) - set(numbers)):
        raise UserError(
            f"{held_out}: {len(strangers)} of its class folders are not in {training} "
            f"({', '.join(strangers[:3])}); sort the validation pictures into the training set's class folders"
        )
    names = {number: name for name, number in test_numbers.items()}
    test.targets = [numbers[names[number]] for number in test.targets]
    return train, test, tuple(numbers)


def _photos(part: Path, info: DatasetInfo) -> tuple[FilePictures | TarPictures, dict[str, int]]:
    """List the photos of one half, with the labels by class."""
    from timm.data import create_dataset

    if part.suffix == ".tar" or any(part.glob("*.tar")):
        return read_tars(part)
    try:
        reader = create_dataset("", str(part), search_split=False).reader
    except RuntimeError as error:
        raise UserError(f"{part.parent}: {' '.join(str(error).split())}; expected {info.tree}") from None
    return FilePictures(*zip(*reader.samples, strict=True)), reader.class_to_idx


def _tiny_imagenet(info: DatasetInfo, root: Path) -> tuple[FilePictures, FilePictures, tuple[str, ...]]:
    """Read the official layout, whose validation photos lie in one folder beside a list of their classes."""
    root /= info.folder
    folders = [root / "train" / name / "images" for name in info.classes]
    files = [sorted(folder.glob("*.JPEG")) for folder in folders]
    if empty := [name for name, photos in zip(info.classes, files, strict=True) if not photos]:
        raise MissingData(
            f"{root}: no photos of {len(empty)} of {len(info.classes)} classes in train/<wnid>/images "
            f"({', '.join(empty[:3])}); unpack the archive anew"
        )
    numbers = {name: number for number, name in enumerate(info.classes)}
    trains = FilePictures([str(p) for photos in files for p in photos], [n for n, f in enumerate(files) for _ in f])
    notes = root / "val" / "val_annotations.txt"
    try:
        rows = sorted(line.split("\t")[:2] for line in notes.read_text(encoding="utf-8").splitlines())
        labels = [numbers[wnid] for _, wnid in rows]
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{notes}: not a list of photos and their classes ({reason}); unpack the archive anew"
        ) from None
    if not rows:
        raise UserError(f"{notes}: lists no photos; unpack the archive anew")
    return trains, FilePictures([str(root / "val" / "images" / name) for name, _ in rows], labels), info.classes
