"""From run folders to a file."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..files import write_text
from .page import page
from .runs import read_runs

__all__ = ["write_report"]


def write_report(folders: Sequence[str | Path], path: str | Path | None = None) -> Path:
    """Write one self-contained HTML file about a run, or about several side by side.

    Args:
        folders: run folders, or files in them.
        path: where to write, an .html file; by default `report.html` in the folder of a single run, else
            `comparison.html` where the process works.

    Returns:
        The path of the file.

    Raises:
        UserError: a folder that is missing, holds no run or a damaged one, or was given twice; a path that cannot be
            written. Nothing is written then.
    """
    runs = read_runs(folders)
    if path is None:
        path = runs[0].folder / "report.html" if len(runs) == 1 else "comparison.html"
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"report: the output must end in .html; got {str(path)!r}")
    written = page(runs)
    try:
        write_text(path, written)
    except OSError as error:
        raise UserError(f"report: cannot write {path} ({error.strerror}); give another place with --output") from None
    return path
