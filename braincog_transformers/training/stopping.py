"""Stop on request: the first Ctrl-C, or SIGTERM, is noted and acted upon between two training steps."""

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

from .machine import worker_died

__all__ = ["StopRequest"]

Item = TypeVar("Item")


class StopRequest:
    """Note SIGINT and SIGTERM while the context is open.

    The second signal stops at once, unless `patient`: torchrun passes on a Ctrl-C that its processes got already.
    """

    def __init__(self, *, patient: bool = False):
        self.requested = self.cut_short = False
        self.patient = patient
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and not self.patient:
            raise KeyboardInterrupt
        self.requested = True
        if hasattr(signal, "SIGCHLD"):
            # the loading processes may have got the signal too; torch would raise an error in the middle of one
            self._before.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, signal.SIG_DFL))

    def until(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Yield the batches; `cut_short` is set where they end early, since what loads them got the signal too."""
        try:
            yield from batches
        except (RuntimeError, EOFError, ConnectionError) as error:
            if not worker_died(error):
                raise
            if not self.requested:
                if self._before and hasattr(signal, "SIGCHLD"):
                    # torch would raise a second error while this one is being reported
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                raise
            self.cut_short = True
