"""Checkpoints: written whole or not at all, ranked by timm's saver, and found again after a crash."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from timm.utils import CheckpointSaver
from torch import nn

from ..checkpoints import load_content, read_checkpoint
from ..errors import UserError, shown
from ..files import sync_folder, write_whole
from .state import position, require_run

__all__ = ["ENDING", "Checkpoints", "clear_unfinished", "find_state", "is_unfinished", "load_weights"]

ENDING = ".pth.tar"
NAMED = re.compile(r"(?:recovery-(?P<epoch>\d+)-(?P<batch>\d+)|checkpoint-(?P<finished>\d+))\.pth\.tar")
# what timm's saver renames once it is written, and what earlier versions left behind
_UNFINISHED = re.compile(r"(?:recovery_)?tmp\.pth\.tar|\..+\.pth\.tar\.tmp")


class Checkpoints(CheckpointSaver):
    """Keep the last state, the one before it, the best, the best few epochs, and two recovery states.

    Args:
        folder: where they are written.
        decreasing: whether a lower metric is better.
        history: number of ranked epochs that are kept.
    """

    def __init__(self, folder: str | os.PathLike, *, decreasing: bool = False, history: int = 3):
        places = {"checkpoint_dir": str(folder), "recovery_dir": str(folder)}
        super().__init__(model=None, optimizer=None, **places, decreasing=decreasing, max_history=history)
        self.folder = Path(folder)
        self._state: dict[str, Any] = {}

    @property
    def last(self) -> Path:
        """Return the path of the newest epoch's state."""
        return self.folder / f"last{ENDING}"

    @property
    def best(self) -> Path:
        """Return the path of the best epoch's state."""
        return self.folder / f"model_best{ENDING}"

    def save_epoch(self, state: dict[str, Any], *, metric: str) -> None:
        """Save the state after an epoch, and rank it by a column of its last row."""
        row = state["rows"][-1]
        self._state = state | {"metric": row[metric]}
        self.save_checkpoint(row["epoch"], row[metric])
        self._state = {}

    def save_midway(self, state: dict[str, Any]) -> None:
        """Save a state in the middle of an epoch; the two newest of them are kept."""
        self._state = state
        self.save_recovery(*position(state))
        self._state = {}

    def save_last(self, state: dict[str, Any]) -> None:
        """Save a state as the last one without ranking it."""
        _write(state, self.last)

    def continue_from(self, state: dict[str, Any], *, metric: str) -> None:
        """Take up the ranking and the recovery files of the run that the state belongs to.

        Args:
            state: the state that is continued.
            metric: column of its rows that epochs are ranked by.
        """
        if any(not isinstance(row.get(metric), (int, float)) for row in state["rows"]):
            raise UserError(f"--resume: the rows of the state have no column {metric!r}, which ranks the epochs.")
        ranked = [(self.folder / f"checkpoint-{row['epoch']}{ENDING}", row[metric]) for row in state["rows"]]
        found = [(str(path), value) for path, value in ranked if path.exists()]
        self.checkpoint_files = sorted(found, key=lambda entry: entry[1], reverse=not self.decreasing)
        self.best_metric, self.best_epoch = state["best"], state["best_epoch"]
        recovery = sorted(self.folder.glob(f"recovery-*{ENDING}"), key=_named_position)
        self.prev_recovery_file, self.curr_recovery_file = ["", "", *map(str, recovery)][-2:]

    # below: what timm's saver calls, made safe against a crash at any moment

    def _save(self, save_path: str, epoch: int, metric: float | None = None) -> None:
        _write(self._state, save_path)

    def _replace(self, src: str, dst: str) -> None:
        if Path(dst) == self.last and self.last.exists():
            self._duplicate(dst, str(self.folder / f"previous{ENDING}"))
        os.replace(src, dst)
        sync_folder(self.folder)

    def _duplicate(self, src: str, dst: str) -> None:
        copy = super()._duplicate
        write_whole(dst, lambda beside: copy(src, str(beside)))


