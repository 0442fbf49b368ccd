"""What Linux tells of the processor."""

import functools
from pathlib import Path

__all__ = ["has_units", "model_name"]


@functools.cache
def _facts() -> dict[str, str]:
    """Return what is said of the first core; nothing on other systems."""
    source = Path("/proc/cpuinfo")
    text = source.read_text(encoding="utf-8") if source.is_file() else ""
    pairs = (line.split(":", 1) for line in text.partition("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def model_name() -> str:
    """Return the processor's name, or nothing."""
    return _facts().get("model name", "")


def has_units(name: str) -> bool:
    """Tell whether the processor has units by Linux's name for them, such as "amx_int8"."""
    return name in _facts().get("flags", "").split()
