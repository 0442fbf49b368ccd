"""Files that are written whole or not at all, and what is left of those whose writer was killed."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from .errors import shown

__all__ = ["clear_temporary", "reason", "sync_folder", "write_whole"]

_TEMPORARY = re.compile(r"\..+\.(?P<writer>\d+)\.tmp")


def write_whole(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
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


def clear_temporary(folder: Path) -> None:
    """Remove the temporary files of `write_whole` in a folder whose writers are no longer alive on this machine."""
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None and not _alive(int(match["writer"])):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    # in a container the numbers begin anew, so that a killed process may have had ours; Windows' `kill` would kill
    if process == os.getpid() or os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def reason(error: Exception, most: int = 120) -> str:
    """Say in one line of at most `most` characters why something failed, such as a file that can't be read."""
    return shown(getattr(error, "strerror", None) or error, most) or type(error).__name__


def sync_folder(folder: Path) -> None:
    """Bring a folder's own entries to the disk; without it a power cut may forget a rename."""
    # Windows can't open folders
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
