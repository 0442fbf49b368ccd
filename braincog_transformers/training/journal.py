"""What a run prints and writes: a progress bar, a line per epoch, `summary.csv` and TensorBoard.

Where one of them can't be written, a line says so and the training goes on: only what it has learnt can't be lost.
"""

import csv
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import UserError
from ..files import reason, write_text

__all__ = ["Journal", "name_left_out", "open_tensorboard"]

_SHOWN = 4
"""Figures of a task in the line of an epoch; summary.csv has all of them."""
_NAMED = 10
"""Damaged recordings that are named one by one."""


def open_tensorboard(folder: str | Path, *, wanted: bool) -> Any | None:
    """Return TensorBoard's writer.

    Args:
        folder: where the logs go.
        wanted: whether its absence is an error; otherwise None is returned then.

    Raises:
        UserError: when it is wanted and not installed.
        OSError: when the folder can't be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if wanted:
            raise UserError(
                "--tensorboard-dir needs TensorBoard: pip install 'braincog_transformers[tensorboard]'."
            ) from error
        return None
    _hush_writing_thread()
    return SummaryWriter(str(folder))


@cache
def _hush_writing_thread() -> None:
    """Keep TensorBoard's thread from printing a traceback where it can't write: the next call raises its error."""
    before = threading.excepthook

    def hook(caught: threading.ExceptHookArgs) -> None:
        written_by = type(caught.thread).__module__.partition(".")[0]
        if not (isinstance(caught.exc_value, OSError) and written_by == "tensorboard"):
            before(caught)

    threading.excepthook = hook


_COLUMNS = {"epoch", "lr", "firing_rate"}
_OF_CLASSES = {"loss", "top1", "top5"}


def _percent(top1: float | None) -> str:
    """Write an accuracy behind a loss; nothing where there are no labels."""
    return "" if top1 is None else f" top-1 {top1:.2f} %"


def _own(row: dict[str, float]) -> list[str]:
    """Write the figures of the network's own, which not every run has."""
    own = [name for name in row if name not in _COLUMNS and not name.startswith(("train_", "test_", "ema_"))]
    return [f"{name.replace('_', ' ')} {row[name]:{'.2f' if abs(row[name]) >= 1 else '.4f'}}" for name in own]


def _describe_row(row: dict[str, float], *, epochs: int) -> str:
    """Write one epoch's measurements as a line."""
    parts = [f"epoch {int(row['epoch']) + 1}/{epochs}"]
    for kind, title in (("train", "train"), ("test", "test"), ("ema", "average:")):
        own = {name: row[name] for name in row if name.startswith(f"{kind}_")}
        others = [name for name in own if name.partition("_")[2] not in _OF_CLASSES]
        texts = [f"loss {row[f'{kind}_loss']:.4f}" + _percent(row.get(f"{kind}_top1"))] if f"{kind}_loss" in row else []
        texts += [f"{name.partition('_')[2].replace('_', ' ')} {row[name]:.4g}" for name in others[:_SHOWN]]
        if texts:
            parts.append(f"{title} {' '.join(texts)}")
        if kind == "test" and "test_top5" in row:
            parts[-1] += f" top-5 {row['test_top5']:.2f} %"
    parts += _own(row)
    if "firing_rate" in row:
        parts.append(f"firing rate {row['firing_rate']:.4f}")
    parts.append(f"lr {row['lr']:.3g}")
    return " | ".join(parts)


def _table(rows: list[dict[str, float]]) -> str:
    """Write rows as CSV."""
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


