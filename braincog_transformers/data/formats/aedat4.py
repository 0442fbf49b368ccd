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
from .opening import LARGEST_UNPACKED, limit_unpacked, read_up_to

__all__ = ["decode_aedat4"]

_MAGIC = b"#!AER-DAT4.0\r\n"
_STORED = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "u1"), ("padding", "V3")])
_CODECS = ("none", "lz4", "lz4", "zstandard", "zstandard")
_EXTRA = "pip install 'braincog_transformers[aedat4]'"
_LONGEST_XML = 1 << 20
_LZ4_MOST = 255
"""Bytes that one byte of LZ4 can stand for."""


def decode_aedat4(raw: bytes) -> np.ndarray:
    """Return the events of the first event stream, with fields t (microseconds), x, y, on.

    Raises:
        UserError: for bytes that are no complete AEDAT4 container, or compressed with a package that isn't installed.
    """
    if not raw.startswith(_MAGIC):
        raise UserError("not an AEDAT4 recording; it doesn't begin with '#!AER-DAT4.0', fetch it anew")
    try:
        compression, table_at, streams, start = _heading(raw)
        stream = min(_event_streams(streams))
        packets = list(_packets(raw, start, table_at if table_at > 0 else len(raw), stream))
    except UserError:
        raise
    except (struct.error, IndexError, ValueError, TypeError, ElementTree.ParseError):
        raise UserError("truncated or damaged AEDAT4 recording; fetch it anew") from None
    unpack = _decompressor(compression)
    parts, room = [np.empty(0, _STORED)], LARGEST_UNPACKED
    try:
        for packet in packets:
            payload = unpack(packet, room)
            room -= len(payload) if compression else 0
            limit_unpacked(LARGEST_UNPACKED - room, LARGEST_UNPACKED)
            parts.append(_events(payload))
    except UserError:
        raise
    except Exception as error:
        # Each codec has its own exception classes for damaged data, and they share no base.
        raise UserError(f"truncated or damaged AEDAT4 recording ({type(error).__name__}); fetch it anew") from None
    return np.concatenate(parts)


def _heading(raw: bytes) -> tuple[int, int, str, int]:
    size = struct.unpack_from("<I", raw, len(_MAGIC))[0]
    start = len(_MAGIC) + 4
    table = memoryview(raw)[start : start + size]
    if len(table) < size or table[4:8] != b"IOHE":
        raise ValueError
    compression_at, table_at, text_at = (_field(table, number) for number in range(3))
    compression = struct.unpack_from("<i", table, compression_at)[0] if compression_at else 0
    data_table = struct.unpack_from("<q", table, table_at)[0] if table_at else -1
    text_at += struct.unpack_from("<I", table, text_at)[0]
    length = struct.unpack_from("<I", table, text_at)[0]
    return compression, data_table, bytes(table[text_at + 4 : text_at + 4 + length]).decode(), start + size


def _field(table: memoryview, number: int) -> int:
    """Return where a field of a FlatBuffer's root table lies, 0 if it is absent."""
    root = struct.unpack_from("<I", table, 0)[0]
    fields = root - struct.unpack_from("<i", table, root)[0]
    if fields < 0:
        raise ValueError
    entry = 4 + 2 * number
    if entry >= struct.unpack_from("<H", table, fields)[0]:
        return 0
    offset = struct.unpack_from("<H", table, fields + entry)[0]
    return root + offset if offset else 0


def _event_streams(xml: str) -> list[int]:
    """Return the numbers of the streams that hold events."""
    if len(xml) > _LONGEST_XML or "<!" in xml:  # declarations can make a short text a long one
        raise ValueError
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
            raise ValueError
        if stream == wanted:
            yield memoryview(raw)[start : start + length]
        start += length


def _events(payload: bytes | memoryview) -> np.ndarray:
    table = memoryview(payload)[4:]
    if len(table) < struct.unpack_from("<I", payload, 0)[0] or table[4:8] != b"EVTS":
        raise ValueError
    vector = _field(table, 0)
    if not vector:
        return np.empty(0, _STORED)
    vector += struct.unpack_from("<I", table, vector)[0]
    return np.frombuffer(table, _STORED, struct.unpack_from("<I", table, vector)[0], vector + 4)


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
