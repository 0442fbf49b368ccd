"""Readers of DAT, MATLAB files, pickled packets and ES-ImageNet's steps, against other readers and damaged files."""

import io
import pickle

import numpy as np
import pytest
from event_writers import character, dat_bytes, packets_of, wide_events, write_bytes, write_mat
from scipy.io import savemat
from writers import aedat4_bytes

from braincog_transformers.data.events.recordings import Character, GivenSteps, Pickled
from braincog_transformers.data.formats.pickles import load_npy
from braincog_transformers.data.readers import make_events, read_dat, read_mat, read_recording
from braincog_transformers.errors import UserError

SIZE = (180, 240)
EVENTS = wide_events(40, 240, 180)


def same(events, other):
    return all(np.array_equal(events[field], other[field]) for field in ("t", "x", "y", "p"))


def test_dat_equals_expelliarmus_in_both_directions(tmp_path):
    expelliarmus = pytest.importorskip("expelliarmus")
    wizard = expelliarmus.Wizard(encoding="dat")
    ours = write_bytes(tmp_path / "ours.dat", dat_bytes(EVENTS))
    assert same(read_dat(ours), wizard.read(str(ours)))
    theirs = np.zeros(len(EVENTS), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
    for field in ("t", "x", "y", "p"):
        theirs[field] = EVENTS[field]
    wizard.save(str(tmp_path / "theirs.dat"), theirs)
    assert same(read_dat(tmp_path / "theirs.dat"), EVENTS)


def test_a_hand_written_dat_event(tmp_path):
    path = write_bytes(tmp_path / "a.dat", b"% Version 2\n\x00\x08" + bytes([7, 1, 0, 0, 5, 0x40, 0, 0x10]))
    assert read_dat(path).tolist() == [(263, 5, 1, True)]


def test_mat_counts_rows_from_below_and_takes_signed_polarities(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"ts": [[3], [9]], "x": [[1.0], [2.0]], "y": [[0], [178]], "pol": [[-1], [1]]})
    assert read_mat(path).tolist() == [(3, 1, 179, False), (9, 2, 1, True)]
    assert same(read_mat(write_mat(tmp_path / "b.mat", EVENTS)), EVENTS)


@pytest.mark.parametrize("packets", [1, 3])
def test_pickled_packets_keep_their_order(tmp_path, packets):
    path = tmp_path / "a.npy"
    np.save(path, packets_of(EVENTS, packets), allow_pickle=True)
    assert same(read_recording(Pickled(path), SIZE), EVENTS)


def test_packets_of_one_length_are_no_pickle(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.stack(list(packets_of(EVENTS, 4))))
    assert same(read_recording(Pickled(path), SIZE), EVENTS)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_pickles_of_either_numpy_and_any_protocol_are_read(tmp_path, protocol, core):
    stored = packets_of(EVENTS, 2)
    content = pickle.dumps(stored, protocol=protocol, fix_imports=False)
    if protocol < 4:  # later protocols store the lengths of names
        content = content.replace(b"numpy._core.", core).replace(b"numpy.core.", core)
    heading = io.BytesIO()
    np.lib.format.write_array_header_1_0(heading, np.lib.format.header_data_from_array_1_0(stored))
    path = write_bytes(tmp_path / "a.npy", heading.getvalue() + content)
    if protocol == 2:  # bytes were text then, which takes a function that is no part of an array
        with pytest.raises(UserError, match=r"asks for _codecs\.encode"):
            load_npy(path)
    else:
        assert same(read_recording(Pickled(path), SIZE), EVENTS)


def npy(value):
    target = io.BytesIO()
    np.save(target, value, allow_pickle=True)
    return target.getvalue()


def npz(**parts):
    target = io.BytesIO()
    np.savez(target, **parts)
    return target.getvalue()


def mat(**parts):
    target = io.BytesIO()
    savemat(target, parts)
    return target.getvalue()


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