@dataclass
class Journal:
    """Report a run; silent on every rank but the first.

    Args:
        folder: folder of the run, for `summary.csv`.
        epochs: number of epochs, for the lines.
        interval: batches between two lines where there is no terminal, and between two updates of the bar's figures.
        speaks: whether this process reports.
        tensorboard: an open writer, or None.
        printer: prints one line; to the standard output, past the bar, by default.
    """

    folder: Path
    epochs: int
    interval: int = 50
    speaks: bool = True
    tensorboard: Any | None = None
    printer: Callable[[str], None] = tqdm.write
    _bar: tqdm = field(init=False, default_factory=lambda: tqdm(disable=True))
    _lost: set[str] = field(init=False, default_factory=set)

    def say(self, text: str) -> None:
        """Print one line; if nobody reads it, or the disk is full, the run goes on in silence."""
        if self.speaks:
            with suppress(OSError):
                self.printer(text)

    @contextmanager
    def optional(self, what: str) -> Iterator[None]:
        """Do without something that can't be written, and say so once.

        Args:
            what: its name, in the plural.
        """
        try:
            yield
        except OSError as error:
            if what not in self._lost:
                self.say(f"{what} can't be written ({reason(error)}); the run goes on without them")
            self._lost.add(what)

    def begin_epoch(self, epoch: int, *, done: int, total: int) -> None:
        """Show the bar of an epoch that has `total` batches, `done` of them trained before."""
        self._started, self._begun = time.perf_counter(), done
        hidden = not (self.speaks and sys.stderr.isatty())
        label = f"epoch {epoch + 1}/{self.epochs}"
        self._bar = tqdm(total=total, initial=done, desc=label, disable=hidden, leave=False, dynamic_ncols=True)

    def due(self, batch: int, group: int) -> bool:
        """Return whether the figures should be read from the device after `batch` batches, `group` of them new."""
        return batch // self.interval > (batch - group) // self.interval

    def advance(self, batches: int) -> None:
        """Move the bar."""
        self._bar.update(batches)

    def show(self, *, batch: int, total: int, loss: float, lr: float, top1: float | None = None) -> None:
        """Show the running figures of an epoch."""
        if not self._bar.disable:
            self._bar.set_postfix_str(f"loss {loss:.4f}{_percent(top1)} lr {lr:.3g}")
        else:
            self.say(f"  batch {batch}/{total} | loss {loss:.4f}{_percent(top1)} | lr {lr:.3g}")

    def end_epoch(self, *, batches: int, samples_per_batch: float) -> float:
        """Take the bar away, and return samples per second since the epoch began or was resumed.

        Args:
            batches: batches of the epoch that are done.
            samples_per_batch: samples of one batch on all ranks.
        """
        self._bar.close()
        seconds = time.perf_counter() - self._started
        return (batches - self._begun) * samples_per_batch / seconds if seconds > 0 else 0.0

    def write_row(self, rows: list[dict[str, float]], *, speed: float | None = None) -> None:
        """Print the newest of the rows, write all of them to `summary.csv`, and the newest to TensorBoard."""
        if not self.speaks:
            return
        # speed is printed alone: a table that resumes exactly holds nothing that a clock decides
        extra = "" if speed is None else f" | {speed:.1f} samples/s"
        self.say(_describe_row(rows[-1], epochs=self.epochs) + extra)
        with self.optional(f"the lines of {self.folder / 'summary.csv'}"):
            write_text(self.folder / "summary.csv", _table(rows))
        self._write_board(rows[-1])

    def _write_board(self, row: dict[str, float]) -> None:
        if (board := self.tensorboard) is None:
            return
        self.tensorboard = None  # a writer that has failed once would fail, or wait, for ever
        with self.optional("TensorBoard's logs"):
            for name, value in row.items():
                board.add_scalar(name, value, int(row["epoch"]))
            board.flush()
            self.tensorboard = board

    def close(self) -> None:
        """Close bar and TensorBoard."""
        self._bar.close()
        if self.tensorboard is not None:
            with self.optional("TensorBoard's logs"):
                self.tensorboard.close()


def name_left_out(texts: Sequence[str], journal: Journal) -> None:
    """Name the first recordings that --skip-bad left out, and write all of them into the folder."""
    if not texts or not journal.speaks:
        return
    path = journal.folder / "left_out.txt"
    with journal.optional(f"the lines of {path}"):
        write_text(path, "".join(f"{text}\n" for text in texts))
    journal.say(f"left out {len(texts)} recordings that can't be read (--skip-bad), all named in {path}:")
    for text in texts[:_NAMED]:
        journal.say(f"  {text}")
