"""Read checkpoint files: as data that runs no code, within bounds, and with the sums that their archives keep.

What `torch.save` writes is an archive with a sum for each tensor, which `torch.load` never compares: they are compared
here. safetensors files, and those from before PyTorch 1.6, hold no sums, only sizes.
"""

import argparse
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from ..errors import UserError, shown

__all__ = ["read_checkpoint", "read_header"]

_PLAIN = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|U\d{1,4}")
_FACTORIES = ("bool", "complex", "dict", "float", "int", "list", "set", "str", "tuple")
_PATHS = {"Posix": pathlib.PurePosixPath, "Windows": pathlib.PureWindowsPath}


class dtype:
    """Stands in for `numpy.dtype`, whose own reading of a state can make pointers of a file's bytes."""

    __module__ = "numpy"

    def __init__(self, code: str, *_: Any):
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple):
        self.order = ">" if state[1] == ">" else "<"


class Logger:
    """Stands in for the history of a training script from a widespread template, which checkpoints hold beside the
    weights; what the script wrote is kept as attributes, and nobody reads it."""

    __module__ = "logger.logger"


def _scalar(kind: dtype, raw: bytes) -> bool | int | float | complex | str:
    """Return the value of a NumPy scalar as one of Python's."""
    if type(kind) is not dtype or not isinstance(kind.code, str) or not _PLAIN.fullmatch(kind.code):
        raise pickle.UnpicklingError("a NumPy scalar that is neither a number nor a text")
    if kind.code.startswith("U"):
        return raw.decode("utf-32-le" if kind.order == "<" else "utf-32-be").rstrip("\0")
    return np.frombuffer(raw, kind.order + kind.code).item()


def _without_default(*_: Any) -> dict:
    """Stand in for a `defaultdict`: what it holds matters, not what it would make."""
    return {}


def _never(*_: Any) -> None:
    raise pickle.UnpicklingError("a call of a built-in type")


def _called(name: str, function: Callable) -> Callable:
    """Return a copy of a function under the name that a file has for it; PyTorch 2.6 knows no other way to say so."""

    def copy(*args: Any) -> Any:
        return function(*args)

    copy.__module__, _, copy.__name__ = name.rpartition(".")
    copy.__qualname__ = copy.__name__
    return copy


_SAFE = [
    argparse.Namespace,
    dtype,
    Logger,
    *(_called(f"{module}.multiarray.scalar", _scalar) for module in ("numpy.core", "numpy._core")),
    _called("collections.defaultdict", _without_default),
    *(_called(f"builtins.{name}", _never) for name in _FACTORIES if name not in ("complex", "set")),
    *(
        _called(f"{module}.{pure}{system}Path", kind)
        for module in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for system, kind in _PATHS.items()
    ),
]


def read_checkpoint(path: str | pathlib.Path) -> dict[str, Any]:
    """Read a checkpoint file onto the CPU, without running any code in it, and compare the sums that it holds.

    Besides tensors and Python's own values it may hold `argparse.Namespace`, paths (read as pure ones), `defaultdict`
    (read as a dictionary) and NumPy scalars (read as numbers).

    Args:
        path: a `.safetensors` file, or one written by `torch.save`.

    Returns:
        What the file holds; for safetensors `{"state_dict": tensors}`.

    Raises:
        UserError: if the file is missing, damaged, foreign, or a pickle that would run code.
    """
    path = _existing(path)
    try:
        if path.suffix == ".safetensors":
            return {"state_dict": safetensors.torch.load_file(path)}
        _check_archive(path)
        with torch.serialization.safe_globals(_SAFE), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # whatever a damaged file makes of the libraries
        kind = " or no safetensors file" if path.suffix == ".safetensors" else " or no checkpoint"
        raise UserError(f"checkpoint {shown(path)} is damaged{kind} ({_reason(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {shown(path)} holds a {type(content).__name__}, not a dictionary of weights")
    return content


def read_header(path: str | pathlib.Path) -> dict[str, str]:
    """Return the texts by name in the header of a safetensors file, without reading its tensors.

    Raises:
        UserError: if the file is missing, damaged or foreign.
    """
    path = _existing(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:  # whatever a damaged file makes of the library
        raise UserError(f"{shown(path)} is damaged or no safetensors file ({_reason(error)})") from error


def _existing(path: str | pathlib.Path) -> pathlib.Path:
    path = pathlib.Path(path)
    try:
        if path.is_file():
            return path
        why = "it is a folder" if path.is_dir() else "it is no regular file" if path.exists() else ""
    except (OSError, ValueError) as error:  # a name too long, a folder that may not be read
        why = _reason(error)
    raise UserError(f"checkpoint {shown(path)} does not exist" + (f" as a file; {why}" if why else ""))


def _check_archive(path: pathlib.Path) -> None:
    """Refuse an archive that would grow beyond bounds when it is read, or whose bytes have changed."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries, size = archive.infolist(), path.stat().st_size
        declared = sum(entry.file_size for entry in entries)
        # torch.save never compresses; entries that others have compressed may grow, but not without bounds
        if declared > 8 * size + 2**26:
            raise UserError(
                f"checkpoint {shown(path)} is refused: its {size:,} bytes would become {declared:,} when they are read"
            )
        # without sums, which is an option of torch.save, all of them are 0
        if any(entry.CRC for entry in entries) and (broken := archive.testzip()) is not None:
            raise UserError(
                f"checkpoint {shown(path)} is damaged: the sum of its entry {shown(broken, 80)} is wrong; take another "
                "copy of it"
            )


def _refusal(path: pathlib.Path, text: str) -> UserError:
    """Return the error for a file that `weights_only` refuses, with the reason."""
    found = re.search(r"GLOBAL (\S+)", text)
    if found:
        return UserError(
            f"checkpoint {shown(path)} is refused: it is no plain data, it would load {shown(found[1], 80)}; save only "
            "its weights, torch.save(model.state_dict(), ...), or as safetensors."
        )
    if "DTensor" in text:
        return UserError(f"checkpoint {shown(path)} holds distributed tensors; save it with whole ones (full_tensor())")
    reason = re.search(r"WeightsUnpickler error:\s*(.+)", text)
    detail = shown(reason[1] if reason else text.split("\n")[0], 120)
    return UserError(f"checkpoint {shown(path)} is damaged or no checkpoint ({detail})")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return shown(lines[0] if lines else type(error).__name__, 120)
