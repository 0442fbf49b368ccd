"""Tables for the page, whose columns sort at a click on their headers, and the same as text to paste elsewhere."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .formats import number, text
from .markup import Markup, tag

__all__ = ["Column", "amount", "code", "copyable", "facts", "figure", "missing", "table", "to_csv", "to_latex"]
__all__ += ["to_markdown", "word"]

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "µ": r"\textmu{}",
          "–": "--", **{sign: "\\" + sign for sign in "&%$#_{}"}}  # fmt: skip

Best = Sequence[Sequence[bool]]
"""Whether each cell of the body is the best of its column."""


class Column(NamedTuple):
    """The head of a column.

    Args:
        title: what it is called.
        numeric: whether it holds numbers, which are sorted by `data-value` and stand to the right.
        hint: explanation, for the tooltip.
    """

    title: str
    numeric: bool = False
    hint: str | None = None


def word(*content: object, class_: str | None = None) -> Markup:
    """Make a cell of text."""
    return tag("td", *content, class_=class_)


def amount(content: object, value: float | None, **attributes: object) -> Markup:
    """Make a cell of a number, sorted by `value`; one without a value is sorted last."""
    return tag("td", content, class_="num", data_value=value, **attributes)


def figure(value: object, write: Callable[[object], str], **attributes: object) -> Markup:
    """Make a cell of a number that a file holds, in the form that `write` gives it."""
    return amount(write(value), number(value), **attributes)


def code(value: object) -> Markup:
    """Show a name or value as it is written in code."""
    return tag("code", text(value))


def missing(sentence: str) -> Markup:
    """Say what is not there, and what would have produced it."""
    return tag("p", sentence, class_="missing")


def _head(column: Column, sortable: bool) -> Markup:
    class_ = "num" if column.numeric else None
    if not sortable:
        return tag("th", column.title, scope="col", class_=class_, title=column.hint)
    title = column.title.replace("-", "-\u2060").replace(", ", ",\xa0")  # no break after a hyphen or before a unit
    button = tag("button", title, tag("span", class_="arrow", aria_hidden="true"), type="button")
    return tag("th", button, scope="col", class_=class_, title=column.hint, aria_sort="none")


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Markup]],
    *,
    label: str,
    total: Sequence[Markup] | None = None,
    sortable: bool = True,
    class_: str = "",
) -> Markup:
    """Build a table in a box of its own, which scrolls when the table is too wide.

    Args:
        rows: cells, made by `word` and `amount`.
        label: what the table holds, for those who cannot see it.
        total: cells of a last row, which stays the last.
    """
    head = tag("thead", tag("tr", *(_head(column, sortable) for column in columns)))
    body = tag("tbody", *(tag("tr", *row) for row in rows))
    foot = tag("tfoot", tag("tr", *total)) if total else None
    return _scrolled(tag("table", head, body, foot, class_=("sortable " if sortable else "") + class_ or None), label)


def facts(pairs: Iterable[tuple[object, object]], label: str) -> Markup:
    """Build a table of names and values."""
    rows = [tag("tr", tag("th", name, scope="row"), word(value)) for name, value in pairs]
    return _scrolled(tag("table", tag("tbody", *rows), class_="facts"), label)


def _scrolled(built: Markup, label: str) -> Markup:
    return tag("div", built, class_="scroll", tabindex="0", role="region", aria_label=label)


def copyable(content: str) -> Markup:
    """Show text as it is, with a button that copies it."""
    button = tag("button", "Copy", type="button", class_="copy")
    return tag("div", button, tag("pre", tag("code", content), tabindex="0"), class_="copyable")


def _latex(cell: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(cell.split()))


def _lines(rows: Sequence[Sequence[str]], best: Best, write: Callable[[str], str], bold: str) -> list[list[str]]:
    """Write the cells of the body, the best within `bold`."""
    return [
        [bold.format(write(cell)) if good else write(cell) for cell, good in zip(row, marks, strict=True)]
        for row, marks in zip(rows, best, strict=True)
    ]


def to_latex(header: Sequence[str], rows: Sequence[Sequence[str]], best: Best) -> str:
    """Write a table for the package booktabs, text to the left and numbers to the right."""
    head, *body = (" & ".join(cells) + r" \\"
                   for cells in ([*map(_latex, header)], *_lines(rows, best, _latex, r"\textbf{{{}}}")))  # fmt: skip
    start = rf"\begin{{tabular}}{{lll{'r' * (len(header) - 3)}}}"
    return "\n".join([start, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def _markdown(cell: str) -> str:
    return " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|")


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]], best: Best) -> str:
    """Write a table as GitHub reads it."""
    rule = ["---"] * 3 + ["---:"] * (len(header) - 3)
    lines = [[*map(_markdown, header)], rule, *_lines(rows, best, _markdown, "**{}**")]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def to_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table with its exact numbers."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([header, *rows])
    return written.getvalue()
