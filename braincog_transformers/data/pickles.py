"""Arrays of objects in `.npy` files, which are pickles: only NumPy arrays and plain containers are brought back.

Loading a pickle normally runs whatever it names. Here it may name the few functions that NumPy's own arrays are
rebuilt with; a file that names anything else is refused before that is looked up.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

__all__ = ["load_npy"]

_REBUILDING = {
    "multiarray._reconstruct": np.ndarray(0).__reduce__()[0],
    "multiarray.scalar": np.float64(0).__reduce__()[0],
    "numeric._frombuffer": np.ndarray(1).__reduce_ex__(5)[0],
}
# Arrays that were written with NumPy 1 and 2 name the same functions in different modules.
_ALLOWED = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    **{f"numpy.{core}.{name}": part for core in ("core", "_core") for name, part in _REBUILDING.items()},
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        if wanted not in _ALLOWED:
            raise UserError(f"asks for {wanted}, which is no part of an array and might run code; not loaded")
        return _ALLOWED[wanted]


def load_npy(path: Path) -> np.ndarray:
    """Load a `.npy` file, be it of numbers or of objects that hold nothing but arrays and plain containers.

    Raises:
        UserError: for a file that is missing, foreign or truncated, or whose pickle names anything else.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            _, _, dtype = header[version](file)
            if not dtype.hasobject:
                return np.load(path, allow_pickle=False)
            stored = _ArraysOnly(file).load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:
        # A damaged pickle fails in as many ways as there are instructions in it.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: not a complete .npy array ({reason}); fetch it anew") from None
    if not isinstance(stored, np.ndarray):
        raise UserError(f"{path}: holds a {type(stored).__name__}, not an array; fetch it anew")
    return stored
