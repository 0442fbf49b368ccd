"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["sync_folder", "write_whole"]


def write_whole(path: str | os.PathLike, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path` and rename it only once it is on the disk.

    Args:
        path: the file to replace; it keeps its old content when `write` fails.
        write: is given the temporary path.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's own entries to the disk; without it a power cut may forget a rename."""
    # Windows can't open folders
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
