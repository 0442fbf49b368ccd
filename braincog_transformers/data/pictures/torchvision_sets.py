"""Pictures of torchvision's MNIST and CIFAR families."""

import contextlib
import io
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...files import reason
from ..loading.folders import MissingData, find_root
from ..registry import DatasetInfo
from ..settings import Access
from .stored import ArrayPictures

__all__ = ["read_torchvision"]


def read_torchvision(
    info: DatasetInfo, data_dir: Path, access: Access
) -> tuple[ArrayPictures, ArrayPictures, tuple[str, ...]]:
    """Return the training pictures, the test pictures and the names of the classes.

    Args:
        info: entry of the table, which names the class of torchvision's.
        data_dir: folder in which it is looked for, and into which it is fetched.
        access: whether it is fetched.

    Raises:
        UserError: for a set that is missing, damaged, or can't be fetched.
    """
    try:
        root = find_root(info, data_dir)
    except MissingData:
        if not access.download:
            raise
        root = data_dir
    train, test = (_from_torchvision(info, root, train=half, download=access.download) for half in (True, False))
    return train, test, info.classes


def _from_torchvision(info: DatasetInfo, root: Path, *, train: bool, download: bool) -> ArrayPictures:
    """Let torchvision check, fetch and read one half of a set; what it prints is kept away."""
    import torchvision.datasets

    family = getattr(torchvision.datasets, info.torchvision)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            stored = family(root, train=train, download=download)
    except Exception as error:
        # torchvision raises whatever its reader meets: RuntimeError, ValueError, pickle's, zlib's and urllib's errors.
        remedy = "check the network" if download else "fetch it anew, or let --download fetch it into an empty folder"
        problem = f"data set {info.name} in {root} is missing, incomplete or damaged ({reason(error)})"
        raise UserError(f"{problem}; {remedy}") from None
    found = ArrayPictures(np.asarray(stored.data), stored.targets)
    if len(found.targets) != len(found) or not all(0 <= label < info.num_classes for label in found.targets):
        counts = f"{len(found)} pictures and {len(found.targets)} labels, from 0 to {info.num_classes - 1}"
        raise UserError(f"data set {info.name} in {root} is damaged (it should hold {counts}); fetch it anew")
    return found
