"""Write files completely or not at all, and remove the temporary files of killed writers."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from .errors import shown

__all__ = ["clear_temporary", "reason", "sync_folder", "write_text", "write_whole"]

_TEMPORARY = re.compile(r"\..+\.(?P<writer>\d+)\.tmp")


def write_whole(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, and rename it when it is on the disk.

    Args:
        path: the file to replace; it keeps its old content when `write` fails.
        write: called with the temporary path.
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


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def clear_temporary(folder: Path) -> None:
    """Remove the temporary files of `write_whole` whose writers no longer run on this machine."""
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None and not _alive(int(match["writer"])):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    # each container counts from 1, so a killed process may have had our number; on Windows `kill` would kill
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
    """Say in one line of at most `most` characters why something failed.

    Some errors have a kind and no text, and a KeyError only a key.
    """
    text = shown(getattr(error, "strerror", None) or error, most)
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError) and text else text or type(error).__name__


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk; without this a power cut may undo a rename."""
    # Windows can't open folders
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
