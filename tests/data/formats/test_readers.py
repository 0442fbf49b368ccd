"""Readers against independent ones, and against files that are not what they should be."""

import numpy as np
import pytest
from writers import aedat4_bytes, random_events, write_aedat2, write_aedat4

from braincog_transformers.data.formats import aedat4
from braincog_transformers.data.readers import encode_bin, make_events, read_bin, read_recording
from braincog_transformers.errors import UserError

SIZE = (128, 128)


def same(events, other):
    return all(np.array_equal(events[field], other[field]) for field in ("t", "x", "y", "p"))


def test_reads_a_hand_written_bin_record(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes([3, 5, 0x81, 0x02, 0x03, 4, 6, 0x01, 0x02, 0x04]))
    events = read_bin(path)
    assert events.tolist() == [(0x010203, 3, 5, True), (0x010204, 4, 6, False)]


def test_bin_overflow_markers_move_the_clock_and_are_no_events(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes([1, 1, 0, 0, 5, 0, 240, 0, 0, 0, 2, 2, 0, 0, 6, 0, 240, 0, 0, 0, 3, 3, 128, 0, 7]))
    assert read_bin(path)["t"].tolist() == [5, 8192 + 6, 2 * 8192 + 7]


@pytest.mark.parametrize("markers", [0, 3])
def test_bin_equals_tonic(tmp_path, markers):
    tonic = pytest.importorskip("tonic.io")
    raw = np.frombuffer(encode_bin(random_events(500, longest=1 << 22)), np.uint8).reshape(-1, 5).copy()
    raw[:markers, 1] = 240
    path = tmp_path / "a.bin"
    path.write_bytes(raw.tobytes())
    dtype = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
    assert same(read_bin(path), tonic.read_mnist_file(str(path), dtype))


def test_bin_writer_refuses_what_the_format_cannot_hold():
    with pytest.raises(ValueError, match="8388607"):
        encode_bin(make_events([1 << 23], [0], [0], [True]))


def test_aedat2_has_spikingjellys_orientation(tmp_path):
    path = tmp_path / "a.aedat"
    # address 0x0103: bits 14..8 are 1, bits 7..1 are 1, bit 0 is 1
    path.write_bytes(b"#!AER-DAT2.0\r\n# x\r\n" + bytes([0, 0, 1, 3, 0, 0, 1, 0]))
    assert read_recording(path, SIZE).tolist() == [(256, 126, 126, False)]


def test_aedat2_round_trip(tmp_path):
    events = random_events(300, 128)
    assert same(read_recording(write_aedat2(tmp_path / "a.aedat", events), SIZE), events)


def test_aedat4_round_trip_skips_other_streams(tmp_path):
    events = random_events(301, 128)
    path = write_aedat4(tmp_path / "a.aedat4", events, packets=3, stream=2)
    foreign = np.array([7, 5], "<i4").tobytes() + b"hello"
    path.write_bytes(path.read_bytes() + foreign)
    assert same(read_recording(path, SIZE), events)


def test_aedat4_equals_the_aedat_package(tmp_path):
    aedat = pytest.importorskip("aedat")
    path = write_aedat4(tmp_path / "a.aedat4", random_events(300, 128))
    packets = np.concatenate([packet["events"] for packet in aedat.Decoder(str(path)) if "events" in packet])
    packets.dtype.names = ("t", "x", "y", "p")
    assert same(read_recording(path, SIZE), packets)


@pytest.mark.parametrize(("package", "compression"), [("lz4.frame", 1), ("zstandard", 3)])
def test_aedat4_compressed(tmp_path, package, compression):
    module = pytest.importorskip(package)
    compress = module.compress if package == "lz4.frame" else module.ZstdCompressor().compress
    events = random_events(300, 128)
    path = write_aedat4(tmp_path / "a.aedat4", events, compression=compression, compress=compress)
    assert same(read_recording(path, SIZE), events)


def test_aedat4_compressed_without_the_package_names_the_extra(tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(aedat4, "import_module", absent)
    path = write_aedat4(tmp_path / "a.aedat4", random_events(9, 128), compression=1)
    with pytest.raises(UserError, match=r"lz4.*pip install 'braincog_transformers\[aedat4\]'"):
        read_recording(path, SIZE)


def _cut(data, count):
    return data[: len(data) - count]


BIN = encode_bin(random_events(20))
AEDAT4 = aedat4_bytes(random_events(20, 128))
EMPTY4 = aedat4_bytes(random_events(0, 128))
BAD = {
    "truncated.bin": (_cut(BIN, 2), "truncated"),
    "empty.bin": (b"", "no events"),
    "column.bin": (bytes([128, 0, 0, 0, 1]), "outside of the 128 x 128 sensor, the first at x=128, y=0"),
    "row.bin": (bytes([0, 128, 0, 0, 1]), "outside of the 128 x 128 sensor, the first at x=0, y=128"),
    "unsorted.bin": (bytes([1, 1, 0, 0, 9, 1, 1, 0, 0, 8]), "time goes backwards 1 times in 2"),
    "foreign.aedat": (b"GIF89a" + bytes(80), "not an AEDAT 2.0"),
    "headless.aedat": (b"#!AER-DAT2.0", "truncated"),
    "truncated.aedat": (b"#!AER-DAT2.0\r\n" + bytes(13), "truncated"),
    "empty.aedat": (b"#!AER-DAT2.0\r\n", "no events"),
    "camera.aedat": (b"#!AER-DAT2.0\r\n" + bytes([1, 0, 0, 0, 0, 0, 0, 0]), "more than 16 bits"),
    "foreign.aedat4": (b"#!AER-DAT2.0\r\n" + bytes(80), "not an AEDAT4"),
    "truncated.aedat4": (_cut(AEDAT4, 7), "truncated"),
    "magic.aedat4": (AEDAT4[:14], "truncated"),
    "heading.aedat4": (AEDAT4[:100], "truncated"),
    "stream.aedat4": (AEDAT4 + bytes([9, 0, 0, 0, 5, 0, 0, 0]) + b"half", "truncated"),
    "empty.aedat4": (EMPTY4, "no events"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_named_in_one_line(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_recording(tmp_path / name, SIZE)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


PACKET = 8 + 32 + 16 * 10  # stream and length, the table's head, ten events


@pytest.mark.parametrize("length", [n for n in range(0, len(AEDAT4), 13) if n != len(AEDAT4) - PACKET])
def test_every_cut_of_an_aedat4_file_inside_of_a_packet_is_refused(tmp_path, length):
    path = tmp_path / "a.aedat4"
    path.write_bytes(AEDAT4[:length])
    with pytest.raises(UserError, match=r"a\.aedat4: "):
        read_recording(path, SIZE)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.bin: can't be read"):
        read_recording(tmp_path / "gone.bin", SIZE)
