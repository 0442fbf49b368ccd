"""The machine: its processor, what is asked of its memory, and what it fails at: memory, disk, killed processes."""

import ctypes
import platform
import re
import sys
from traceback import walk_tb

import torch

from ..files import reason
from ..runtime.processor import has_units, model_name

__all__ = ["explain", "fast_in_bfloat16", "keep_freed_memory", "processor", "worker_died"]

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def processor() -> str:
    """Name the processor, which Python does not know on Linux."""
    return model_name() or platform.processor() or platform.machine()


def fast_in_bfloat16(device: torch.device) -> bool:
    """Return whether a device has units for bfloat16 matrices: tensor cores, or AMX as Linux names it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return has_units("amx_bf16")


def keep_freed_memory() -> bool:
    """Keep freed memory in the process, which glibc can do; return whether it does.

    By default glibc gives large blocks back to the system after each training step, which hands them out again page by
    page: on a processor that takes a tenth of the time. The price is that memory once used stays with the process.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt"):
        return False
    # some versions refuse more than 32 MiB for the second
    limits = ((_M_TRIM_THRESHOLD, (2**31 - 1,)), (_M_MMAP_THRESHOLD, (2**30, 2**25)))
    return all(any(library.mallopt(which, limit) for limit in tried) for which, tried in limits)


def worker_died(error: BaseException) -> bool:
    """Return whether a process that loads samples has ended unasked: torch's word, or a connection that broke off."""
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
