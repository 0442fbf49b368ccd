"""Open what may be damaged or hostile: sizes are limited before they are read, and every failure is one line.

A file may hold any bytes, and the libraries that read it fail in more ways than they document. So all readers run
within `named`, which turns any exception into one `UserError` that begins with the file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...errors import UserError, shown
from ...files import reason

__all__ = ["LARGEST_UNPACKED", "after_lines", "complete", "file_bytes", "limit_unpacked", "named", "read_up_to"]

LARGEST_FILE = 1 << 30
"""Bytes of a recording; the largest of the known sets has a tenth of them."""
LARGEST_UNPACKED = 1 << 28
"""Bytes that the compressed parts of one recording may unpack to."""

_PIECE = 1 << 20


def file_bytes(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: for a file that can't be read.
        UserError: for one that is no file or too long for a recording.
    """
    size = path.stat().st_size
    if not path.is_file():  # a pipe or a device would be read for ever
        raise UserError("can't be read (it is no file)")
    if size > LARGEST_FILE:
        raise UserError(f"has {size} bytes, more than the {LARGEST_FILE} of any recording; fetch it anew")
    return path.read_bytes()


def after_lines(raw: bytes, mark: bytes) -> int:
    """Return the place after the lines of text at the start of a file, each of which begins with `mark`."""
    place = 0
    while raw.startswith(mark, place):
        place = raw.find(b"\n", place) + 1 or len(raw)
    return place


def limit_unpacked(size: int, largest: int = LARGEST_UNPACKED) -> int:
    """Return a size in bytes that a file declares, before anything of it is unpacked.

    Raises:
        UserError: if it is negative or larger than a recording may be.
    """
    if not 0 <= size <= largest:
        raise UserError(f"unpacks to {shown(size, 24)} bytes; a recording may have up to {largest}, fetch it anew")
    return size


def read_up_to(stream: BinaryIO, most: int) -> bytes:
    """Return what a stream unpacks to, or, where that is more than `most` bytes, one byte more than those."""
    parts, left = [], most + 1
    while left and (part := stream.read(min(left, _PIECE))):  # room for all of it would be made at once
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


@contextmanager
def complete(what: str, problem: str = "not a complete") -> Iterator[None]:
    """Turn whatever a library raises within into one line: the problem, what it is about, and the reason."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{problem} {what} ({reason(error)}); fetch it anew") from error


@contextmanager
def named(path: object) -> Iterator[None]:
    """Turn whatever is raised within into one `UserError` that begins with the file."""
    start = f"{path}: "
    try:
        yield
    except UserError as error:
        raise UserError(start + shown(str(error).removeprefix(start))) from error
    except OSError as error:
        raise UserError(f"{start}can't be read ({reason(error)})") from error
    except Exception as error:
        raise UserError(f"{start}damaged or foreign ({reason(error)}); fetch it anew") from error
