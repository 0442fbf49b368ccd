"""Recordings that are made to harm: bombs, pointers, shapes that no file can have, each one line and little memory."""

import gzip
import io
import pickle
import struct
import time
import tracemalloc
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from event_writers import packets_of, wide_events, write_bullying10k, write_bytes
from scipy.io import loadmat, savemat
from writers import aedat3_bytes, aedat4_bytes, random_events, random_spikes, write_shd, write_shd_file

from braincog_transformers.cli import main
from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.events.recordings import GivenSteps, Pickled
from braincog_transformers.data.formats import aedat4, hdf5, hdf5_helper, opening
from braincog_transformers.data.formats.arrays import npy_array
from braincog_transformers.data.formats.mat5 import mat_columns
from braincog_transformers.data.formats.opening import complete, file_bytes, limit_unpacked, named
from braincog_transformers.data.formats.pickles import load_npy
from braincog_transformers.data.readers import READERS, Segment, read_mat, read_recording
from braincog_transformers.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*published figures need all of them")

SIZE = (180, 240)
EVENTS = wide_events(40, 240, 180)
MOST = 20 << 20
"""Bytes that a refusal may take."""


def refused(recording, message, size=SIZE):
    """Read what can't be read: one line with the file, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as caught:
            read_recording(recording, size)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert text.startswith(f"{recording}: ")
    assert len(text) < 400 + len(str(recording))
    assert text.isprintable()


def npy_heading(description):
    text = repr(description).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


def object_file(content):
    return npy_heading({"descr": "|O", "fortran_order": False, "shape": (1,)}) + content


def calling(code, *lines):
    """Return a pickle, written by hand: numpy's names, and what is called with them."""
    return b"\x80\x04" + b"".join(lines) + code + b"."


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


NAMED_ARRAY = text("numpy") + text("ndarray") + b"\x93"
NAMED_TYPE = text("numpy") + text("dtype") + b"\x93"
BUFFER_OF_POINTERS = calling(b"\x87R", NAMED_ARRAY, b"K\x01\x85", text("O"), b"C\x08AAAAAAAA")


class Pointers:
    """An array whose fields are said to be objects, in bytes of the file's own."""

    def __reduce__(self):
        kind = np.dtype([("t", object), ("x", "i8"), ("y", "i8"), ("p", "i8")])
        return _frombuffer, (b"A" * 32, kind, (1,), "C")


_frombuffer = np.zeros(1).__reduce_ex__(5)[0]


class Twice:
    """A type of numbers that is given the state of one of objects."""

    def __reduce__(self):
        return np.dtype, ("i8", False, True), (3, "|", None, None, None, -1, -1, 63)


@pytest.mark.parametrize(
    "content",
    [
        BUFFER_OF_POINTERS,
        pickle.dumps(Pointers(), protocol=4),
        pickle.dumps([Pointers()], protocol=4),
        pickle.dumps({"t": Pointers(), "x": [1], "y": [1], "p": [1]}, protocol=4),
        pickle.dumps(Twice(), protocol=4),
        calling(b"", b"r\xff\xff\xff\x7f"),  # a place of the memory that would take 32 GB
        calling(b"", b"N", b"r\xff\xff\xff\x7f"),
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".",
        b"\x80\x04N.",
        b"\x80\x04(((((.",
        b"\x80\x04" + b"]" * 5000 + b"a" * 5000 + b".",
        b"\x80\x04]\x94" + b"h\x00a" * 9 + b".",  # a list of itself
        b"cbuiltins\neval\n.",
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x04" + text("braincog_transformers") + text("x" * 200) + b"\x93.",
        b"\x80\x04" + NAMED_TYPE + b".",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x80\x05\x97.",
        b"",
    ],
    ids=range(19),
)
def test_no_pickle_makes_anything_but_arrays_of_plain_numbers(tmp_path, content):
    path = write_bytes(tmp_path / "a.npy", object_file(content))
    refused(Pickled(path), r"needs packets|not a complete \.npy array|asks for|not an array")


