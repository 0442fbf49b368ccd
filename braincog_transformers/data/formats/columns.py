"""Columns of events as files hold them: one check before any cast, for all readers.

A cast alone would let 65541 become column 5, 7.6 become 7, NaN become any number and -1 become ON.
"""

import numpy as np

from ...errors import UserError

__all__ = ["EVENT", "LATEST_US", "check_clock", "inside", "make_events", "whole_numbers"]

EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "?")], align=True)
"""One event: time in microseconds, column, row (downwards), polarity (True: brighter)."""

LATEST_US = 1 << 53
"""Largest time, in microseconds, up to which differences and floating point are exact: 285 years."""

_PIXELS = np.iinfo(EVENT["x"])


def whole_numbers(name: str, column: np.ndarray, low: int, high: int, *, kind: str = "numbers") -> np.ndarray:
    """Return an array as int64, after a check that nothing is lost by that.

    Args:
        name: of the column, for the message.
        column: numbers of any type and shape.
        low: smallest number allowed.
        high: largest number allowed.
        kind: what the numbers are, for the message.

    Raises:
        UserError: for other types, fractions, NaN, infinity, and numbers out of range.
    """
    column = np.asarray(column)
    if column.dtype.kind not in "biuf":
        raise UserError(f"{name} must be whole numbers; got {_cut(column.dtype)}")
    if not column.size:
        return np.zeros(column.shape, np.int64)
    if column.dtype.kind == "f":
        wrong = ~(np.isfinite(column) & (column == np.trunc(column)))
        if wrong.any():
            raise UserError(f"{name} must be whole numbers; got {column[wrong][0]}; fetch it anew")
    least, most = column.min(), column.max()
    if int(least) < low or int(most) > high:
        got = least if int(least) < low else most
        raise UserError(f"{name} must be whole numbers, those of {kind}; got {got}; fetch it anew")
    return column.astype(np.int64)


def make_events(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return columns of equal length (N,) as one array of `EVENT`.

    Args:
        t: times in microseconds.
        x: columns.
        y: rows.
        p: polarities, of either 0 and 1 or -1 and 1.

    Raises:
        UserError: for columns of different lengths, and for numbers that an event can't hold as they are.
    """
    shapes = [np.shape(column) for column in (t, x, y, p)]
    if len(shapes[0]) != 1 or len(set(shapes)) != 1:
        raise UserError(f"t, x, y and p must be equally many; got {_cut(shapes)}; fetch it anew")
    events = np.empty(shapes[0], EVENT)
    events["t"] = whole_numbers("t", t, -LATEST_US, LATEST_US, kind="microseconds")
    for name, column in (("x", x), ("y", y)):
        events[name] = whole_numbers(name, column, _PIXELS.min, _PIXELS.max, kind="pixels")
    polarity = whole_numbers("p", p, -1, 1, kind="polarities")
    if polarity.size and polarity.min() < 0 and (polarity == 0).any():
        raise UserError("p must be either 0 and 1 or -1 and 1; got -1 and 0; fetch it anew")
    events["p"] = polarity > 0
    return events


def inside(x: np.ndarray, y: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (N,): whether each place is on a field of (H, W)."""
    return (x >= 0) & (y >= 0) & (x < size[1]) & (y < size[0])


def check_clock(t: np.ndarray) -> None:
    """Refuse times that go backwards.

    Raises:
        UserError: with the number of times that they do.
    """
    backwards = int((np.diff(t) < 0).sum())
    if backwards:
        raise UserError(f"time goes backwards {backwards} times in {len(t)} events; fetch it anew")


def _cut(value: object) -> str:
    return str(value)[:60]
