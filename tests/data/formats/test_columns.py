"""Numbers of recordings that an event can't hold as they are: refused before any cast, by every reader."""

import struct

import numpy as np
import pytest
from event_writers import dat_bytes, wide_events
from scipy.io import savemat
from writers import aedat3_bytes, aedat4_bytes, random_events, write_aedat2

from braincog_transformers.data.events.recordings import GivenSteps, Pickled
from braincog_transformers.data.formats.columns import LATEST_US, make_events
from braincog_transformers.data.readers import Segment, read_npy, read_recording
from braincog_transformers.errors import UserError

SIZE = (128, 128)
GOOD = {"t": [0, 1000, 2000], "x": [5, 7, 9], "y": [6, 8, 9], "p": [0, 1, 0]}


def rows(path, columns):
    """Write tonic's layout, with milliseconds."""
    t = np.asarray(columns["t"])
    t = t / 1000 if t.dtype.kind == "f" else t // 1000
    np.save(path, np.stack([columns["x"], columns["y"], columns["p"], t], 1))
    return path


def packet(path, columns):
    kinds = [(name, np.asarray(columns[name]).dtype) for name in ("t", "x", "y", "p")]
    stored = np.empty(1, object)
    stored[0] = np.array(list(zip(*(columns[name] for name, _ in kinds), strict=True)), kinds)
    np.save(path, stored, allow_pickle=True)
    return Pickled(path)


def dictionary(path, columns):
    np.save(path, {name: np.asarray(column) for name, column in columns.items()}, allow_pickle=True)
    return Pickled(path)


def matlab(path, columns):
    path = path.with_suffix(".mat")
    names = {"ts": "t", "x": "x", "y": "y", "pol": "p"}
    stored = {name: np.asarray(columns[own])[:, None] for name, own in names.items()}
    savemat(path, {**stored, "y": 179 - stored["y"]})
    return path


LAYOUTS = {"tonic's rows": rows, "a packet": packet, "a dictionary": dictionary, "MATLAB": matlab}
FAULTY = {
    "a column behind 16 bits": ("x", [65541, 7, 9], "x must be whole numbers, those of pixels; got 65541"),
    "a column that is no number": ("x", [5, np.nan, 9], "x must be whole numbers; got nan"),
    "a fraction of a column": ("x", [5, 7.6, 9], "x must be whole numbers; got 7.6"),
    "an infinite row": ("y", [6, 8, np.inf], "y must be whole numbers; got -?inf"),
    "a time that is no number": ("t", [np.nan, 1000, 2000], "must be whole numbers; got nan"),
    "an infinite time": ("t", [0, 1000, np.inf], "must be whole numbers; got inf"),
    "a time behind 285 years": ("t", [0, 1000, 1e30], "must be whole numbers, those of microseconds; got 1e.30"),
    "a third polarity": ("p", [0, 1, 2], "p must be whole numbers, those of polarities; got 2"),
    "half a polarity": ("p", [0, 0.5, 1], "p must be whole numbers; got 0.5"),
    "polarities of both kinds": ("p", [-1, 0, 1], "either 0 and 1 or -1 and 1"),
}


@pytest.mark.parametrize("case", FAULTY)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_reader_casts_what_an_event_cannot_hold(tmp_path, layout, case):
    name, column, message = FAULTY[case]
    recording = LAYOUTS[layout](tmp_path / "a.npy", {**GOOD, name: column})
    with pytest.raises(UserError, match=message) as caught:
        read_recording(recording, SIZE)
    assert str(caught.value).startswith(f"{recording}: ")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [np.int64, np.float32])
@pytest.mark.parametrize("off", [0, -1])
def test_either_kind_of_polarity_is_read(tmp_path, layout, kind, off):
    columns = {name: np.array(column, kind) for name, column in {**GOOD, "p": [off, 1, off]}.items()}
    events = read_recording(LAYOUTS[layout](tmp_path / "a.npy", columns), SIZE)
    assert events.tolist() == [(0, 5, 6, False), (1000, 7, 8, True), (2000, 9, 9, False)]


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_fractions_of_a_millisecond_are_microseconds(tmp_path, kind):
    t = [0, 0.001, 1.001, 12.345, 4095.999]
    np.save(tmp_path / "a.npy", np.array([[5, 6, 1, ms] for ms in t], kind))
    assert read_npy(tmp_path / "a.npy")["t"].tolist() == [0, 1, 1001, 12345, 4095999]


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.uint64])
def test_milliseconds_of_any_integers_keep_their_size(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.array([[5, 6, 1, 0], [5, 6, 1, 30_000]], kind))
    assert read_npy(tmp_path / "a.npy")["t"].tolist() == [0, 30_000_000]


