"""The HDF5 files of spikes: what a file declares is compared with its size before any of it is read.

The library makes room for whatever shape a damaged heading names, follows links to other files, and gives types that
are no numbers; so a data set is looked at first, and samples of any length are read some at a time.
"""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from ..errors import UserError
from .columns import LATEST_US, whole_numbers
from .opening import complete, file_bytes, limit_unpacked, read_up_to

__all__ = ["read_spikes"]

_LARGEST_PACKED = 1 << 33
_PACKED_MOST, _PACKED_MORE = 64, 1 << 26
"""A packed file may unpack to so many times its size, and so many bytes."""
_ROWS = 256
_LONGEST_NAME = 1000


def read_spikes(path: Path, names: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return times in seconds and channels of all spikes, spikes of each sample, labels, and names of classes.

    Args:
        path: of an `.h5` file, or of one packed as `.h5.gz`.
        names: number of classes that the file must name; 0 leaves the names unread.

    Raises:
        UserError: for a file of another format, other shapes and types, or sizes that it can't have.
    """
    with complete("HDF5 file of spikes and labels"):
        packed = path.suffix == ".gz"
        plain = io.BytesIO(_unpacked(file_bytes(path, _LARGEST_PACKED))) if packed else path
        size = plain.getbuffer().nbytes if packed else path.stat().st_size
        with h5py.File(plain, "r") as stored:
            seconds, counts = _samples(stored, "spikes/times", size)
            channels, others = _samples(stored, "spikes/units", size)
            labels = _checked(stored, "labels", size, _is_number)[:]
            classes = _names(stored, names, size) if names else []
    if others.tolist() != counts.tolist() or len(labels) != len(counts):
        raise UserError("times, units and labels are not equally many; fetch it anew")
    if channels.dtype.kind == "f":
        channels = whole_numbers("units", channels, -LATEST_US, LATEST_US)
    return seconds, channels, counts, whole_numbers("labels", labels, -LATEST_US, LATEST_US), classes


def _unpacked(raw: bytes) -> bytes:
    largest = _PACKED_MOST * len(raw) + _PACKED_MORE
    content = read_up_to(gzip.GzipFile(fileobj=io.BytesIO(raw)), largest)
    limit_unpacked(len(content), largest)
    return content


def _checked(stored: h5py.File, name: str, size: int, fits: Callable[[np.dtype], bool]) -> h5py.Dataset:
    """Return a data set of one axis, after a look at everything that reading it would believe."""
    found = stored
    for part in name.split("/"):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise UserError(f"not a complete HDF5 file of spikes and labels (it has no {name}); fetch it anew")
        if not isinstance(link, h5py.HardLink):
            raise UserError(f"{name} lies in another file or place; fetch it anew")
        found = found[part]
    if not isinstance(found, h5py.Dataset) or found.shape is None or len(found.shape) != 1 or not fits(found.dtype):
        raise UserError(f"{name} is no data set of one axis with the right kind of values; fetch it anew")
    if found.external or found.is_virtual:
        raise UserError(f"{name} lies in another file; fetch it anew")
    if len(found) > size or (found.chunks and found.chunks[0] > size + (1 << 16)):
        raise UserError(f"{name} has a length that a file of {size} bytes can't hold; fetch it anew")
    return found


def _is_number(kind: np.dtype) -> bool:
    return kind.kind in "iuf" and h5py.check_enum_dtype(kind) is None


def _is_samples(kind: np.dtype) -> bool:
    parts = h5py.check_vlen_dtype(kind)
    return isinstance(parts, np.dtype) and _is_number(parts)


def _samples(stored: h5py.File, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of all samples, one after the other, and how many each has."""
    found = _checked(stored, name, size, _is_samples)
    kind = h5py.check_vlen_dtype(found.dtype)
    parts, total = [np.empty(0, kind)], 0
    for start in range(0, len(found), _ROWS):
        rows = found[start : start + _ROWS]
        total += sum(len(row) for row in rows)
        if total * kind.itemsize > size:  # such values are never packed
            raise UserError(f"{name} has more values than a file of {size} bytes can hold; fetch it anew")
        parts += list(rows)
    return np.concatenate(parts), np.array([len(row) for row in parts[1:]], np.int64)


def _names(stored: h5py.File, number: int, size: int) -> list[str]:
    found = _checked(stored, "extra/keys", size, lambda kind: h5py.check_string_dtype(kind) is not None)
    if len(found) != number:
        raise UserError(f"names {len(found)} classes of {number} in extra/keys; fetch it anew")
    if found.dtype.itemsize > _LONGEST_NAME:
        raise UserError(f"extra/keys has names of up to {found.dtype.itemsize} bytes; fetch it anew")
    return [bytes(name).decode()[:_LONGEST_NAME] for name in found[:]]