@pytest.mark.parametrize(
    "kind", [[("t", "|O"), ("x", "<i8")], [("t", "<i8"), ("x", [("y", "|O")])], [("t", "|O", (3,))], "|O"]
)
def test_a_type_with_objects_in_it_is_refused_from_its_heading(tmp_path, kind):
    content = npy_heading({"descr": kind, "fortran_order": False, "shape": (1,)}) + b"A" * 64
    path = write_bytes(tmp_path / "a.npy", content)
    refused(path, "names Python objects")
    refused(Pickled(path), "not an array of objects or of plain numbers|not a complete")


def test_packets_that_are_named_many_times_are_no_more_than_the_file(tmp_path):
    packet = packets_of(wide_events(1000, 240, 180), 1)[0]
    stored = np.empty(5000, object)
    stored[:] = [packet] * 5000
    np.save(tmp_path / "a.npy", stored, allow_pickle=True)
    assert (tmp_path / "a.npy").stat().st_size < 60_000
    refused(Pickled(tmp_path / "a.npy"), "more numbers than the file has bytes")


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<i8", ">i4", "<f4", "u2", "?"])
def test_plain_arrays_of_any_order_come_out_of_pickles_as_they_were(tmp_path, protocol, order, kind):
    columns = {name: np.asfortranarray([[1, 0], [1, 1]]).astype(kind, order=order) for name in "txyp"}
    stored = np.empty((), object)
    stored[()] = columns
    content = npy_heading({"descr": "|O", "fortran_order": False, "shape": ()}) + pickle.dumps(stored, protocol)
    found = load_npy(write_bytes(tmp_path / "a.npy", content))
    assert len(found) == 1
    for name, column in columns.items():
        assert found[0][name].dtype == column.dtype
        assert np.array_equal(found[0][name], column)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1 << 40, 4), "too few for its heading"),
        ((1 << 62, 1 << 62), "too few for its heading"),
        ((-1, 4), "too few for its heading"),
        ((10, 5), "too few for its heading"),
        (("a", 4), "not a complete"),
    ],
)
def test_a_heading_never_makes_more_than_the_file_holds(tmp_path, shape, message):
    content = npy_heading({"descr": "<f8", "fortran_order": False, "shape": shape}) + bytes(320)
    refused(write_bytes(tmp_path / "a.npy", content), message)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("pos.npy", content)
        archive.writestr("neg.npy", content)
    refused(GivenSteps(write_bytes(tmp_path / "a.npz", target.getvalue()), 200, 200), message)


@pytest.mark.parametrize("kind", ["<U0", "|V0", "<M8[s]", "|S9999"])
def test_a_heading_with_an_odd_type_is_one_line(tmp_path, kind):
    content = npy_heading({"descr": kind, "fortran_order": False, "shape": (1 << 50, 4)}) + bytes(64)
    refused(write_bytes(tmp_path / "a.npy", content), "not a complete|needs numbers")


@pytest.mark.parametrize(
    "heading", [b"(" * 9000, b"-" * 9000 + b"1", b"{" + b"'\\d':1," * 900 + b"}", b"9" * 9000, b"\xff\xfe" * 100]
)
def test_a_heading_that_is_no_heading_is_one_line(tmp_path, heading, recwarn):
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(heading)) + heading + bytes(64)
    refused(write_bytes(tmp_path / "a.npy", content), "not a complete")
    assert not recwarn.list


def test_arrays_equal_numpys(tmp_path):
    for value in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.zeros((0, 4))):
        target = io.BytesIO()
        np.save(target, value)
        assert np.array_equal(npy_array(target.getvalue()), value)


ROWS = np.array([[1, 2, 3]])


def npz(method=zipfile.ZIP_DEFLATED, rows=ROWS):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name in ("pos", "neg"):
            inner = io.BytesIO()
            np.save(inner, rows)
            archive.writestr(f"{name}.npy", inner.getvalue())
    return target.getvalue()


def in_list(content, offset, value):
    """Change what the list of members at the end of an archive says of them."""
    changed, place = bytearray(content), content.find(b"PK\x01\x02")
    while place >= 0:
        changed[place + offset : place + offset + len(value)] = value
        place = content.find(b"PK\x01\x02", place + 1)
    return bytes(changed)


