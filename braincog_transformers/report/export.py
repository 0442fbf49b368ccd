"""A table as text to paste elsewhere: LaTeX, Markdown and CSV."""

import csv
import io
from collections.abc import Sequence

__all__ = ["to_csv", "to_latex", "to_markdown"]

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "µ": r"\textmu{}",
          "–": "--", **{sign: "\\" + sign for sign in "&%$#_{}"}}  # fmt: skip

Best = Sequence[Sequence[bool]]
"""Whether each cell of the body is the best of its column."""


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def to_latex(header: Sequence[str], rows: Sequence[Sequence[str]], best: Best) -> str:
    """Write a table for the package booktabs, text to the left and numbers to the right."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    body = [
        line([rf"\textbf{{{_latex(cell)}}}" if good else _latex(cell) for cell, good in zip(row, marks, strict=True)])
        for row, marks in zip(rows, best, strict=True)
    ]
    start = rf"\begin{{tabular}}{{lll{'r' * (len(header) - 3)}}}"
    head = line([_latex(title) for title in header])
    return "\n".join([start, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]], best: Best) -> str:
    """Write a table as GitHub reads it."""

    def line(cells: Sequence[str]) -> str:
        return (
            "| " + " | ".join(" ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"
        )

    rule = "|" + "|".join([" --- "] * 3 + [" ---: "] * (len(header) - 3)) + "|"
    body = [
        line([f"**{cell}**" if good else cell for cell, good in zip(row, marks, strict=True)])
        for row, marks in zip(rows, best, strict=True)
    ]
    return "\n".join([line(header), rule, *body])


def to_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table with its exact numbers."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([header, *rows])
    return written.getvalue()
