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
from .photo_sets import FilePictures, read_class_folders, read_tiny_imagenet
from .pictures import MOST_PIXELS
from .places import find_root
from .tars import TarPictures

__all__ = ["ArrayPictures", "FilePictures", "PictureDataset", "Pictures", "picture_sources"]

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
    info: DatasetInfo, data_dir: Path, *, download: bool = False, max_pixels: int = MOST_PIXELS, train: bool = True
) -> tuple[Pictures, Pictures, tuple[str, ...]]:
    """Return the training pictures, the test pictures and the names of the classes.

    Args:
        info: entry of the catalogue.
        data_dir: folder in which it is looked for.
        download: fetch a missing set, where that is possible.
        max_pixels: of a photo in a file.
        train: whether photos for training have to be there; otherwise there may be none.

    Raises:
        UserError: for a set that is missing, damaged, or can't be fetched.
    """
    if info.name == "digits":
        return _digits(train=True), _digits(train=False), info.classes
    if info.name in _TORCHVISION:
        root = _torchvision_root(info, data_dir, download)
        sides = (_from_torchvision(info, root, train=side, download=download) for side in (True, False))
        return *sides, info.classes
    root = find_root(info, data_dir, train=train)
    read = read_tiny_imagenet if info.name == "tinyimagenet" else read_class_folders
    return read(info, root, max_pixels=max_pixels, train=train)


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
    found = ArrayPictures(np.asarray(stored.data), stored.targets)
    if len(found.targets) != len(found) or not all(0 <= label < info.num_classes for label in found.targets):
        counts = f"{len(found)} pictures and {len(found.targets)} labels, from 0 to {info.num_classes - 1}"
        raise UserError(f"data set {info.name} in {root} is damaged (it should hold {counts}); fetch it anew")
    return found
