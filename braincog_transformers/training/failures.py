"""What the machine fails at, and not the code: memory, room on the disk, processes that were killed."""

import re
from traceback import walk_tb

import torch

from ..files import reason

__all__ = ["explain", "worker_died"]


def worker_died(error: BaseException) -> bool:
    """Tell whether a process that loads samples has ended unasked: torch's word, or a connection that broke off."""
    if isinstance(error, (EOFError, ConnectionError)):
        frames = walk_tb(error.__traceback__)
        return any(frame.f_globals.get("__name__", "").startswith("multiprocessing.") for frame, _ in frames)
    return isinstance(error, RuntimeError) and re.match(r"DataLoader worker \(pid", str(error)) is not None


def explain(error: BaseException) -> str | None:
    """Return one line about a failure of the machine, with what helps; None for anything else."""
    if worker_died(error):
        return (
            "a process that loads samples was killed, mostly because memory or shared memory (/dev/shm) ran out; give "
            "fewer --workers or a smaller --batch-size, and go on with --resume and the folder of the run"
        )
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        return (
            f"out of memory ({_short(error)}); give a smaller --batch-size, with --grad-accum for the same effective "
            "batch, fewer --step or --grad-checkpointing"
        )
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'} can't be read or written: {reason(error)}"
    return None


def _short(error: BaseException) -> str:
    found = re.search(r"ried to allocate [^.;]*\w", str(error))
    return "t" + found[0] if found else type(error).__name__
