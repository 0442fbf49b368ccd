"""NumPy's files, read from their bytes: the heading is checked against them before anything is made of it."""

import io
import math
import warnings
import zipfile
from collections.abc import Sequence

import numpy as np

from ...errors import UserError
from .opening import complete, limit_unpacked

__all__ = ["npy_array", "npy_heading", "npz_arrays"]

_HEADINGS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_ENCRYPTED = 1


def npy_heading(raw: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, whether the first index runs fastest, type, and where the numbers begin.

    Raises:
        UserError: for bytes that begin otherwise.
    """
    file = io.BytesIO(raw)
    with complete(".npy array"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged heading is parsed as Python, which may have remarks on it
        version = np.lib.format.read_magic(file)
        if version not in _HEADINGS:
            raise UserError(f"not a complete .npy array (of format {version[0]}.{version[1]}); save it anew")
        return *_HEADINGS[version](file), file.tell()


def npy_array(raw: bytes) -> np.ndarray:
    """Return the array of a `.npy` file of plain numbers.

    Raises:
        UserError: for other bytes, a type that holds objects, or fewer numbers than the heading declares.
    """
    shape, fortran, dtype, start = npy_heading(raw)
    if dtype.hasobject:
        raise UserError("not a .npy array of plain numbers; its type names Python objects, which are not loaded")
    with complete(".npy array"):
        number = math.prod(shape)
        if min(shape, default=0) < 0 or max(number, number * dtype.itemsize) > len(raw) - start:
            raise ValueError(f"{len(raw) - start} bytes are too few for its heading")
        return np.frombuffer(raw, dtype, number, start).reshape(shape, order="F" if fortran else "C")


def npz_arrays(raw: bytes, names: Sequence[str]) -> list[np.ndarray]:
    """Return the named arrays of an `.npz` file, stored or deflated.

    Raises:
        UserError: for members that are encrypted, packed otherwise, or unpack to more than a recording may have.
        Exception: of any kind that `zipfile` raises for a damaged file.
    """
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = [archive.getinfo(f"{name}.npy") for name in names]
        for member in members:
            if member.flag_bits & _ENCRYPTED:
                raise UserError("not a complete .npz (its members are encrypted); save it anew")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"not a complete .npz (packed by method {member.compress_type}); save it anew")
        limit_unpacked(sum(member.file_size for member in members))
        arrays = []
        for member in members:
            with archive.open(member) as file:  # `read` would use the size in front of the member
                content = file.read(member.file_size + 1)
            if len(content) != member.file_size:
                raise ValueError("a member is shorter than the list of members says")
            arrays.append(npy_array(content))
        return arrays
