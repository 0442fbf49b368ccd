"""Tables for a terminal, and folders that pictures and tables are written into."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import reason, write_text

__all__ = ["align_table", "write_csv", "write_json", "writing"]


@contextmanager
def writing(folder: str | Path) -> Iterator[Path]:
    """Make a folder to write into within the context, and say in one line what stands in the way.

    Raises:
        UserError: the folder can't be made or written into.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield Path(folder)
    except OSError as problem:
        raise UserError(
            f"output folder {str(folder)!r} can't be written ({reason(problem)}); name another one, or make room for it"
        ) from problem


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a mapping."""
    write_text(path, json.dumps(content, indent=1))


def align_table(header: Sequence[str], body: Sequence[Sequence[str]], total: Sequence[str] = ()) -> str:
    """Lay cells out in columns between rules, names to the left and figures to the right; `total` may be shorter."""
    lines = [header, *body, total] if total else [header, *body]
    columns = []
    for cells in zip_longest(*lines, fillvalue=""):
        width = max(map(len, cells))
        columns.append([cell.rjust(width) if columns else cell.ljust(width) for cell in cells])
    text = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    rule = "-" * max(map(len, text))
    return "\n".join([rule, text[0], rule, *text[1 : len(body) + 1], rule, *text[len(body) + 1 :]])