def _write(state: dict[str, Any], path: str | os.PathLike) -> None:
    """Write a state whole or not at all.

    Raises:
        OSError: where there is no room, no permission or no folder.
    """

    def write(beside: Path) -> None:
        with open(beside, "wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:
                raise _cause(error) from None

    write_whole(path, write)


def _cause(error: BaseException) -> BaseException:
    """Return the error of the file behind torch's, which speaks of its archive only."""
    behind = error.__context__
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__context__
    return behind or error


def is_unfinished(path: Path) -> bool:
    """Return whether a file is a checkpoint that a process was about to rename when it was killed."""
    return bool(_UNFINISHED.fullmatch(path.name))


def clear_unfinished(folder: Path) -> None:
    """Remove such files; only the run that holds the folder may do so."""
    for path in folder.iterdir():
        if is_unfinished(path):
            path.unlink(missing_ok=True)


def _named_position(path: Path) -> tuple[int, int]:
    match = NAMED.fullmatch(path.name)
    if match is None:
        return -1, 0
    return (int(match["finished"]) + 1, 0) if match["finished"] else (int(match["epoch"]), int(match["batch"]))


def _candidates(folder: Path, say: Callable[[str], None]) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Yield the states of a folder from the newest to the oldest, read already where their name has no position."""
    found: list[tuple[tuple[int, int], Path, dict[str, Any] | None]] = [
        (_named_position(path), path, None) for path in folder.glob(f"*{ENDING}") if NAMED.fullmatch(path.name)
    ]
    for name in ("last", "previous"):
        path = folder / f"{name}{ENDING}"
        if path.exists() and (state := _try(path, say)) is not None:
            found.append((position(state), path, state))
            break
    found.sort(key=lambda entry: (entry[0], entry[2] is not None), reverse=True)
    yield from ((path, state) for _, path, state in found)


def _try(path: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    try:
        state = read_checkpoint(path)
        require_run(state)
    except UserError as error:
        say(f"checkpoint {path} is damaged ({error}); trying the one before it")
        return None
    return state


def find_state(path: str | os.PathLike, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """Find the state to resume from.

    Args:
        path: a checkpoint, or the folder of a run, of which the newest sound checkpoint is taken.
        say: prints a line, here about each damaged checkpoint that is passed over.

    Returns:
        The checkpoint's path and its state.

    Raises:
        UserError: when there is none.
    """
    path = Path(path)
    if not os.path.exists(path):  # `Path.exists` raises for a name too long
        raise UserError(f"--resume: no file or folder {shown(path)!r}; give a checkpoint or the folder of a run.")
    own_error = None
    if path.is_file():
        try:
            return path, read_checkpoint(path)
        except UserError as error:
            own_error = error
            say(f"checkpoint {path} is damaged ({error}); trying the others of its folder")
    folder = path if path.is_dir() else path.parent
    skipped = None if path.is_dir() else path
    for file, state in _candidates(folder, say):
        if file != skipped and (state := state or _try(file, say)) is not None:
            return file, state
    if own_error is not None:
        raise own_error
    if any(not is_unfinished(file) for file in folder.glob(f"*{ENDING}")):
        way_out = "the run can't go on: start anew under another --experiment, or delete the folder first."
    else:
        way_out = "the run ended before its first one: start it anew, without --resume."
    raise UserError(f"--resume: {str(folder)!r} holds no sound checkpoint (*{ENDING}); {way_out}")


def load_weights(
    network: nn.Module, path: str, say: Callable[[str], None], *, ema: bool | None = None
) -> tuple[str, dict[str, Any]]:
    """Load the weights of a checkpoint, or of the newest one in a run's folder; return the file and what it holds.

    Args:
        network: takes the weights.
        path: the file or folder.
        say: prints a line, here which weights were read, and about damaged checkpoints.
        ema: which weights of the file, see `checkpoints.load_checkpoint`.
    """
    file, content = find_state(path, say) if Path(path).is_dir() else (path, read_checkpoint(path))
    say(load_content(network, content, file, ema=ema))
    return str(file), content
