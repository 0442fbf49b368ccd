"""Picture data sets: scikit-learn's digits, torchvision's MNIST and CIFAR families, and a folder of photos."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from .catalog import DatasetInfo
from .digits import digit_pictures
from .places import VALIDATION_FOLDERS, find_root

__all__ = ["ArrayPictures", "FilePictures", "PictureDataset", "picture_sources"]

_TORCHVISION = {"mnist": "MNIST", "fashion": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


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
        try:
            return Image.open(self.paths[index]).convert("RGB")
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{self.paths[index]}: not a complete picture ({reason}); fetch it anew") from None


class PictureDataset(Dataset):
    """Serve pictures through a transform.

    Args:
        source: pictures and `targets`.
        mode: PIL's mode that the pictures are brought to, `L` or `RGB`.
        transform: from a PIL picture to a tensor.
    """

    def __init__(
        self, source: ArrayPictures | FilePictures, *, mode: str, transform: Callable[[Image.Image], Tensor]
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
) -> tuple[ArrayPictures | FilePictures, ArrayPictures | FilePictures, tuple[str, ...]]:
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
    return _photo_folders(info, data_dir)


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


def _photo_folders(info: DatasetInfo, data_dir: Path) -> tuple[FilePictures, FilePictures, tuple[str, ...]]:
    """Read `train` and `val` or `validation` with a folder per class; the training folders number the classes."""
    from timm.data import create_dataset

    root = find_root(info, data_dir)
    held_out = next(root / name for name in VALIDATION_FOLDERS if (root / name).is_dir())
    try:
        train = create_dataset("", str(root / "train"), search_split=False).reader
        test = create_dataset("", str(held_out), search_split=False).reader
    except RuntimeError as error:
        raise UserError(f"{root}: {' '.join(str(error).split())}; expected {info.tree}") from None
    numbers = train.class_to_idx
    strangers = sorted(set(test.class_to_idx) - set(numbers))
    if strangers:
        raise UserError(
            f"{held_out}: {len(strangers)} of its class folders are not in {root / 'train'} "
            f"({', '.join(strangers[:3])}); sort the validation pictures into the training set's class folders"
        )
    names = {number: name for name, number in test.class_to_idx.items()}
    tests = FilePictures([path for path, _ in test.samples], [numbers[names[number]] for _, number in test.samples])
    trains = FilePictures([path for path, _ in train.samples], [number for _, number in train.samples])
    return trains, tests, tuple(numbers)
