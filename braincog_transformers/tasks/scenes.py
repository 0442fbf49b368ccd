"""Folders of scenes that a task generates: written completely or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..errors import UserError
from ..files import reason

__all__ = ["write_scene"]


def write_scene(folder: Path, write: Callable[[Path], object]) -> Path:
    """Return a folder, which `write` fills unless it is there.

    Args:
        folder: of the scene.
        write: called with an empty folder beside it, which is renamed when `write` has ended.

    Raises:
        UserError: for a place that can't be written.
    """
    if folder.is_dir():
        return folder
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir(parents=True)
        write(beside)
        beside.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            problem = f"{folder}: the scene can't be written ({reason(error)}); name another folder with --data-dir"
            raise UserError(problem) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder
