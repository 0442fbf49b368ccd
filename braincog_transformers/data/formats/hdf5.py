"""HDF5 files of spikes, read by a process of its own: if it crashes, takes too much memory or time, the file is named.

The library is compiled code that does not check the sizes in a file. `hdf5_helper.py` is started at the first file and
serves the later ones; it is ended when reading takes longer than the file's size explains.
"""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer

import numpy as np

from ...errors import UserError
from .columns import LATEST_US, whole_numbers
from .opening import complete

__all__ = ["read_spikes"]

_SCRIPT = Path(__file__).with_name("hdf5_helper.py")
_START_S, _READ_S, _BYTES_PER_S = 120, 6, 1 << 20
_helpers: dict[int, subprocess.Popen] = {}  # by the process that asks: a fork must not share its parent's


def read_spikes(path: Path, names: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return times in seconds and channels of all spikes, spikes of each sample, labels, and names of classes.

    Args:
        path: of an `.h5` file, or of one packed as `.h5.gz`.
        names: number of classes that the file must name; 0 leaves the names unread.

    Raises:
        UserError: for a file of another format, other shapes and types, or sizes that it can't have.
    """
    with complete("HDF5 file of spikes and labels"):
        size = path.stat().st_size
        helper = _helper()
        with _within(helper, _READ_S + size / _BYTES_PER_S):
            helper.stdin.write(json.dumps([str(path.absolute()), names]).encode() + b"\n")
            helper.stdin.flush()
            answer = json.loads(_line(helper))
            arrays = [_received(helper, *array) for array in answer.get("arrays", ())]
        if "problem" in answer:
            raise UserError(f"{answer['problem']}; fetch it anew")
    seconds, channels, counts, labels = arrays
    if channels.dtype.kind == "f":
        channels = whole_numbers("units", channels, -LATEST_US, LATEST_US)
    return seconds, channels, counts, whole_numbers("labels", labels, -LATEST_US, LATEST_US), answer["classes"]


def _helper() -> subprocess.Popen:
    """Return the process that reads, started where there is none."""
    helper = _helpers.get(os.getpid())
    if helper is None or helper.poll() is not None:
        # Threads of the libraries, which it doesn't need, would take the memory that it is left.
        few = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        find = f"import sys; sys.path[:] = {[path for path in sys.path if path]!r}"  # and nothing in this folder
        run = f"import runpy; runpy.run_path({str(_SCRIPT)!r}, run_name='__main__')"
        helper = subprocess.Popen(
            [sys.executable, "-I", "-c", f"{find}; {run}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **few},
        )  # fmt: skip
        with _within(helper, _START_S):
            _line(helper)
        _helpers[os.getpid()] = helper
        atexit.unregister(_end_own)
        atexit.register(_end_own)
    return helper


def _end(helper: subprocess.Popen) -> None:
    helper.kill()
    helper.wait()
    with suppress(OSError):  # what was left to write has no reader any more
        helper.stdin.close()
    helper.stdout.close()


def _end_own() -> None:
    if helper := _helpers.pop(os.getpid(), None):  # a fork leaves that of its parent alone
        _end(helper)


@contextmanager
def _within(helper: subprocess.Popen, seconds: float) -> Iterator[None]:
    """End a process that has no answer after a time, or whose answer was left half read."""
    late = Timer(seconds, helper.kill)
    late.daemon = True
    late.start()
    try:
        yield
    except (EOFError, BrokenPipeError):
        killed = helper.wait() == -9
        _end(helper)
        why = f"took more than {seconds:.0f} s or too much memory" if killed else "ended the process"
        raise UserError(f"not a complete HDF5 file of spikes and labels (reading it {why}); fetch it anew") from None
    except BaseException:
        _end(helper)
        raise
    finally:
        late.cancel()


def _line(helper: subprocess.Popen) -> bytes:
    line = helper.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line


def _received(helper: subprocess.Popen, kind: str, length: int) -> np.ndarray:
    array = np.empty(length, np.dtype(kind))
    if length and helper.stdout.readinto(array.data.cast("B")) != array.nbytes:
        raise EOFError
    return array
