"""What the machine says of its processor, and what to ask of its memory."""

import ctypes
import platform
import sys
from pathlib import Path

import torch

__all__ = ["fast_in_bfloat16", "keep_freed_memory", "processor"]

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _facts() -> dict[str, str]:
    """Return what Linux tells of the first core; nothing elsewhere."""
    source = Path("/proc/cpuinfo")
    text = source.read_text(encoding="utf-8") if source.is_file() else ""
    pairs = (line.split(":", 1) for line in text.partition("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def processor() -> str:
    """Name the processor, which Python does not know on Linux."""
    return _facts().get("model name") or platform.processor() or platform.machine()


def fast_in_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has units for bfloat16 matrices: tensor cores, or AMX as Linux names it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return "amx_bf16" in _facts().get("flags", "").split()


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
