"""Errors of the user's making: one line that names the thing, the rule and the remedy.

The command line prints them without a traceback and exits with status 2.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["UserError", "nearest", "unknown"]


class UserError(ValueError):
    """A mistake in what the user gave: an option, a name, a file, a size."""


def nearest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of `choices` that resemble `name`, the closest first."""
    by_lower = {choice.lower(): choice for choice in choices}
    return [by_lower[match] for match in get_close_matches(str(name).lower(), by_lower, n=count, cutoff=0.5)]


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a table, with the nearest names that are."""
    choices = sorted(choices)
    close = nearest(name, choices)
    if close:
        remedy = "did you mean " + " or ".join(close) + "?"
    else:
        remedy = "choose from " + ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "") + "."
    return UserError(f"unknown {kind} {name!r}; {remedy}")
