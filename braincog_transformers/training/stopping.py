"""Stop on request: the first Ctrl-C, or SIGTERM, is noted and acted upon between two optimizer steps."""

import signal
import threading
from types import FrameType

__all__ = ["StopRequest"]


class StopRequest:
    """Note SIGINT and SIGTERM while the context is open.

    The second signal stops at once, unless `patient`: torchrun passes on a Ctrl-C that its processes got already.
    """

    def __init__(self, *, patient: bool = False):
        self.requested = False
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
