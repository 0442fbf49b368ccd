"""Whether a value of the command line is of the type that a field of a dataclass names."""

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

__all__ = ["fits"]


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value of the command line is of a type; a whole number is a number, too."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple and isinstance(value, tuple):
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return len(kinds) == len(value) and all(map(fits, value, kinds))
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return hint is Any or isinstance(value, origin or hint)
