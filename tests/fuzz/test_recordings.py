"""Recordings with random damage, in every format: events that an event set may have, or one line with the file."""

import gzip
import io
import random
import struct
import sys
import time
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from event_writers import dat_bytes, packets_of, wide_events
from writers import aedat3_bytes, aedat4_bytes, random_events, random_spikes, write_aedat2, write_shd_file

from braincog_transformers.data.events.recordings import Character, GivenSteps, Pickled, read_stretches
from braincog_transformers.data.readers import Segment, encode_bin, read_recording
from braincog_transformers.data.registry import lookup
from braincog_transformers.data.sequences.spikes import _read as read_sequence
from braincog_transformers.errors import UserError

SIZE = (260, 346)
EVENTS = random_events(40, 128)
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 62, -1)
SLOWEST_S, LONGEST = 10, 400


def saved(write, *arguments, **named):
    target = io.BytesIO()
    write(target, *arguments, **named)
    return target.getvalue()


def mat(do_compression):
    rows = {"ts": EVENTS["t"].astype(np.uint32), "x": EVENTS["x"], "y": EVENTS["y"], "pol": EVENTS["p"].astype("u1")}
    columns = {name: column[:, None] for name, column in rows.items()}
    return saved(savemat, columns, do_compression=do_compression)


def deflated_mat(inner):
    """Pack each variable of a file, damaged or not, so that the damage lies behind sums that are right."""
    parts, place = [inner[:128]], 128
    while place + 8 <= len(inner):
        size = min(struct.unpack_from("<I", inner, place + 4)[0], len(inner)) + 8
        content = zlib.compress(inner[place : place + size])
        parts += [struct.pack("<II", 15, len(content)), content]
        place += size
    return b"".join(parts)


def npz(inner, method=zipfile.ZIP_DEFLATED):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name in ("pos", "neg"):
            archive.writestr(f"{name}.npy", inner)
    return target.getvalue()


def lz4_packets():
    return aedat4_bytes(EVENTS, compression=1, compress=pytest.importorskip("lz4.frame").compress)


def zstandard_packets():
    compressor = pytest.importorskip("zstandard").ZstdCompressor()
    return aedat4_bytes(EVENTS, compression=3, compress=compressor.compress)


def aedat2(folder):
    return write_aedat2(folder / "whole", EVENTS).read_bytes()


def spikes(folder):
    return write_shd_file(folder / "whole.h5", *random_spikes(3, 0, 30), [1, 2, 3]).read_bytes()


def drawings():
    return {key: wide_events(40, 346, 260)[key] for key in ("t", "x", "y", "p")}


