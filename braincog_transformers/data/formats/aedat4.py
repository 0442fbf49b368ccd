"""The AEDAT4 container: a heading and packets, each a FlatBuffer, written with or without compression.

Layout (little-endian): 14 bytes of magic; a size-prefixed table `IOHE` (field 0: compression, 1: position of the data
table or -1, 2: XML that lists the streams); then packets of stream (int32), length (int32), payload. A payload is,
after decompression, a size-prefixed table `EVTS` whose field 0 is a vector of 16-byte events.
"""

import re
import struct
from collections.abc import Callable, Iterator
from importlib import import_module
from xml.etree import ElementTree

import numpy as np

from ...errors import UserError
from .opening import LARGEST_UNPACKED, complete, limit_unpacked, read_up_to

__all__ = ["decode_aedat4"]

_MAGIC = b"#!AER-DAT4.0\r\n"
_STORED = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "u1"), ("padding", "V3")])
_CODECS = ("none", "lz4", "lz4", "zstandard", "zstandard")
_EXTRA = "pip install 'braincog_transformers[aedat4]'"
_LONGEST_XML = 1 << 20
_LZ4_MOST = 255
"""Bytes that one byte of LZ4 can stand for."""


def decode_aedat4(raw: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return t (microseconds), x, y and p, (N,) each, of the first event stream.

    Raises:
        UserError: for bytes that are no complete AEDAT4 container, or compressed with a package that isn't installed.
    """
    if not raw.startswith(_MAGIC):
        raise UserError("not an AEDAT4 recording; it doesn't begin with '#!AER-DAT4.0', fetch it anew")
    with complete("AEDAT4 recording", "truncated or damaged"):
        compression, streams, start, end = _heading(raw)
        packets = list(_packets(raw, start, end, min(_event_streams(streams))))
        unpack = _decompressor(compression)
        parts, room = [np.empty(0, _STORED)], LARGEST_UNPACKED
        for packet in packets:
            payload = unpack(packet, room)
            room -= len(payload) if compression else 0
            limit_unpacked(LARGEST_UNPACKED - room, LARGEST_UNPACKED)
            first, count = _vector(_table(payload, 0, b"EVTS"), 0)
            parts.append(np.frombuffer(payload, _STORED, count, 4 + first))
        events = np.concatenate(parts)
    return events["t"], events["x"], events["y"], events["on"]


def _heading(raw: bytes) -> tuple[int, str, int, int]:
    """Return the compression, the XML of the streams, and where the packets begin and end."""
    table = _table(raw, len(_MAGIC), b"IOHE")
    compression_at, end_at = _field(table, 0), _field(table, 1)
    compression = _number(table, compression_at, "i") if compression_at else 0
    end = _number(table, end_at, "q") if end_at else -1
    first, length = _vector(table, 2)
    streams = bytes(table[first : first + length]).decode()
    return compression, streams, len(_MAGIC) + 4 + len(table), end if end > 0 else len(raw)


def _number(content: bytes | memoryview, place: int, kind: str = "I") -> int:
    return struct.unpack_from("<" + kind, content, place)[0]


def _table(content: bytes | memoryview, place: int, name: bytes) -> memoryview:
    """Return the FlatBuffer of this name that has its size in front."""
    size = _number(content, place)
    table = memoryview(content)[place + 4 : place + 4 + size]
    if len(table) < size or table[4:8] != name:
        raise ValueError(f"it has no whole table {name.decode()}")
    return table


def _field(table: memoryview, number: int) -> int:
    """Return the place of a field of a FlatBuffer's root table, 0 if it is absent."""
    root = _number(table, 0)
    fields = root - _number(table, root, "i")
    entry = 4 + 2 * number
    if fields < 0:
        raise ValueError("a table begins before the file")
    if entry >= _number(table, fields, "H"):
        return 0
    offset = _number(table, fields + entry, "H")
    return root + offset if offset else 0


def _vector(table: memoryview, number: int) -> tuple[int, int]:
    """Return the place and the number of the elements of a field, 0 and 0 if it is absent."""
    place = _field(table, number)
    if not place:
        return 0, 0
    place += _number(table, place)
    return place + 4, _number(table, place)


def _event_streams(xml: str) -> list[int]:
    """Return the numbers of the streams that hold events."""
    if len(xml) > _LONGEST_XML or "<!" in xml:  # declarations can make a short text a long one
        raise ValueError("its list of streams is none")
    nodes = ElementTree.fromstring(xml).iterfind(".//node[@name='outInfo']/node")
    names = [node.get("name", "") for node in nodes if node.findtext("attr[@key='typeIdentifier']") == "EVTS"]
    found = [int(name) for name in names if re.fullmatch(r"[0-9]{1,9}", name)]
    if not found:
        raise UserError("this AEDAT4 recording has no event stream with a number; fetch it anew")
    return found


def _packets(raw: bytes, start: int, end: int, wanted: int) -> Iterator[memoryview]:
    while start < end:
        stream, length = struct.unpack_from("<ii", raw, start)
        start += 8
        if length < 0 or start + length > end:
            raise ValueError("a packet is longer than the file")
        if stream == wanted:
            yield memoryview(raw)[start : start + length]
        start += length


def _decompressor(compression: int) -> Callable[[memoryview, int], bytes | memoryview]:
    """Return a function of a packet and of the most bytes it may unpack to; of more it returns one more at least."""
    if not 0 <= compression < len(_CODECS):
        raise UserError(f"unknown compression {compression} of an AEDAT4 recording; known are 0 (none) to 4")
    if compression == 0:
        return lambda packet, _: packet
    package = _CODECS[compression]
    try:
        module = import_module("lz4.frame" if package == "lz4" else package)
    except ImportError:
        raise UserError(f"this AEDAT4 recording is compressed and needs the package {package}; {_EXTRA}") from None
    if package == "lz4":
        return lambda packet, most: module.LZ4FrameDecompressor().decompress(
            packet, min(most, _LZ4_MOST * len(packet)) + 1
        )
    return lambda packet, most: read_up_to(module.ZstdDecompressor().stream_reader(packet), most)
