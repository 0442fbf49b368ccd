"""From run folders to a page: sections, with styles and script inlined and nothing loaded from elsewhere."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ..errors import UserError
from ..files import reason, write_text
from ..version import __version__
from .compare import comparison
from .formats import date
from .markup import Markup, join, tag
from .runs import Run, read_runs
from .sections import headline, sections, subtitle

__all__ = ["page", "write_report"]

# A browser then refuses to load anything, whatever the texts of the page are.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_KINDS = {"training": "trained", "evaluation": "evaluated", "conversion": "converted"}


def _inline(name: str) -> Markup:
    """Read a file of this package, as it is."""
    return Markup((files(__package__) / name).read_text(encoding="utf-8"))


def _head(title: str) -> Markup:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", _inline("page.css")),
    )


def _header(title: str, line: str, keys: Sequence[tuple[str, str]]) -> Markup:
    """Build what stands above the sections."""
    theme = tag("button", "Dark or light", type="button", id="theme", aria_label="switch between dark and light")
    bar = tag("div", tag("span", "braincog_transformers", class_="brand"), theme, class_="bar-top")
    links = tag("nav", *(tag("a", name, href=f"#{key}") for key, name in keys), aria_label="sections")
    return tag("header", bar, tag("h1", title), tag("p", line, class_="subtitle"), links)


def page(runs: Sequence[Run]) -> str:
    """Write the page about one run, or about several side by side."""
    if len(runs) == 1:
        run = runs[0]
        kind = _KINDS.get(str(run.results.get("kind")), "")
        title, tiles, parts = run.name, headline(run), list(sections(run))
        when = f"{kind} {date(run.results['date'])}" if run.results.get("date") else kind
        line = " · ".join(part for part in (subtitle(run), when.strip()) if part)
    else:
        names = list(dict.fromkeys(run.dataset for run in runs))
        title, tiles, parts = f"{len(runs)} runs compared", None, comparison(runs)
        line = "on " + ", ".join(names)
    cards = [
        tag("section", tag("h2", name), content, id=key, class_="plain" if key == "details" else "card")
        for key, name, content in parts
    ]
    footer = tag(
        "footer", f"Written by braincog_transformers {__version__}. Energies are estimates from counted operations."
    )
    enlarged = tag("dialog", tag("form", tag("button", "Close"), method="dialog"), tag("img", alt=""), id="enlarged")
    body = tag(
        "body", _header(title, line, [(key, name) for key, name, _ in parts]), tag("main", tiles, *cards), footer,
        enlarged, tag("script", _inline("page.js")),
    )  # fmt: skip
    return join(Markup("<!DOCTYPE html>\n"), tag("html", _head(title), body, lang="en"), "\n")


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
    content = page(runs)
    try:
        write_text(path, content)
    except OSError as error:
        raise UserError(f"report: cannot write {path} ({reason(error)}); give another place with --output") from None
    return path