def test_milliseconds_that_would_overflow_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[5, 6, 1, 0], [5, 6, 1, (1 << 63) // 1000 + 1]]))
    with pytest.raises(UserError, match="those of milliseconds"):
        read_npy(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([3.5, 4, 1], "whole numbers; got 3.5"),
        ([np.nan, 4, 1], "whole numbers; got nan"),
        ([3, 1 << 40, 1], "whole numbers, those of"),
        ([3, 250, 1], "outside of a picture of 200 x 200"),
    ],
)
def test_places_of_given_steps_are_whole_and_in_the_picture(tmp_path, row, message):
    path = tmp_path / "a.npz"
    np.savez(path, pos=np.array([row]), neg=np.array([[1, 2, 3]]))
    with pytest.raises(UserError, match=message):
        read_recording(GivenSteps(path, 200, 200), (224, 224))


@pytest.mark.parametrize("kind", ["U3", "c8", "datetime64[us]", "S2"])
def test_what_is_no_number_is_no_column(kind):
    with pytest.raises(UserError, match="x must be whole numbers; got"):
        make_events([1], np.zeros(1, kind), [1], [1])


def test_columns_of_other_lengths_are_refused_though_numpy_would_repeat_one():
    with pytest.raises(UserError, match="must be equally many"):
        make_events([1, 2], [5], [6, 7], [0, 1])


def test_the_latest_times_are_exact():
    t = [-LATEST_US, LATEST_US]
    assert make_events(t, [0, 0], [0, 0], [0, 1])["t"].tolist() == t


def test_events_that_aedat3_marks_invalid_are_none(tmp_path):
    events = random_events(6, 128)
    content = bytearray(aedat3_bytes(events, packets=1, special=False))
    start = len(content) - 8 * 6
    content[start + 8] &= 0xFE
    content[start + 32 : start + 40] = bytes(8)  # a place that was never filled
    (tmp_path / "a.aedat").write_bytes(content)
    read = read_recording(Segment(tmp_path / "a.aedat", 0, 1 << 40), SIZE)
    assert read.tolist() == events[[0, 2, 3, 5]].tolist()


@pytest.mark.parametrize("taken", [4, 0])
def test_places_of_an_aedat3_packet_behind_its_last_event_are_none(tmp_path, taken):
    events = random_events(12, 128)
    content = bytearray(aedat3_bytes(events, special=False))
    heading = len(content) - 8 * 6 - 28
    content[heading + 20 : heading + 24] = struct.pack("<I", taken)
    (tmp_path / "a.aedat").write_bytes(content)
    assert len(read_recording(Segment(tmp_path / "a.aedat", 0, 1 << 40), SIZE)) == 6 + taken
    content[heading + 20 : heading + 24] = struct.pack("<I", 7)
    (tmp_path / "a.aedat").write_bytes(content)
    with pytest.raises(UserError, match="damaged AEDAT"):
        read_recording(Segment(tmp_path / "a.aedat", 0, 1 << 39), SIZE)


@pytest.mark.parametrize("address", [0x8000, 0x8003, 0x80000000, 0x80000105])
def test_special_events_of_aedat2_are_none(tmp_path, address):
    events = random_events(5, 128)
    path = write_aedat2(tmp_path / "a.aedat", events)
    path.write_bytes(path.read_bytes() + struct.pack(">II", address, int(events["t"][-1])))
    assert read_recording(path, SIZE).tolist() == events.tolist()


def test_a_polarity_of_aedat4_that_is_neither_is_refused(tmp_path):
    content = bytearray(aedat4_bytes(random_events(5, 128), packets=1))
    content[-4] = 7
    (tmp_path / "a.aedat4").write_bytes(content)
    with pytest.raises(UserError, match="those of polarities; got 7"):
        read_recording(tmp_path / "a.aedat4", SIZE)


def test_triggers_and_third_polarities_of_a_dat_file_are_refused(tmp_path):
    heading, path = b"% Version 2\n", tmp_path / "a.dat"
    path.write_bytes(heading + b"\x0e\x08" + struct.pack("<II", 1, 5))
    with pytest.raises(UserError, match="not a DAT recording of pixels; its events are of kind 14"):
        read_recording(path, SIZE)
    path.write_bytes(heading + b"\x0c\x08" + struct.pack("<II", 1, 5 | 2 << 28))
    with pytest.raises(UserError, match="those of polarities; got 2"):
        read_recording(path, SIZE)
    path.write_bytes(dat_bytes(wide_events(5, 100, 100), heading))
    assert len(read_recording(path, SIZE)) == 5
