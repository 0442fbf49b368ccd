"""Tables of whole numbers beside recordings: which stretches of them are samples."""

import re
from pathlib import Path

from ...errors import UserError, shown
from .columns import LATEST_US
from .text import read_lines

__all__ = ["read_table"]

_WHOLE = re.compile(r"[0-9]{1,16}")
_NUMBER_BEGINS = re.compile(r"[+-]?\.?[0-9]")


def read_table(path: Path, what: str) -> list[list[int]]:
    """Return the rows of a table of three columns, separated by commas, with or without a heading.

    A heading is a first row without any number; a first row of numbers is a sample like the others.

    Args:
        path: of the table.
        what: the rows that it needs, for the message.

    Raises:
        UserError: for a file that can't be read, has no rows, or has others than of three whole numbers.
    """
    rows = [[cell.strip(' \t"') for cell in line.split(",")] for line in read_lines(path) if line.strip(" ,")]
    if rows and not any(_NUMBER_BEGINS.match(cell) for cell in rows[0]):
        del rows[0]
    for row in rows:
        faulty = [cell for cell in row if not _WHOLE.fullmatch(cell) or int(cell) > LATEST_US]
        if faulty or len(row) != 3:
            raise UserError(f"{path}: needs {what}; got {shown(','.join(row), 60)!r}, fetch it anew")
    if not rows:
        raise UserError(f"{path}: needs {what}; it has none, fetch it anew")
    return [[int(cell) for cell in row] for row in rows]
