"""Lists and tables as any editor saves them: with or without a byte order mark, either line end, blank last lines."""

import codecs
import re
from pathlib import Path

from ...errors import UserError, shown
from .opening import named

__all__ = ["read_lines", "read_table"]

_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LONGEST = 256 << 20
"""Bytes of a list; ImageNet's longest has a fifth of them."""
_WHOLE = re.compile(r"[0-9]{1,16}")
_NUMBER_BEGINS = re.compile(r"[+-]?\.?[0-9]")


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file, without blanks at their ends and without blank lines at the end of the file.

    Blank lines in between stay: in some lists the number of a line means something.

    Args:
        path: UTF-8, or UTF-16 with its byte order mark.

    Raises:
        UserError: for a file that can't be opened, is no such text or is too long for a list.
    """
    with named(path):
        with Path(path).open("rb") as file:
            data = file.read(_LONGEST + 1)
        if len(data) > _LONGEST:
            raise UserError(f"is longer than {_LONGEST >> 20} MiB, which no list is; name the right file")
        encoding = "utf-16" if data.startswith(_MARKS) else "utf-8"
        try:
            text = data.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise UserError(f"is no {encoding.upper()} text ({error.reason}); save it as UTF-8") from None
        if "\0" in text:
            raise UserError("is no UTF-8 text (it holds zero bytes); save it as UTF-8")
    # Not `splitlines`, which also splits at characters that a name may hold, such as U+2028.
    lines = [line.rstrip() for line in re.split(r"\r\n|\n|\r", text)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_table(path: Path, first: str, allowed: range | None = None) -> list[tuple[int, int, int]]:
    """Return the rows of a table of stretches of a recording: a number, start and end in microseconds.

    Columns are separated by commas. A heading is a first row without any number; a first row of numbers is a stretch
    like the others.

    Args:
        path: of the table.
        first: what the number is, for the message.
        allowed: numbers that it may be; by default any.

    Raises:
        UserError: for a file that can't be read, has no rows, or has a row that is no such stretch.
    """
    from .columns import LATEST_US  # which needs NumPy, and this module is read for every error about options

    rows = [[cell.strip(' \t"') for cell in line.split(",")] for line in read_lines(path) if line.strip(" ,")]
    if rows and not any(_NUMBER_BEGINS.match(cell) for cell in rows[0]):
        del rows[0]
    needs = f"{path}: needs rows of {first}, start and"
    if not rows:
        raise UserError(f"{needs} end; it has none, fetch it anew")
    for row in rows:
        if len(row) != 3 or not all(_WHOLE.fullmatch(cell) and int(cell) <= LATEST_US for cell in row):
            raise UserError(f"{needs} end; got {shown(','.join(row), 60)!r}, fetch it anew")
    table = [(int(number), int(start), int(end)) for number, start, end in rows]
    for number, start, end in table:
        if start >= end or (allowed and number not in allowed):
            raise UserError(f"{needs} a later end; got {number},{start},{end}, fetch it anew")
    return table