def tonics(kind):
    return saved(np.save, np.stack([EVENTS["x"], EVENTS["y"], EVENTS["p"], EVENTS["t"] // 1000], 1).astype(kind))


STEPS = np.stack([np.arange(40), np.arange(40), np.arange(40) % 8 + 1], 1)


def read(recording, path):
    return read_recording(recording(path), SIZE)


# kind: (ending, whole content, what is packed around it, reader of a path)
KINDS = {
    "N-MNIST": (".bin", lambda _: encode_bin(EVENTS), bytes, partial(read, Path)),
    "AEDAT 2": (".aedat", aedat2, bytes, partial(read, Path)),
    "AEDAT 3": (".aedat", lambda _: aedat3_bytes(EVENTS), bytes, partial(read, lambda path: Segment(path, 0, 10**9))),
    "AEDAT 4": (".aedat4", lambda _: aedat4_bytes(EVENTS), bytes, partial(read, Path)),
    "AEDAT 4, LZ4": (".aedat4", lambda _: lz4_packets(), bytes, partial(read, Path)),
    "AEDAT 4, Zstandard": (".aedat4", lambda _: zstandard_packets(), bytes, partial(read, Path)),
    "array of integers": (".npy", lambda _: tonics(np.int64), bytes, partial(read, Path)),
    "array of floats": (".npy", lambda _: tonics(np.float32), bytes, partial(read, Path)),
    "DAT": (".dat", lambda _: dat_bytes(EVENTS), bytes, partial(read, Path)),
    "MATLAB": (".mat", lambda _: mat(False), bytes, partial(read, Path)),
    "MATLAB, deflated": (".mat", lambda _: mat(True), bytes, partial(read, Path)),
    "MATLAB, damaged within": (".mat", lambda _: mat(False), deflated_mat, partial(read, Path)),
    "packets": (".npy", lambda _: saved(np.save, packets_of(EVENTS), allow_pickle=True), bytes, partial(read, Pickled)),
    "array of packets": (".npy", lambda _: saved(np.save, packets_of(EVENTS, 1)[0]), bytes, partial(read, Pickled)),
    "dictionary": (".npy", lambda _: saved(np.save, drawings(), allow_pickle=True), bytes, partial(read, Character)),
    "given steps": (
        ".npz", lambda _: npz(saved(np.save, STEPS)), bytes, partial(read, lambda path: GivenSteps(path, 200, 200))
    ),
    "given steps, damaged within": (
        ".npz", lambda _: saved(np.save, STEPS), npz, partial(read, lambda path: GivenSteps(path, 200, 200))
    ),
    "spikes": (".h5", spikes, bytes, lambda path: read_sequence(path, lookup("shd"), 4)),
    "spikes, damaged within": (".h5.gz", spikes, gzip.compress, lambda path: read_sequence(path, lookup("shd"), 4)),
    "table": (".csv", lambda _: b"id,start,end\r\n1,10,20\r\n2,30,400000\r\n", bytes, read_stretches),
}  # fmt: skip


def damaged(whole, dice):
    """Return the content with one to three of: bytes changed, integers at an extreme, a part cut, doubled or new."""
    content = bytearray(whole)
    for _ in range(dice.randint(1, 3)):
        end = len(content) if dice.random() < 0.5 else min(len(content), 400)  # half of it in headings
        place = dice.randrange(end) if end else 0
        length = dice.choice((1, 2, 4, 8, dice.randint(1, 200)))
        match dice.randrange(6):
            case 0:
                content[place : place + 1] = dice.randbytes(1)
            case 1:
                width = dice.choice((1, 2, 4, 8))
                value = dice.choice(EXTREMES) & ((1 << 8 * width) - 1)
                content[place : place + width] = value.to_bytes(width, dice.choice(("little", "big")))
            case 2:
                del content[place : None if dice.random() < 0.3 else place + length]
            case 3:
                content[place:place] = dice.randbytes(length)
            case 4:
                content[place:place] = content[place : place + length]
            case 5:
                content[place : place + length] = bytes(length)
    return bytes(content)


def check(result):
    """Refuse what no reader may return."""
    if isinstance(result, list):
        assert all(0 <= start < end for start, end in result)
    elif isinstance(result, np.ndarray):
        assert len(result)
        assert (np.diff(result["t"]) >= 0).all()
        assert result["x"].min() >= 0
        assert result["y"].min() >= 0
        assert result["x"].max() < SIZE[1]
        assert result["y"].max() < SIZE[0]
    else:
        for index in range(len(result)):
            counts, label = result[index]
            assert counts.shape == (4, 700)
            assert 0 <= label < 20


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_damaged_there_are_valid_events_or_one_line(tmp_path, kind, fuzz_cases):
    ending, make, pack, reader = KINDS[kind]
    whole = make(tmp_path)
    dice = random.Random(kind)
    path = tmp_path / f"x{ending}"
    path.write_bytes(pack(whole))
    check(reader(path))
    refused = 0
    for case in range(fuzz_cases):
        path.write_bytes(pack(damaged(whole, dice)))
        began = time.perf_counter()
        try:
            check(reader(path))
        except UserError as error:
            refused += 1
            text = str(error)
            assert text.startswith(f"{path}"), case
            assert len(text) < LONGEST + len(str(path)), case
            assert text.isprintable(), case
        assert time.perf_counter() - began < SLOWEST_S, case
    assert refused or fuzz_cases < 20
