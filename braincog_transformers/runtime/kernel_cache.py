"""PyTorch's cache of compiled kernels, cleared of what nobody can load.

A process that is killed while it compiles leaves half a library there. PyTorch takes every library that exists for a
good one, from then on in every process; a short one it can't load, and a longer half ends the process that tries.
"""

import functools
import os
import re
import struct
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

__all__ = ["elsewhere", "ensure_folder", "remove_named", "sweep"]

# What a C++ compiler writes and later reads; precompiled headers lie beside their source.
_BUILT = {".so", ".o", ".pyd", ".dylib", ".gch", ".pch"}
_HEADER = 64
# Seconds that another process may need for one kernel.
_PATIENCE = 60


def ensure_folder() -> None:
    """Make the cache's folder where the user names one; where that can't be, name another, with one line.

    PyTorch makes it as soon as its compiler is imported, which torchvision does.
    """
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if not folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        warnings.warn(
            f"TORCHINDUCTOR_CACHE_DIR: {folder!r} can't be made ({error.strerror}); kernels are kept for this process "
            "only.",
            RuntimeWarning,
            stacklevel=3,
        )
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = _own_folder().name


@functools.cache
def sweep(folder: str) -> None:
    """Remove the libraries in a cache that are not as long as their own headers say, once in a process.

    Raises:
        OSError: if the folder can't be read, or a file not removed.
    """
    if sys.platform != "linux":  # elsewhere libraries have another format
        return
    for path in Path(folder).glob("*/*.so"):
        if not _whole(path):
            _remove_when_free(path, Path(folder))


def _whole(path: Path) -> bool:
    """Tell whether a library ends behind its table of sections, which is the last thing in it."""
    with path.open("rb") as file:
        head = file.read(_HEADER)
        size = os.fstat(file.fileno()).st_size
    if len(head) < _HEADER or head[:4] != b"\x7fELF":
        return False
    if head[4] != 2:  # 32 bits, which the loader refuses with an error
        return True
    order = "<" if head[5] == 1 else ">"
    (start,) = struct.unpack_from(order + "Q", head, 40)
    entry, count = struct.unpack_from(order + "HH", head, 58)
    return start > 0 and start + entry * count <= size


def _remove_when_free(path: Path, folder: Path) -> None:
    """Remove a damaged file, unless a process is just writing it, as PyTorch's lock on it tells."""
    with FileLock(str(folder / "locks" / f"{path.name.split('.')[0]}.lock"), timeout=_PATIENCE):
        if path.exists() and not _whole(path):
            path.unlink()


def remove_named(error: Exception) -> bool:
    """Remove what a compiler or loader complains of from PyTorch's cache; tell whether there was something."""
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR")  # PyTorch sets it when it first looks for its cache
    named = re.findall(re.escape(folder) + r"[^\s:'\"]+", str(error)) if folder else []
    files = {file for path in named for file in (Path(path), Path(f"{path}.gch")) if file.suffix in _BUILT}
    there = [file for file in files if file.is_file()]
    for file in there:
        with suppress(OSError):  # someone else's: then the next attempt is made elsewhere
            file.unlink()
    return any(not file.exists() for file in there)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Let PyTorch keep what it compiles within in a folder of this process, which goes with it."""
    from torch._inductor.utils import clear_inductor_caches

    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    before = {name: os.environ.get(name) for name in names}
    clear_inductor_caches()
    try:
        os.environ.update(dict.fromkeys(names, _own_folder().name))
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        clear_inductor_caches()


@functools.cache
def _own_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="torchinductor_")