DAT = dat_bytes(EVENTS)
NPY = npy(packets_of(EVENTS))
ROWS = np.array([[3, 4, 1], [5, 6, 8]])
NPZ = npz(pos=ROWS, neg=ROWS)
MAT = mat(ts=[[1.0]], x=[[1.0]], y=[[1.0]], pol=[[1.0]])
UNSORTED = make_events([9, 8], [1, 1], [1, 1], [True, True])
COLUMN = {"ts": [[1, 2]], "x": [[1, 1]], "y": [[1, 1]], "pol": [[0, 1]]}
BAD = {
    "foreign.dat": (b"GIF89a" + bytes(80), "not a DAT recording"),
    "empty-file.dat": (b"", "not a DAT recording"),
    "version.dat": (DAT.replace(b"Version 2", b"Version 1"), "not a DAT recording of version 2"),
    "truncated.dat": (DAT[:-3], "truncated DAT"),
    "heading.dat": (b"% Version 2\n% Date", "truncated DAT"),
    "kind.dat": (b"% Version 2\n\x0c\x04" + bytes(8), "truncated DAT"),
    "empty.dat": (dat_bytes(EVENTS[:0]), "no events"),
    "outside.dat": (dat_bytes(make_events([1], [240], [5], [True])), "outside of the 240 x 180 sensor"),
    "unsorted.dat": (dat_bytes(UNSORTED), "time goes backwards 1 times"),
    "foreign.mat": (b"GIF89a" + bytes(200), "not a complete MATLAB file"),
    "truncated.mat": (MAT[:-9], "not a complete MATLAB file"),
    "empty-file.mat": (b"", "not a complete MATLAB file"),
    "column.mat": (mat(ts=[[1]], x=[[1]], y=[[1]]), "not a complete MATLAB file.*pol"),
    "lengths.mat": (mat(**{**COLUMN, "x": [[1]]}), "not a complete MATLAB file"),
    "fraction.mat": (mat(**{**COLUMN, "x": [[0.5, 1]]}), "must be whole numbers"),
    "nan.mat": (mat(**{**COLUMN, "ts": [[np.nan, 1]]}), "must be whole numbers"),
    "huge.mat": (mat(**{**COLUMN, "x": [[70000, 1]]}), "those of pixels"),
    "outside.mat": (mat(**{**COLUMN, "y": [[180, 1]]}), "outside of the 240 x 180 sensor, the first at x=1, y=-1"),
    "unsorted.mat": (mat(**{**COLUMN, "ts": [[2, 1]]}), "time goes backwards"),
    "empty.mat": (mat(**{name: np.empty((0, 1)) for name in COLUMN}), "no events"),
    "foreign.npy": (b"GIF89a" + bytes(80), "not a complete .npy"),
    "truncated.npy": (NPY[:-7], "not a complete .npy"),
    "heading.npy": (NPY[:20], "not a complete .npy"),
    "empty.npy": (npy(packets_of(EVENTS[:0])), "no events"),
    "none.npy": (npy(objects()), "no events"),
    "numbers.npy": (npy(np.zeros((4, 4))), "needs packets of timestamp"),
    "text.npy": (npy(objects("a", "b")), "needs packets of timestamp"),
    "fields.npy": (npy(objects({"t": [1], "x": [1]})), "needs packets of timestamp"),
    "unsorted.npy": (npy(packets_of(UNSORTED)), "time goes backwards"),
    "outside.npy": (npy(packets_of(make_events([1], [1], [180], [True]))), "outside of the 240 x 180 sensor"),
    "foreign.npz": (b"GIF89a" + bytes(80), "not a complete .npz"),
    "truncated.npz": (NPZ[:-40], "not a complete .npz"),
    "part.npz": (npz(pos=ROWS), "not a complete .npz.*neg"),
    "rows.npz": (npz(pos=ROWS[:, :2], neg=ROWS), "rows of three numbers"),
    "step.npz": (npz(pos=ROWS - [0, 0, 1], neg=ROWS), "needs steps from 1 to 8"),
    "late.npz": (npz(pos=ROWS - [0, 0, -1], neg=ROWS), "needs steps from 1 to 8"),
    "place.npz": (npz(pos=ROWS - [4, 0, 0], neg=ROWS), "no negative places"),
    "empty.npz": (npz(pos=ROWS[:0], neg=ROWS[:0]), "no events"),
}
KINDS = {".npy": Pickled, ".npz": lambda path: GivenSteps(path, 200, 200)}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_named_in_one_line(tmp_path, name):
    content, message = BAD[name]
    path = write_bytes(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as caught:
        read_recording(KINDS.get(path.suffix, lambda same: same)(path), SIZE)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_event_that_is_stored_twice_counts_once(tmp_path):
    path = write_bytes(tmp_path / "a.npz", npz(pos=np.concatenate([ROWS, ROWS]), neg=ROWS))
    assert len(read_recording(GivenSteps(path, 200, 200), (224, 224))) == 4


def test_a_drawing_starts_at_its_first_event_and_ends_before_its_last(tmp_path):
    events, stretches = character(3)
    path = write_bytes(tmp_path / "a.aedat4", aedat4_bytes(events))
    drawing = Character(path, *stretches[4]).read()
    assert drawing["t"].min() >= stretches[4][0]
    assert drawing["t"].max() < stretches[4][1]


def test_a_recording_that_was_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "a.aedat4"
    lengths = []
    for count in (400, 800):
        events, stretches = character(3, count)
        write_bytes(path, aedat4_bytes(events))
        lengths.append(len(Character(path, stretches[0][0], stretches[-1][1]).read()))
    assert lengths[1] > 1.5 * lengths[0]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (make_events([2, 1], [60, 60], [9, 9], [True, True]), "time goes backwards, so that the drawings"),
        (make_events([1, 2], [60, 346], [9, 9], [True, True]), "outside of the 346 x 260 sensor"),
    ],
)
def test_a_faulty_recording_of_drawings_is_named(tmp_path, events, message):
    path = write_bytes(tmp_path / "a.aedat4", aedat4_bytes(events))
    with pytest.raises(UserError, match=message) as caught:
        read_recording(Character(path, 0, 9), (250, 250))
    assert str(path) in str(caught.value)
