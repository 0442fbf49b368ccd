"""Values of a run as a reader wants to see them."""

import json
import math
from calendar import month_name
from collections.abc import Iterable
from datetime import datetime

__all__ = ["MISSING", "compact", "count", "date", "energy_unit", "fixed", "number", "percent", "significant", "text"]

MISSING = "–"
_UNITS = ((1.0, "mJ"), (1e3, "µJ"), (1e6, "nJ"))


def number(value: object) -> float | None:
    """Read a finite number from what a file holds, or None if there is none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        read = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def fixed(value: object, digits: int = 2) -> str:
    """Write a number with so many decimals."""
    read = number(value)
    return MISSING if read is None else f"{read:.{digits}f}"


def percent(value: object, digits: int = 2) -> str:
    """Write a number that is a percentage already."""
    return MISSING if number(value) is None else f"{fixed(value, digits)} %"


def significant(value: object, digits: int = 3) -> str:
    """Write a number with so many significant digits, without an exponent for usual sizes."""
    read = number(value)
    if read is None:
        return MISSING
    if read == 0 or not 1e-6 <= abs(read) < 1e6:
        return f"{read:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(read))))
    return f"{read:,.{decimals}f}"


def count(value: object) -> str:
    """Write a whole number with separators of thousands."""
    read = number(value)
    return MISSING if read is None else f"{read:,.0f}"


def compact(value: object, digits: int = 3) -> str:
    """Write a count in thousands, millions or billions."""
    read = number(value)
    if read is None:
        return MISSING
    for size, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(read) >= size:
            return significant(read / size, digits) + letter
    return significant(read) if read % 1 else f"{read:.0f}"


def energy_unit(values: Iterable[float | None]) -> tuple[float, str]:
    """Choose a unit in which the largest energy is at least 0.1.

    Args:
        values: energies, mJ.

    Returns:
        What to multiply with, and the unit.
    """
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    return next((unit for unit in _UNITS if largest * unit[0] >= 0.1), _UNITS[-1] if largest else _UNITS[0])


def text(value: object) -> str:
    """Write any value of an option: words as they are, anything else as JSON has it."""
    if value is None:
        return MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def date(value: object) -> str:
    """Write an ISO date and time for a reader; anything else comes back as it is."""
    try:
        read = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return text(value)
    return f"{read.day} {month_name[read.month]} {read.year}, {read:%H:%M} {read.tzname() or ''}".strip()
