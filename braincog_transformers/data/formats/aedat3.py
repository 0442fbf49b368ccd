"""AEDAT 3.1: lines of text, then packets of a 28-byte heading and 8-byte events, little-endian (DVS128 Gesture).

A heading holds the kind of events (uint16, 1: polarity), their size in bytes (uint32 at 4), how often the clock
overflowed (uint32 at 12), the places for events (uint32 at 16) and how many of these are taken (uint32 at 20). An event
is an address, x in bits 31..17, y in bits 16..2, polarity in bit 1 and in bit 0 whether it is valid, and a time in
microseconds, both uint32.
"""

import struct
from collections.abc import Iterator

import numpy as np

from ...errors import UserError
from .opening import after_lines

__all__ = ["decode_aedat3"]

_MAGIC = b"#!AER-DAT3."
_HEADING = struct.Struct("<HHIIIIII")
_POLARITY = 1
_CLOCK_BITS = 31


def decode_aedat3(raw: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return t (microseconds), x, y and p, (N,) each, of the valid polarity events.

    Raises:
        UserError: for bytes that are no complete AEDAT 3 recording.
    """
    if not raw.startswith(_MAGIC):
        raise UserError(f"not an AEDAT 3.1 recording; it doesn't begin with '{_MAGIC.decode()}', fetch it anew")
    packets, offsets, counts = [np.empty(0, "<u4")], [], []
    for packet, overflows in _packets(raw):
        packets.append(packet)
        offsets.append(overflows << _CLOCK_BITS)
        counts.append(len(packet) // 2)
    address, clock = np.concatenate(packets).reshape(-1, 2).T
    valid = (address & 1).astype(bool)
    address, clock, offset = address[valid], clock[valid], np.repeat(np.array(offsets, np.int64), counts)[valid]
    if (clock >> _CLOCK_BITS).any():
        raise UserError("damaged AEDAT 3.1 recording; its clock has more than 31 bits, fetch it anew")
    return clock + offset, address >> 17, address >> 2 & 0x7FFF, address >> 1 & 1


def _packets(raw: bytes) -> Iterator[tuple[np.ndarray, int]]:
    """Yield address and clock of each event of a packet, one after the other, and how often the clock overflowed."""
    place = after_lines(raw, b"#")
    while place < len(raw):
        if place + _HEADING.size > len(raw):
            raise UserError("truncated AEDAT 3.1 recording; the last heading is incomplete, fetch it anew")
        kind, _, size, _, overflows, places, taken, _ = _HEADING.unpack_from(raw, place)
        place += _HEADING.size
        end = place + size * places
        if end > len(raw) or taken > places or (kind == _POLARITY and size != 8):
            raise UserError("truncated or damaged AEDAT 3.1 recording; fetch it anew")
        if kind == _POLARITY:
            yield np.frombuffer(raw, "<u4", 2 * taken, place) if taken else np.empty(0, "<u4"), overflows
        place = end
