"""What a conversion keeps: accuracy and energy of the source, of its limit, and of the spiking network over T."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .output import align_table, write_csv, write_json, writing

__all__ = ["ConversionRow", "format_comparison", "format_conversion", "steps_to_show", "write_conversion"]

_COLUMNS = ("network", "T", "top-1, %", "loss", "agreement, %", "energy, mJ")


@dataclass(frozen=True)
class ConversionRow:
    """One network on all test samples.

    Args:
        network: "source", "limit" or "spiking".
        step: T of the spiking network, None for the other two.
        top1: accuracy in percent.
        loss: mean loss of the samples.
        agreement: share of the samples with the limit's answer, in percent; None for the limit itself.
        energy: estimate for one sample in mJ, of an ordinary network as multiply-accumulates; None where it was not
            counted.
    """

    network: str
    step: int | None
    top1: float
    loss: float
    agreement: float | None = None
    energy: float | None = None


def steps_to_show(last: int) -> list[int]:
    """Return 1, 2, 4, ... up to the last number of steps, and that itself."""
    powers = [2**power for power in range(last.bit_length()) if 2**power < last]
    return [*powers, last]


def format_conversion(rows: Sequence[ConversionRow], method: str, note: str) -> str:
    """Lay the table out for a terminal.

    Args:
        rows: source, limit, then the spiking network from small T to large.
        method: name of the method.
        note: below the caption: how the energy was estimated.
    """
    body = [_cells(row) for row in rows]
    lines = [f"conversion by {method}; agreement: the same answer as the limit", note, align_table(_COLUMNS, body)]
    return "\n".join(filter(None, lines))


def _cells(row: ConversionRow) -> list[str]:
    written = [f"{row.top1:.2f}", f"{row.loss:.4f}"]
    written.append("" if row.agreement is None else f"{row.agreement:.2f}")
    written.append("" if row.energy is None else f"{row.energy:.6f}")
    return [row.network, "" if row.step is None else str(row.step), *written]


def format_comparison(found: Mapping[str, Sequence[ConversionRow]], note: str = "") -> str:
    """Lay out several conversions of one source for a terminal: the accuracy of each, and below it the energy.

    Args:
        found: by method the rows that `format_conversion` takes, all for the same T.
        note: below the caption: how the energy was estimated.
    """
    columns = [row.network if row.step is None else f"T={row.step}" for row in next(iter(found.values()))]
    body = []
    for method, rows in found.items():
        body.append([method, "top-1, %", *(f"{row.top1:.2f}" for row in rows)])
        body.append(["", "energy, mJ", *("" if row.energy is None else f"{row.energy:.6f}" for row in rows)])
    lines = ["conversion of one source by each method", note, align_table(["method", "", *columns], body)]
    return "\n".join(filter(None, lines))


def write_conversion(rows: Sequence[ConversionRow], about: dict[str, Any], folder: str | Path) -> list[Path]:
    """Write `conversion.csv`, a row for each network and T, and `conversion.json`, with `about` too; return both paths.

    Raises:
        UserError: the folder can't be written into.
    """
    written = [asdict(row) for row in rows]
    with writing(folder) as folder:
        table, data = folder / "conversion.csv", folder / "conversion.json"
        write_csv(table, list(written[0]), [list(row.values()) for row in written])
        write_json(data, {**about, "rows": written})
    return [table, data]
