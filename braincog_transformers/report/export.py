"""A table as text to paste elsewhere: LaTeX, Markdown and CSV."""

import csv
import io
from collections.abc import Callable, Sequence

__all__ = ["to_csv", "to_latex", "to_markdown"]

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "µ": r"\textmu{}",
          "–": "--", **{sign: "\\" + sign for sign in "&%$#_{}"}}  # fmt: skip

Best = Sequence[Sequence[bool]]
"""Whether each cell of the body is the best of its column."""


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


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


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


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
