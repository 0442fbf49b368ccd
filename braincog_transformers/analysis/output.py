"""Folders that pictures and tables are written into."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

__all__ = ["write_csv", "writing"]


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
            f"output folder {str(folder)!r} can't be written ({problem.strerror or problem}); "
            "name another one, or make room for it"
        ) from problem


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
