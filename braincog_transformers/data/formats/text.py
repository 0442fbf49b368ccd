"""Text lists as any editor saves them: with or without a byte order mark, either kind of line end, blank last lines."""

import codecs
import re
from pathlib import Path

from ...errors import UserError

__all__ = ["read_lines"]

_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LONGEST = 256 << 20
"""Bytes of a list; ImageNet's longest has a fifth of them."""


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file, without blanks at their ends and without blank lines at the end of the file.

    Blank lines in between stay: in some lists the number of a line means something.

    Args:
        path: UTF-8, or UTF-16 with its byte order mark.

    Raises:
        UserError: for a file that can't be opened, is no such text or is too long for a list.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from None
    if len(data) > _LONGEST:
        raise UserError(f"{path}: is longer than {_LONGEST >> 20} MiB, which no list is; name the right file")
    encoding = "utf-16" if data.startswith(_MARKS) else "utf-8"
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no {encoding.upper()} text ({error.reason}); save it as UTF-8") from None
    if "\0" in text:
        raise UserError(f"{path}: is no UTF-8 text (it holds zero bytes); save it as UTF-8")
    # Not `splitlines`, which also parts lines at signs that a name may hold, such as U+2028.
    lines = [line.rstrip() for line in re.split(r"\r\n|\n|\r", text)]
    while lines and not lines[-1]:
        lines.pop()
    return lines
