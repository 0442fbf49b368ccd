"""AEDAT 3.1: lines of text, then packets of a 28-byte heading and 8-byte events, little-endian (DVS128 Gesture).

A heading holds the kind of events (uint16, 1: polarity), their size in bytes (uint32 at 4), how often the clock
overflowed (uint32 at 12) and their number (uint32 at 16). An event is an address, x in bits 31..17, y in bits 16..2 and
polarity in bit 1, and a time in microseconds, both uint32.
"""

import struct

import numpy as np

from ..errors import UserError

__all__ = ["decode_aedat3"]

_MAGIC = b"#!AER-DAT3."
_HEADING = struct.Struct("<HHIIIIII")
_POLARITY = 1


def decode_aedat3(raw: bytes, start_us: int, end_us: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return t (microseconds), x, y and p, (N,) each, of the polarity events from one time to before another.

    Raises:
        UserError: for bytes that are no complete AEDAT 3 recording.
    """
    if not raw.startswith(_MAGIC):
        raise UserError(f"not an AEDAT 3.1 recording; it doesn't begin with '{_MAGIC.decode()}', fetch it anew")
    place = 0
    while raw[place : place + 1] == b"#":
        place = raw.find(b"\n", place) + 1 or len(raw)
    parts = [np.empty((0, 2), np.int64)]
    while place < len(raw):
        if place + _HEADING.size > len(raw):
            raise UserError("truncated AEDAT 3.1 recording; the last heading is incomplete, fetch it anew")
        kind, _, size, _, overflows, number, _, _ = _HEADING.unpack_from(raw, place)
        place += _HEADING.size
        end = place + size * number
        if end > len(raw) or (kind == _POLARITY and size != 8):
            raise UserError("truncated or damaged AEDAT 3.1 recording; fetch it anew")
        if kind == _POLARITY and number:
            parts.append(_between(np.frombuffer(raw, "<u4", 2 * number, place), overflows << 31, start_us, end_us))
        place = end
    address, t = np.concatenate(parts).T
    return t, address >> 17, address >> 2 & 0x7FFF, address >> 1 & 1


def _between(packet: np.ndarray, offset_us: int, start_us: int, end_us: int) -> np.ndarray:
    """Return the rows (address, time) of a packet that lie in the time asked for; times rise within a packet."""
    first, last = int(packet[1]) + offset_us, int(packet[-1]) + offset_us
    if last < start_us or first >= end_us:  # most packets, when one gesture of a trial is read
        return np.empty((0, 2), np.int64)
    rows = packet.reshape(-1, 2).astype(np.int64)
    rows[:, 1] += offset_us
    return rows[(rows[:, 1] >= start_us) & (rows[:, 1] < end_us)]
