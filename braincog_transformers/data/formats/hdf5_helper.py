"""Read HDF5 files of spikes in a process of its own; run as a script by `hdf5.py`, without the rest of the package.

HDF5 allocates and fills the length that each sample of a damaged file declares: gigabytes, or minutes. Here it may take
the memory that the size of the file explains, and the process that asked ends this one where it takes too long.

One request is a line of JSON: path and number of names. The answer is a line of JSON: a `problem`, or types and lengths
of four arrays and the names of classes; then the bytes of the arrays.
"""

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

__all__ = ["Refused", "read"]

_PACKED_MOST, _PACKED_MORE = 64, 1 << 26
"""A packed file may unpack to so many times its size, and so many bytes."""
_MEMORY_MOST, _MEMORY_MORE = 16, 1 << 28
"""The memory that reading may take: so many times the size of the file, and so many bytes."""
_PIECE = 1 << 20
_ROWS = 256
_LONGEST_NAME = 1000


class Refused(ValueError):
    """What is wrong with a file that HDF5 itself would read."""


def read(path: Path, names: int) -> tuple[list[np.ndarray], list[str]]:
    """Return times, channels, spikes of each sample and labels, and the names of classes.

    Args:
        path: of an `.h5` file, or of one packed as `.h5.gz`.
        names: number of classes that the file must name; 0 leaves the names unread.

    Raises:
        Refused: for other shapes and types, or sizes that the file can't have.
        Exception: whatever HDF5 makes of a damaged file.
    """
    file = _unpacked(path) if path.suffix == ".gz" else path
    size = file.getbuffer().nbytes if path.suffix == ".gz" else path.stat().st_size
    _limit_memory(_MEMORY_MOST * size + _MEMORY_MORE)
    with h5py.File(file, "r") as stored:
        seconds, counts = _samples(stored, "spikes/times", size)
        channels, others = _samples(stored, "spikes/units", size)
        labels = _checked(stored, "labels", size, _is_number)[:]
        classes = _names(stored, names, size) if names else []
    if others.tolist() != counts.tolist() or len(labels) != len(counts):
        raise Refused("times, units and labels are not equally many")
    return [seconds, channels, counts, labels], classes


def _unpacked(path: Path) -> io.BytesIO:
    largest = _PACKED_MOST * path.stat().st_size + _PACKED_MORE
    content = io.BytesIO()
    with gzip.open(path) as stream:
        while piece := stream.read(_PIECE):
            content.write(piece)
            if content.tell() > largest:
                raise Refused(f"unpacks to more than {largest} bytes")
    return content


def _limit_memory(more: int) -> None:
    """Let no more memory be taken than there is now, and so many bytes; where the system has such a limit."""
    statistics = Path("/proc/self/statm")
    if statistics.is_file():
        import resource

        now = int(statistics.read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = now + more if hard == resource.RLIM_INFINITY else min(now + more, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _checked(stored: h5py.File, name: str, size: int, fits: Callable[[np.dtype], bool]) -> h5py.Dataset:
    """Return a data set of one axis, after a check of everything that reading it relies on."""
    found = stored
    for part in name.split("/"):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise Refused(f"not a complete HDF5 file of spikes and labels: it has no {name}")
        if not isinstance(link, h5py.HardLink):
            raise Refused(f"{name} is in another file or place")
        found = found[part]
    if not isinstance(found, h5py.Dataset) or found.shape is None or len(found.shape) != 1 or not fits(found.dtype):
        raise Refused(f"{name} is no data set of one axis with the right kind of values")
    if found.external or found.is_virtual:
        raise Refused(f"{name} is in another file")
    if found.shape[0] > size or (found.chunks and found.chunks[0] > size + (1 << 16)):
        raise Refused(f"{name} has a length that a file of {size} bytes can't hold")
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
            raise Refused(f"{name} has more values than a file of {size} bytes can hold")
        parts += list(rows)
    return np.concatenate(parts), np.array([len(row) for row in parts[1:]], np.int64)


def _names(stored: h5py.File, number: int, size: int) -> list[str]:
    found = _checked(stored, "extra/keys", size, lambda kind: h5py.check_string_dtype(kind) is not None)
    if len(found) != number:
        raise Refused(f"names {len(found)} classes of {number} in extra/keys")
    if found.dtype.itemsize > _LONGEST_NAME:
        raise Refused(f"extra/keys has names of up to {found.dtype.itemsize} bytes")
    return [bytes(name).decode()[:_LONGEST_NAME] for name in found[:]]


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer one request after the other, until there are no more."""
    answers.write(b"ready\n")
    answers.flush()
    for request in requests:
        try:
            path, names = json.loads(request)
            arrays, classes = read(Path(path), names)
            answer = {"arrays": [(array.dtype.str, len(array)) for array in arrays], "classes": classes}
        except Exception as error:
            # any error of the library is an answer, too, and the process goes on
            text = str(getattr(error, "strerror", None) or error)[:120] or type(error).__name__
            problem = text if isinstance(error, Refused) else f"not a complete HDF5 file of spikes and labels ({text})"
            arrays, answer = [], {"problem": problem}
        answers.write(json.dumps(answer).encode() + b"\n")
        for array in arrays:
            answers.write(np.ascontiguousarray(array).data.cast("B"))
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
