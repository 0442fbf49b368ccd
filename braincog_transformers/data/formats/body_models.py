"""Files of the body model SMPL: the official pickle of Python 2, or an `.npz` of the same arrays.

Loading the official file normally needs chumpy and SciPy, and calls whatever the file names. Here it is read as a
description (`pickles`), of which the few arrays that a body consists of are taken: plain ones, chumpy's, which hold a
plain one, and SciPy's sparse ones.
"""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, listed, shown
from .arrays import npz_arrays
from .opening import complete, file_bytes, limit_unpacked, named
from .pickles import ARRAY_PARTS, Described, array_of, parsed

__all__ = ["BODY_FIELDS", "read_body_model"]

BODY_FIELDS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
"""Fields of a file that are read, see `models.body_model.SMPL`."""
_SOURCE = "the body model SMPL is the user's own, from https://smpl.is.tue.mpg.de"


def read_body_model(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a body model.

    Args:
        path: `.pkl`, as the authors of SMPL give it, or `.npz`.

    Returns:
        An array for each of `BODY_FIELDS`; their shapes are not looked at.

    Raises:
        UserError: for a file that is missing, foreign or damaged, or lacks a field.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; {_SOURCE}; without it joints are trained and scored")
    with named(path):
        raw = file_bytes(path)
        if zipfile.is_zipfile(io.BytesIO(raw)):
            return _from_npz(raw)
        with complete("pickle of a body model"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python remarks on escapes in damaged texts
            stored = parsed(io.BytesIO(raw), lambda name: ARRAY_PARTS.get(name, name))
        if type(stored) is not dict:
            raise UserError(f"no body model, but {_in_words(stored)}; {_SOURCE}")
        _require(stored)
        return {name: _field(name, stored[name]) for name in BODY_FIELDS}


def _require(found: Any) -> None:
    if missing := [name for name in BODY_FIELDS if name not in found]:
        raise UserError(f"has no {listed(missing, 6)}, which a body model needs; {_SOURCE}")


def _from_npz(raw: bytes) -> dict[str, np.ndarray]:
    with complete(".npz"), zipfile.ZipFile(io.BytesIO(raw)) as archive:
        _require({name.removesuffix(".npy") for name in archive.namelist()})
    return dict(zip(BODY_FIELDS, npz_arrays(raw, BODY_FIELDS), strict=True))


def _field(name: str, part: Any) -> np.ndarray:
    try:
        found = _dense(part)
    except UserError:
        raise
    except Exception as error:  # of any kind, since a damaged file may describe anything
        raise UserError(f"{name} is no complete array ({shown(error, 120)}); fetch it anew") from error
    if not isinstance(found, np.ndarray):
        raise UserError(
            f"{name} is {_in_words(part)}, which can't be read without running the file's code; save its numbers with "
            "numpy.savez"
        )
    return found


def _dense(part: Any) -> Any:
    """Return the numbers of an array, of one of chumpy's or of a sparse one; anything else as it is."""
    if type(part) is not Described:
        return part
    # Python 2 has copy_reg call for objects of older protocols
    rebuilt = part.name in ("copy_reg._reconstructor", "copyreg._reconstructor")
    name, state = str(part.arguments[0]) if rebuilt else part.name, part.state
    module, _, kind = name.rpartition(".")
    if module.startswith("chumpy.") and type(state) is dict:
        if kind == "Ch" and "x" in state:
            return _dense(state["x"])
        if kind == "Select":
            chosen = _dense(state["a"]).ravel()[_dense(state["idxs"]).ravel()]
            return chosen.reshape(state["preferred_shape"]) if state.get("preferred_shape") is not None else chosen
        return part
    if module.startswith("scipy.sparse") and kind in ("csc_matrix", "csr_matrix", "csc_array", "csr_array"):
        return _from_sparse(state, by_column=kind.startswith("csc"))
    return array_of(part) if name in ("_reconstruct", "_frombuffer") else part


def _from_sparse(state: dict[str, Any], *, by_column: bool) -> np.ndarray:
    """Return a matrix whose columns, or rows, list their entries."""
    height, width = state.get("_shape") or state["shape"]
    data, places, ends = (array_of(state[name]) for name in ("data", "indices", "indptr"))
    lines, length = (width, height) if by_column else (height, width)
    counts = np.diff(ends)
    limit_unpacked(8 * height * width)
    if ends.shape != (lines + 1,) or ends[0] != 0 or ends[-1] != len(data) or (counts < 0).any():
        raise ValueError("its entries are not those of its rows and columns")
    if places.shape != data.shape or ((places < 0) | (places >= length)).any():
        raise ValueError("its entries lie outside of it")
    found = np.zeros((lines, length))
    np.add.at(found, (np.repeat(np.arange(lines), counts), places), data)
    return found.T if by_column else found


def _in_words(part: Any) -> str:
    return shown(part.name, 80) if type(part) is Described else f"a {type(part).__name__}"
