"""MATLAB's level 5 files (-v6 and -v7), as far as columns of numbers need it.

SciPy's reader is compiled code that does not check the counts in a file, and a damaged one ends the process. The few
elements that recordings consist of are read here, where every slice has an end.

Layout: 116 bytes of text, 12 of versions and byte order; then elements of kind (uint32), size (uint32) and content,
padded to 8 bytes, or of up to 4 bytes behind size and kind in one uint32. An element `matrix` holds elements: flags
with the class of the numbers, dimensions, name, numbers. An element `compressed` holds one other, deflated by zlib.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from ...errors import UserError
from .opening import limit_unpacked

__all__ = ["mat_columns"]

_HEADING, _VERSION = 128, 0x0100
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 8
_NAMED_WITHIN = 512
"""Bytes of a matrix within which its name ends: flags, up to 32 dimensions, 63 letters."""


def mat_columns(raw: bytes, names: Sequence[str]) -> list[np.ndarray]:
    """Return the named variables, (N,) each.

    Raises:
        UserError: for a file of another level, a missing variable, or one that is no column of real numbers.
        Exception: whatever damaged counts lead to.
    """
    if raw[:8] == b"\x89HDF\r\n\x1a\n" or raw[:10] == b"MATLAB 7.3":
        raise UserError("not a complete MATLAB file of level 5 (it was saved with -v7.3); save it anew with -v7")
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:_HEADING])
    if not order or struct.unpack(order + "H", raw[124:126])[0] != _VERSION:
        raise UserError("not a complete MATLAB file of level 5; fetch it anew, or save it with -v7")
    found: dict[str, np.ndarray] = {}
    for kind, content in _elements(memoryview(raw)[_HEADING:], order):
        if kind == _COMPRESSED:
            content = _inflated(content, order, names)
        elif kind != _MATRIX or _name(content, order) not in names:
            continue
        if content:
            found[_name(content, order)] = _column(content, order)
    if missing := [name for name in names if name not in found]:
        raise UserError(f"not a complete MATLAB file (it has no {', '.join(missing)}); fetch it anew")
    return [found[name] for name in names]


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield kind and content of each element."""
    place = 0
    while place < len(content):
        kind, size = struct.unpack_from(order + "II", content, place)
        start, place = place + 8, place + 8 + size + (0 if kind == _COMPRESSED else -size % 8)
        if kind >> 16:  # a small element: its content is in the place of the size
            kind, size, start, place = kind & 0xFFFF, kind >> 16, start - 4, start
            if size > 4:
                raise ValueError("a small element has more than four bytes")
        if start + size > len(content):
            raise ValueError("an element ends behind the end of the file")
        yield kind, content[start : start + size]


def _inflated(content: memoryview, order: str, names: Sequence[str]) -> memoryview:
    """Return a compressed matrix, or nothing where it is none of those asked for."""
    stream = zlib.decompressobj()
    head = stream.decompress(content, 8 + _NAMED_WITHIN)
    kind, size = struct.unpack_from(order + "II", head)
    if kind != _MATRIX or _name(memoryview(head)[8:], order) not in names:
        return memoryview(b"")
    left = limit_unpacked(size) + 8 - len(head)
    # One byte more than there may be, so that the sum at the end of the stream is read and compared, too.
    whole = head + stream.decompress(stream.unconsumed_tail, max(left, 0) + 1)
    if len(whole) != size + 8 or not stream.eof:
        raise ValueError("a compressed variable has another size than it says")
    return memoryview(whole)[8:]


def _name(matrix: memoryview, order: str) -> str | None:
    parts = list(islice(_elements(matrix, order), 3))
    return bytes(parts[2][1]).decode("latin-1") if len(parts) == 3 else None


def _column(matrix: memoryview, order: str) -> np.ndarray:
    (_, flags), (_, sides), (_, name), (kind, numbers) = islice(_elements(matrix, order), 4)
    name = bytes(name).decode("latin-1")
    flags = struct.unpack_from(order + "I", flags)[0]
    if flags & 255 not in _NUMERIC_CLASSES or flags >> 8 & _COMPLEX or kind not in _NUMBERS:
        raise UserError(f"{name} must be a column of whole numbers; fetch it anew")
    sides = np.frombuffer(sides, order + "i4").tolist()
    column = np.frombuffer(numbers, order + _NUMBERS[kind])
    if sum(side != 1 for side in sides) > 1 and 0 not in sides:
        raise UserError(f"{name} must be a column of whole numbers; got {len(sides)} sides; fetch it anew")
    if min(sides, default=-1) < 0 or math.prod(sides) != len(column):
        raise ValueError(f"{name} has another number of elements than it says")
    return column