def in_heading(content, offset, value):
    changed = bytearray(content)
    changed[offset : offset + len(value)] = value
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (in_list(npz(), 24, struct.pack("<I", 1 << 31)), "unpacks to .* bytes; a recording may have up to"),
        (in_list(npz(), 24, struct.pack("<I", 1 << 20)), "not a complete .npz"),
        (in_list(npz(), 8, b"\x01\x00"), "encrypted"),
        (in_list(npz(), 10, b"\x63\x00"), "packed by method 99"),
        (npz(zipfile.ZIP_LZMA), "packed by method 14"),
        (npz(zipfile.ZIP_BZIP2), "packed by method 12"),
        (in_list(npz(), 16, b"abcd"), "not a complete .npz .*CRC"),
        (in_heading(npz(), 40, b"\xff" * 20), "not a complete .npz"),
        (in_list(npz(), 42, b"\xff" * 4), "not a complete .npz"),
        (in_list(npz(), 46, b"p\xff"), "not a complete .npz"),
        (npz()[:-22], "not a complete .npz"),
        (b"\x93NUMPY\x01\x00", "not a complete .npz"),
    ],
)
def test_archives_of_every_kind_of_damage_are_one_line(tmp_path, content, message):
    refused(GivenSteps(write_bytes(tmp_path / "a.npz", content), 200, 200), message, (224, 224))


def test_a_deflated_bomb_stops_at_the_size_that_was_checked(tmp_path):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("pos", "neg"):
            archive.writestr(f"{name}.npy", bytes(30 << 20))
    content = in_list(target.getvalue(), 24, struct.pack("<I", 1000))
    refused(GivenSteps(write_bytes(tmp_path / "a.npz", content), 200, 200), "not a complete .npz")


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(name, column, dims=None, kind=9, number_class=6, flags=0):
    sides = struct.pack(f"<{len(dims or (1, 1))}i", *(dims or (len(column), 1)))
    parts = [
        element(6, struct.pack("<II", number_class | flags << 8, 0)), element(5, sides), element(1, name),
        element(kind, column if isinstance(column, bytes) else np.asarray(column, "<f8").tobytes()),
    ]  # fmt: skip
    return element(14, b"".join(parts))


def mat(*elements):
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def deflated(content, size=None):
    packed = zlib.compress(content if size is None else struct.pack("<II", 14, size) + content[8:])
    return struct.pack("<II", 15, len(packed)) + packed


FOUR = [matrix(name, [1.0]) for name in (b"ts", b"x", b"y", b"pol")]


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ([matrix(b"ts", [1.0], dims=(1 << 30, 1))], "another number of elements"),
        ([matrix(b"ts", [1.0], dims=(-1, 1))], "not a complete MATLAB"),
        ([matrix(b"ts", [1.0] * 4, dims=(2, 2))], "ts must be a column"),
        ([matrix(b"ts", b"abcd", kind=4, number_class=4)], "ts must be a column"),
        ([matrix(b"ts", b"", number_class=2)], "ts must be a column"),
        ([matrix(b"ts", b"", number_class=5)], "ts must be a column"),
        ([matrix(b"ts", [1.0], flags=8)], "ts must be a column"),
        ([matrix(b"ts", [1.0], kind=99)], "ts must be a column"),
        ([element(14, b"")], "it has no ts, x, y, pol"),
        ([element(14, b"\xff" * 64)], "not a complete MATLAB"),
        ([struct.pack("<II", 14, 0xFFFFFFF0)], "ends behind the end"),
        ([struct.pack("<II", 9 << 16 | 14, 0)], "more than four bytes"),
        ([deflated(FOUR[0], size=1 << 31)], "unpacks to 2147483648 bytes"),
        ([deflated(FOUR[0], size=1 << 20)], "another size than it says"),
        ([deflated(FOUR[0] + bytes(30 << 20), size=len(FOUR[0]) - 8)], "another size than it says"),
        ([deflated(deflated(FOUR[0]))], "it has no ts"),
        ([struct.pack("<II", 15, 3) + b"abc"], "not a complete MATLAB"),
        ([*FOUR[:3], matrix(b"pol", [])], "not equally many"),
        ([*FOUR[1:], matrix(b"ts", [1e30])], "t must be whole numbers, those of microseconds"),
    ],
)
def test_matlab_files_with_any_counts_are_one_line(tmp_path, elements, message):
    refused(write_bytes(tmp_path / "a.mat", mat(*elements)), message)


