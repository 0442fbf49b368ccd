"""What the machine says of its processor."""

import platform
from pathlib import Path

import torch

__all__ = ["fast_in_bfloat16", "processor"]


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
