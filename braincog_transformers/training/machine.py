"""What the machine says of its processor, and what to ask of its memory."""

import ctypes
import platform
import sys

import torch

from ..runtime.processor import has_units, model_name

__all__ = ["fast_in_bfloat16", "keep_freed_memory", "processor"]

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def processor() -> str:
    """Name the processor, which Python does not know on Linux."""
    return model_name() or platform.processor() or platform.machine()


def fast_in_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has units for bfloat16 matrices: tensor cores, or AMX as Linux names it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return has_units("amx_bf16")


def keep_freed_memory() -> bool:
    """Have the process keep what it frees, where the C library is glibc; return whether it does.

    By default glibc gives the large blocks of a step back to the system, which hands them out again page by page: in a
    training on a processor that takes a tenth of the time. The price is that memory once used stays with the process.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt"):
        return False
    # some versions refuse more than 32 MiB for the second
    limits = ((_M_TRIM_THRESHOLD, (2**31 - 1,)), (_M_MMAP_THRESHOLD, (2**30, 2**25)))
    return all(any(library.mallopt(which, limit) for limit in tried) for which, tried in limits)
