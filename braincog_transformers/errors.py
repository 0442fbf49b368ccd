"""Errors that a user causes: one line with the thing, the rule and the remedy.

The command line prints them without a traceback and exits with status 2.
"""

import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = ["Interrupted", "NonFiniteLoss", "UserError", "listed", "nearest", "quoted", "shown", "unknown"]


class _Short(reprlib.Repr):
    """A `repr` of bounded length: a recipe's aliases can make a value of gigabytes."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 120, 120

    def repr_int(self, value: int, level: int) -> str:
        """Write a whole number."""
        return shown(value)


_short = _Short()


class UserError(ValueError):
    """A mistake in the input: an option, a name, a file, a size."""


class Interrupted(Exception):
    """The user asked to stop; the run is saved and the message says how to go on.

    The command line prints the message and exits with status 130.
    """


class NonFiniteLoss(ArithmeticError):
    """An input, a weight, a gradient or the loss is infinite or not a number; the message names it.

    The command line prints the message and exits with status 1.
    """


def shown(text: object, most: int = 300) -> str:
    """Write a name or a path on one line of at most `most` characters, with escapes for what can't be printed."""
    if isinstance(text, int) and text.bit_length() >= 400:  # Python itself refuses to write those of many digits
        text = f"a whole number of {text.bit_length()} bits"
    text = " ".join(str(text)[: 8 * most].split())
    text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-(most // 3) :]}"


def quoted(value: object, most: int = 200) -> str:
    """Write a value as Python does, on one line of at most `most` characters, however large it is."""
    return shown(_short.repr(value), most)


def listed(names: Sequence[str], most: int = 4) -> str:
    """Name the first `most` of several, and say how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def nearest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of `choices` that are similar to `name`, the closest first."""
    by_lower = {choice.lower(): choice for choice in choices}
    return [by_lower[match] for match in get_close_matches(str(name)[:100].lower(), by_lower, n=count, cutoff=0.5)]


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a table, with the nearest names that are."""
    choices = sorted(choices)
    close = nearest(name, choices)
    if close:
        remedy = "did you mean " + " or ".join(close) + "?"
    else:
        remedy = "choose from " + ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "") + "."
    return UserError(f"unknown {kind} {quoted(name)}; {remedy}")