def test_any_bit_of_a_matlab_file_may_be_wrong(tmp_path):
    whole = mat(*FOUR[:3], deflated(FOUR[3]))
    path, refusals = write_bytes(tmp_path / "a.mat", whole), []
    assert len(read_mat(path)) == 1
    for bit in range(8 * 100, 8 * len(whole), 7):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            assert len(read_mat(path)) == 1
        except UserError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert all(refusal.startswith(f"{path}: ") for refusal in refusals)


@pytest.mark.parametrize("do_compression", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?", ">i4", ">f8"])
@pytest.mark.parametrize("shape", [(-1, 1), (1, -1)])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, shape, kind, do_compression):
    names = ("ts", "x", "y", "pol")
    columns = {name: np.arange(k, k + 5).astype(kind).reshape(shape) for k, name in enumerate(names)}
    others = {"cell": np.array([[1, "a"]], object), "struct": {"x": 1, "y": [1, 2]}, "text": "ts", "none": []}
    path = tmp_path / "a.mat"
    savemat(path, {**others, **columns}, do_compression=do_compression)
    theirs = loadmat(path)
    for name, column in zip(names, mat_columns(path.read_bytes(), names), strict=True):
        assert np.array_equal(column, theirs[name].ravel())


def test_matlab_files_of_the_other_byte_order_are_read(tmp_path):
    content = bytearray(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI")
    for name, value in ((b"ts", 7), (b"x", 1), (b"y", 2), (b"pol", 1)):
        parts = struct.pack(">IIII", 6, 8, 12, 0) + struct.pack(">IIii", 5, 8, 1, 1)
        parts += struct.pack(">I", len(name) << 16 | 1) + name.ljust(4, b"\0")
        parts += struct.pack(">IIi4x", 5, 4, value)
        content += struct.pack(">II", 14, len(parts)) + parts
    assert read_mat(write_bytes(tmp_path / "a.mat", bytes(content))).tolist() == [(7, 1, 177, True)]


@pytest.mark.parametrize("start", [b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n"])
def test_matlab_files_of_a_later_level_say_how_to_save_them(tmp_path, start):
    refused(write_bytes(tmp_path / "a.mat", start + bytes(2000)), "saved with -v7.3.*save it anew with -v7")


def codec(name):
    if name == "lz4":
        return 1, pytest.importorskip("lz4.frame").compress
    return 3, pytest.importorskip("zstandard").ZstdCompressor().compress


@pytest.mark.parametrize("name", ["lz4", "zstandard"])
@pytest.mark.parametrize("packets", [1, 40])
def test_packets_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch, name, packets):
    number, compress = codec(name)
    monkeypatch.setattr(aedat4, "LARGEST_UNPACKED", 1 << 20)
    content = aedat4_bytes(EVENTS, packets, number, lambda packet: compress(packet + bytes((2 << 20) // packets)))
    refused(write_bytes(tmp_path / "a.aedat4", content), "unpacks to .* bytes; a recording may have up to 1048576")


@pytest.mark.parametrize("name", ["lz4", "zstandard"])
def test_a_packet_that_ends_too_early_is_refused(tmp_path, name):
    number, compress = codec(name)
    content = aedat4_bytes(random_events(9000, 128), 1, number, lambda packet: compress(packet)[:-9])
    refused(write_bytes(tmp_path / "a.aedat4", content), "truncated or damaged AEDAT4")


def with_streams(streams):
    """Write a container whose heading lists other streams."""
    xml = f'<dv version="2.0"><node name="outInfo">{streams}</node></dv>'.encode()
    body = struct.pack("<I4s6x5HiiIq", 24, b"IOHE", 10, 20, 4, 12, 8, 10, 0, 12, -1) + struct.pack("<I", len(xml)) + xml
    body += bytes(-len(body) % 4)
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(body)) + body


ATTRIBUTE = '<attr key="typeIdentifier">EVTS</attr>'


@pytest.mark.parametrize(
    "streams",
    [
        f"<node>{ATTRIBUTE}</node>",
        f'<node name="">{ATTRIBUTE}</node>',
        f'<node name="events">{ATTRIBUTE}</node>',
        f'<node name="{"9" * 5000}">{ATTRIBUTE}</node>',
        f'<node name="²">{ATTRIBUTE}</node>',
        f'<node name="-1">{ATTRIBUTE}</node>',
        "",
    ],
)
def test_streams_without_a_number_are_none(tmp_path, streams):
    refused(write_bytes(tmp_path / "a.aedat4", with_streams(streams)), "no event stream with a number")


@pytest.mark.parametrize("streams", ["<node>" * 30_000, "<node", "<!-- -->", "a" * (1 << 21)])
def test_a_list_of_streams_that_is_none_is_damaged(tmp_path, streams):
    refused(write_bytes(tmp_path / "a.aedat4", with_streams(streams)), "truncated or damaged AEDAT4")


def test_entities_in_a_list_of_streams_are_not_expanded(tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    content = with_streams("").replace(b'<dv version="2.0">', bomb.encode().ljust(100)[:18])
    refused(write_bytes(tmp_path / "a.aedat4", content), "truncated or damaged AEDAT4")


@pytest.mark.parametrize("place", [4, 16, 20])
@pytest.mark.parametrize("value", [0xFFFFFFFF, 0x80000000, 9])
def test_an_aedat3_heading_with_any_sizes_is_one_line(tmp_path, place, value):
    content = bytearray(aedat3_bytes(EVENTS, packets=1, special=False))
    start = len(content) - 8 * len(EVENTS) - 28
    content[start + place : start + place + 4] = struct.pack("<I", value)
    path = write_bytes(tmp_path / "a.aedat", bytes(content))
    if (place, value) == (20, 9):
        assert len(read_recording(Segment(path, 0, 1 << 40), SIZE)) == 9
    else:
        refused(Segment(path, 0, 1 << 40), "damaged|truncated")


def changed_h5(path, change):
    write_shd_file(path, *random_spikes(3, 0, 30), [1, 2, 3])
    with h5py.File(path, "a") as stored:
        change(stored)
    return path


def replaced(name, make):
    def change(stored):
        del stored[name]
        make(stored)

    return change


def vlen(name, kind, rows):
    def make(stored):
        column = stored.create_dataset(name, (len(rows),), h5py.vlen_dtype(kind))
        for place, row in enumerate(rows):
            column[place] = row

    return make


def instead(name, *shape, **how):
    """Put another data set in the place of one."""
    return replaced(name, lambda stored: stored.create_dataset(name, *shape, **how))


def linked(name, link):
    return replaced(name, lambda stored: stored.__setitem__(name, link))


VIRTUAL = h5py.VirtualLayout((3,), "i8")
VIRTUAL[:] = h5py.VirtualSource("other.h5", "labels", (3,))
SHAPES = {
    "labels are a group": replaced("labels", lambda stored: stored.create_group("labels")),
    "labels are a type": linked("labels", np.dtype("i8")),
    "labels are one number": instead("labels", data=3),
    "labels are nothing": linked("labels", h5py.Empty("i8")),
    "labels have two axes": instead("labels", data=np.zeros((3, 3))),
    "labels are text": instead("labels", data=[b"a", b"b", b"c"]),
    "labels are fractions": instead("labels", data=[0.5, 1, 2]),
    "labels are no numbers": instead("labels", data=[np.nan, 1, 2]),
    "labels are complex": instead("labels", data=[1j, 1, 2]),
    "labels are pairs": instead("labels", data=np.zeros(3, "i8,i8")),
    "labels are references": instead("labels", (3,), h5py.ref_dtype),
    "labels are endless": instead("labels", (1 << 50,), "i8", chunks=(9,)),
    "labels come in huge parts": instead("labels", (3,), "i8", chunks=(1 << 28,), maxshape=(None,)),
    "labels lie elsewhere": linked("labels", h5py.ExternalLink("b.h5", "/a")),
    "labels point to nothing": linked("labels", h5py.SoftLink("/gone")),
    "labels point to themselves": linked("labels", h5py.SoftLink("/labels")),
    "labels lie in another file": instead("labels", (3,), "i8", external="/dev/zero"),
    "labels are virtual": replaced("labels", lambda stored: stored.create_virtual_dataset("labels", VIRTUAL)),
    "no spikes": replaced("spikes", lambda stored: None),
    "spikes are no group": instead("spikes", data=[1]),
    "times have one length": instead("spikes/times", data=[0.0, 1.0, 2.0]),
    "times are text": instead("spikes/times", (3,), h5py.string_dtype()),
    "times are lists of lists": instead("spikes/times", (3,), h5py.vlen_dtype(h5py.vlen_dtype("f2"))),
    "times are endless": instead("spikes/times", (1 << 50,), h5py.vlen_dtype("f2"), chunks=(9,)),
    "times are late": replaced("spikes/times", vlen("spikes/times", "f8", [[1e300] * 9] * 3)),
    "units are fractions": replaced("spikes/units", vlen("spikes/units", "f4", [[0.5] * 29] * 3)),
    "one label": instead("labels", data=[3]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_spikes_of_every_odd_shape_are_one_line(tmp_path, shape):
    write_shd(tmp_path, train=3)
    path = changed_h5(tmp_path / "shd_train.h5", SHAPES[shape])
    with pytest.raises(UserError, match=r"shd_train\.h5: ") as caught:
        build_datasets("shd", tmp_path)
    assert len(str(caught.value)) < 400 + len(str(path))
    assert str(caught.value).isprintable()


def with_length(length):
    """Return a file in which the first sample of the times declares another length."""
    target = io.BytesIO()
    with h5py.File(target, "w") as stored:
        vlen("spikes/times", "f2", [[0.25] * 7] * 3)(stored)
        vlen("spikes/units", "u2", [[3] * 7] * 3)(stored)
        stored["labels"] = [1, 2, 3]
        start = stored["spikes/times"].id.get_offset()
    content = bytearray(target.getvalue())
    assert content[start : start + 4] == struct.pack("<I", 7)
    content[start : start + 4] = struct.pack("<I", length)
    return bytes(content)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 1 << 26, 1 << 16])
def test_a_sample_of_a_length_that_no_file_holds_takes_little_time_and_memory(tmp_path, length):
    write_shd(tmp_path, train=3)
    (tmp_path / "shd_train.h5").write_bytes(with_length(length))
    began = time.perf_counter()
    with pytest.raises(UserError, match=r"shd_train\.h5: .*fetch it anew"):
        build_datasets("shd", tmp_path)
    assert time.perf_counter() - began < 30
    write_shd(tmp_path, train=3)
    assert len(build_datasets("shd", tmp_path).train) == 3  # by another process, if that one had to be ended


@pytest.mark.parametrize("end", ["kill", "wait"])
def test_the_death_or_delay_of_the_process_that_reads_names_the_file(tmp_path, monkeypatch, end):
    write_shd(tmp_path)
    script = tmp_path / "helper.py"
    dying = "os.kill(os.getpid(), 11)" if end == "kill" else "time.sleep(99)"
    script.write_text(f"import os, sys, time\nprint('ready', flush=True)\nsys.stdin.readline()\n{dying}\n")
    monkeypatch.setattr(hdf5, "_SCRIPT", script)
    monkeypatch.setattr(hdf5, "_READ_S", 0.3)
    monkeypatch.setattr(hdf5, "_helpers", {})
    message = r"\(reading it ended the process\)" if end == "kill" else r"\(reading it took more than 0 s"
    with pytest.raises(UserError, match=rf"shd_train\.h5: not a complete HDF5 file .*{message}"):
        build_datasets("shd", tmp_path)


def test_a_packed_bomb_is_refused_before_it_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "shd_train.h5.gz"
    path.write_bytes(gzip.compress(bytes(8 << 20)))
    monkeypatch.setattr(hdf5_helper, "_PACKED_MORE", 1 << 20)
    with pytest.raises(hdf5_helper.Refused, match="unpacks to more than"):
        hdf5_helper.read(path, 0)


def test_names_of_classes_are_short_text(tmp_path):
    for keys in (np.arange(35), np.array([b"\xff"] * 35), np.zeros(35, "S2000"), np.array([b"a"] * 34)):
        for part in ("train", "valid", "test"):
            path = write_shd_file(tmp_path / f"ssc_{part}.h5", *random_spikes(2, 0, 30), [1, 2])
            with h5py.File(path, "a") as stored:
                del stored["extra/keys"]
                stored["extra/keys"] = keys
        with pytest.raises(UserError, match=r"ssc_train\.h5: "):
            build_datasets("ssc", tmp_path)


FAILURES = [
    struct.error("unpack requires a buffer"), zlib.error("Error -3"), KeyError("spikes"), MemoryError(), RuntimeError(),
    OverflowError("too large"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), zipfile.BadZipFile("a\nb"),
    NotImplementedError("x" * 5000), RecursionError("deep"), EOFError(), AssertionError(), SystemError("\x1b[31m"),
    AttributeError("no"), UserError("y" * 5000), OSError(5, "Input/output error"),
]  # fmt: skip


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("ending", READERS)
def test_whatever_a_library_raises_becomes_one_line_at_one_place(tmp_path, monkeypatch, ending, error):
    def broken(path):
        raise error

    monkeypatch.setitem(READERS, ending, broken)
    path = write_bytes(tmp_path / f"a{ending}", b"x")
    with pytest.raises(UserError) as caught:
        read_recording(path, SIZE)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text) > len(f"{path}: damaged or foreign ()") or isinstance(error, OSError | UserError)
    assert len(text) < 350 + len(str(path))
    assert text.isprintable()


def test_a_file_is_named_once_however_many_boundaries_it_passes():
    with pytest.raises(UserError) as caught, named("a.bin"), named("a.bin"), complete("thing"):
        raise ValueError("odd")
    assert str(caught.value) == "a.bin: not a complete thing (odd); fetch it anew"


def test_sizes_are_limited_before_anything_is_read(tmp_path, monkeypatch):
    for size in (-1, opening.LARGEST_UNPACKED + 1, 1 << 5000):
        with pytest.raises(UserError, match="a recording may have up to 268435456"):
            limit_unpacked(size)
    path = tmp_path / "a.bin"
    with path.open("wb") as file:
        file.truncate(opening.LARGEST_FILE + 1)  # no byte of it is on the disk
    refused(path, "has 1073741825 bytes, more than the 1073741824 of any recording")


def test_folders_and_pipes_are_no_recordings(tmp_path):
    (tmp_path / "a.bin").mkdir()
    refused(tmp_path / "a.bin", "can't be read")
    with pytest.raises(UserError, match="it is no file"):
        file_bytes(tmp_path / "a.bin")


RUN = ["--dataset", "bullying10k", "--model", "spikformer_2_256_dvs", "--event-size", "16", "--step", "2"]
RUN += ["--model-kwargs", "depth=1", "embed_dim=16", "--workers", "0", "-b", "4", "--device", "cpu"]


def test_the_command_line_ends_with_one_line_and_status_2(tmp_path, capsys):
    write_bullying10k(tmp_path, 1)
    path = next(tmp_path.rglob("*.npy"))
    path.write_bytes(object_file(BUFFER_OF_POINTERS))
    assert main([*RUN, "--data-dir", str(tmp_path), "--output", str(tmp_path / "runs"), "--tensorboard-dir", ""]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"error: {path}: needs packets")
    assert lines[-1].endswith("--skip-bad leaves such recordings out")
    bundle = build_datasets("bullying10k", tmp_path, step=2, skip_bad=True)
    assert len(bundle.left_out) == 1
