"""DVS128 Gesture: AEDAT 3.1 against other readers, official and tonic's files, both orders of labels."""

import numpy as np
import pytest
from torchvision.datasets.folder import find_classes
from writers import GESTURES, aedat3_bytes, random_events, write_gesture, write_tonic_gesture

from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.events.frames import events_to_frames
from braincog_transformers.data.loading.folders import MissingData
from braincog_transformers.data.readers import Segment, make_events, read_npy, read_recording
from braincog_transformers.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*published figures need all of them")

SIZE = (128, 128)
EVENTS = random_events(600, 128)


def whole(path):
    return read_recording(Segment(path, 0, 1 << 40), SIZE)


def same(events, other):
    return all(np.array_equal(events[field], other[field]) for field in ("t", "x", "y", "p"))


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "user01_led.aedat"
    path.write_bytes(aedat3_bytes(EVENTS, packets=5))
    return path


def test_reads_hand_written_bytes(tmp_path):
    path = tmp_path / "a.aedat"
    head = bytes([1, 0, 1, 0, 8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    path.write_bytes(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + head + bytes([0x17, 0, 6, 0, 2, 1, 0, 0]))
    assert whole(path).tolist() == [(258, 3, 5, True)]


def test_round_trip_skips_special_events(recording):
    assert same(whole(recording), EVENTS)


def test_the_clock_overflows_after_31_bits(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat3_bytes(EVENTS, overflows=1))
    assert np.array_equal(whole(path)["t"], EVENTS["t"] + (1 << 31))


def test_equals_tonic(tmp_path):
    tonic = pytest.importorskip("tonic.io")
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat3_bytes(EVENTS, special=False))  # tonic takes special events for polarity events
    version, start, _ = tonic.read_aedat_header_from_file(str(path))
    stored = tonic.get_aer_events_from_file(str(path), version, start)
    address = stored["address"]
    columns = {"t": stored["timeStamp"], "x": address >> 17 & 0x1FFF, "y": address >> 2 & 0x1FFF, "p": address >> 1 & 1}
    assert same(whole(path), columns)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (10_000, 200_000), (99_000, 99_001), (150_000, 10**9)])
def test_a_segment_holds_the_events_from_start_to_before_end(recording, start, end):
    start, end = start + int(EVENTS["t"][0]), end + int(EVENTS["t"][0])
    inside = EVENTS[(EVENTS["t"] >= start) & (EVENTS["t"] < end)]
    events = Segment(recording, start, end).read()
    assert same(events, inside)


def test_the_first_event_of_a_segment_belongs_to_it_and_that_at_its_end_does_not(recording):
    times = EVENTS["t"]
    events = Segment(recording, int(times[200]), int(times[400])).read()
    assert (events["t"][0], events["t"][-1]) == (times[200], times[399])


@pytest.mark.parametrize("window", [(1000, 5000), (0, 10_000), (1000, 1050), (1210, 1300)])
@pytest.mark.parametrize(("place", "value"), [(19, 500), (10, 9000), (9, 9000), (20, 500), (15, 0), (28, 1 << 30)])
def test_a_glitch_of_the_clock_is_an_error_wherever_it_falls_whatever_is_read(tmp_path, place, value, window):
    t = np.arange(1000, 1300, 10)
    t[place] = value
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat3_bytes(make_events(t, np.arange(30), np.arange(30), np.ones(30, bool)), packets=3))
    with pytest.raises(UserError, match=r"a\.aedat from .* us: time goes backwards 1 times in 30 events"):
        read_recording(Segment(path, *window), SIZE)


def test_a_clock_of_more_than_31_bits_is_damaged(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat3_bytes(make_events([5, 1 << 31], [1, 1], [1, 1], [True, True])))
    with pytest.raises(UserError, match="its clock has more than 31 bits"):
        whole(path)


def test_a_trial_that_was_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "a.aedat"
    for count in (600, 300):
        path.write_bytes(aedat3_bytes(EVENTS[:count]))
        assert len(whole(path)) == count


def test_segments_of_one_recording_have_names_of_their_own(recording):
    one, two = Segment(recording, 0, 10), Segment(recording, 0, 11)
    assert one.name != two.name
    assert one.parent == recording.parent


BAD = {
    "foreign": (b"#!AER-DAT2.0\r\n" + bytes(80), "not an AEDAT 3.1"),
    "header": (b"#!AER-DAT3.1", "holds no events"),
    "heading": (aedat3_bytes(EVENTS, special=False)[:-4808], "truncated"),
    "events": (aedat3_bytes(EVENTS)[:-3], "truncated"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recording_is_named_in_one_line(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / "bad.aedat").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        whole(tmp_path / "bad.aedat")
    assert "bad.aedat" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("place", ["DvsGesture", "DVS128Gesture/extract/DvsGesture", "."])
def test_official_files(tmp_path, place, use_cache):
    write_gesture(tmp_path / place)
    bundle = build_datasets("dvsg", tmp_path, step=4, use_cache=use_cache)
    assert (len(bundle.train), len(bundle.test)) == (24, 12)
    assert bundle.input_shape == (4, 2, 128, 128)
    assert bundle.test.targets == [label - 1 for label in GESTURES]
    assert bundle.classes[7] == "arm roll"
    trial = random_events(1200, 128, 1, 150_000)
    gesture = trial[(trial["t"] >= 96_000) & (trial["t"] < 106_000)]  # the ninth of the second trial: arm roll again
    frames, label = bundle.train[12 + 8]
    assert label == 7
    assert np.array_equal(frames.numpy(), events_to_frames(gesture, 4, SIZE))


def test_changed_times_are_read_anew(tmp_path):
    write_gesture(tmp_path)
    before = build_datasets("dvsg", tmp_path).train[0][0]
    table = tmp_path / "user01_led_labels.csv"
    table.write_text(table.read_text().replace("1,0,10000", "1,0,11000"))
    after = build_datasets("dvsg", tmp_path).train[0][0]
    assert after.sum() > before.sum()


@pytest.mark.parametrize("order", ["number", "text"])
def test_both_orders_of_labels(tmp_path, order):
    write_gesture(tmp_path)
    bundle = build_datasets("dvsg", tmp_path, label_order=order, use_cache=False)
    folders = [str(label) for label in range(11)]
    if order == "text":
        folders.sort()
    assert bundle.test.targets == [folders.index(str(label - 1)) for label in GESTURES]
    assert bundle.classes[2] == ("other" if order == "text" else "left hand wave")
    assert len(set(bundle.classes)) == 11


def test_text_order_is_what_a_checkpoint_trained_on_class_folders_answers(tmp_path):
    for label in range(11):
        (tmp_path / "frames" / str(label)).mkdir(parents=True)
    numbers = find_classes(tmp_path / "frames")[1]  # the rule of the folders from which SpikingJelly reads its frames
    write_gesture(tmp_path / "data")
    plain, text = (
        build_datasets("dvsg", tmp_path / "data", label_order=order, use_cache=False) for order in ("number", "text")
    )
    answers = [numbers[str(label)] for label in plain.test.targets]
    assert text.test.targets == answers
    assert plain.test.targets != answers
    assert [text.classes[answer] for answer in answers] == [plain.classes[label] for label in plain.test.targets]


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.int16])
def test_tonics_files(tmp_path, dtype):
    write_tonic_gesture(tmp_path / "DVSGesture", dtype=dtype)
    bundle = build_datasets("dvsg", tmp_path, step=3)
    assert (len(bundle.train), len(bundle.test)) == (22, 22)
    assert bundle.train.targets == [*range(11), *range(11)]
    assert [path.parent.name for path in bundle.train.files[::11]] == ["user01_led", "user02_led"]
    events = random_events(40, 128, 5, 90_000)
    events["t"] = events["t"] // 1000 * 1000
    assert np.array_equal(bundle.train[5][0].numpy(), events_to_frames(events, 3, SIZE))


def test_tonics_reader_reads_the_same(tmp_path):
    datasets = pytest.importorskip("tonic.datasets")
    write_tonic_gesture(tmp_path / "DVSGesture", trials=[f"user{k:02d}_led" for k in range(1, 11)])
    (tmp_path / "DVSGesture" / "ibmGestureTrain.tar.gz").touch()  # all that tonic asks for
    theirs = datasets.DVSGesture(str(tmp_path), train=True)
    for path, index in zip(theirs.data[:3], range(3), strict=True):
        events, label = theirs[index]
        assert str(path).endswith(f"{label}.npy")
        assert same(read_npy(type(tmp_path)(path)), events)


def test_complete_sets_of_both_editions_are_no_reason_to_warn(recwarn, tmp_path):
    from braincog_transformers.data.loading.folders import warn_if_incomplete
    from braincog_transformers.data.registry import lookup

    for found in ([1176, 288], [1077, 264]):
        warn_if_incomplete(tmp_path, lookup("dvsg"), found)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="1077 of 1176 and 288 of 288 recordings of dvsg"):
        warn_if_incomplete(tmp_path, lookup("dvsg"), [1077, 288])


def broken(root, name, text):
    write_gesture(root)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("user01_led_labels.csv", "class,start,end\n12,0,5\n", "rows of class 1 to 11"),
        ("user01_led_labels.csv", "class,start,end\n1,0\n", "rows of class 1 to 11"),
        ("user01_led_labels.csv", "class,start,end\n1,9,9\n", "a later end"),
        ("user01_led_labels.csv", "class,start,end\n1,5,9999999999999999\n", "rows of class 1 to 11"),
        ("user01_led_labels.csv", "class,start,end\none,0,9\n", "rows of class 1 to 11"),
        ("user01_led_labels.csv", "class,start,end\n1,900000,900001\n", "holds no events"),
        ("trials_to_train.txt", "user05_led.aedat\n", r"2 of 2 files that trials_to_train.txt asks for are missing"),
        ("trials_to_test.txt", "\n", "names no recordings"),
    ],
)
def test_a_broken_table_is_named_in_one_line(tmp_path, name, text, message):
    broken(tmp_path, name, text)
    with pytest.raises(UserError, match=message) as caught:
        build_datasets("dvsg", tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


HEADING = "class,startTime_usec,endTime_usec\n"


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: text.removeprefix(HEADING),
        lambda text: "\ufeff" + text,
        lambda text: "\ufeff" + text.removeprefix(HEADING),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "\n",
        lambda text: text + "\n  \r\n,,\r\n",
        lambda text: text.replace(",", " , "),
        lambda text: text.rstrip("\n"),
    ],
    ids=["headless", "marked", "marked and headless", "CRLF", "blank", "blanks", "spaced", "unended"],
)
def test_tables_of_any_editor_hold_the_same_gestures(tmp_path, saved):
    write_gesture(tmp_path, train=("user01_led",))
    expected = build_datasets("dvsg", tmp_path, use_cache=False)
    assert len(expected.train) == 12
    for path in tmp_path.glob("*_labels.csv"):
        path.write_bytes(saved(path.read_text()).encode())
    for path in tmp_path.glob("*.txt"):
        path.write_bytes(("\ufeff" + path.read_text().replace("\n", "\r\n") + "\r\n").encode())
    found = build_datasets("dvsg", tmp_path, use_cache=False)
    for one, other in ((found.train, expected.train), (found.test, expected.test)):
        assert (one.files, one.targets) == (other.files, other.targets)


@pytest.mark.parametrize(
    "row", ["x1,0,10", "1,0,x", "1,0.5,10", "1,-5,10", "1,0", "1,0,10,11", "1_1,0,10", "1,0,1" + "0" * 20]
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_faulty_first_gesture_is_no_heading(tmp_path, place, row):
    write_gesture(tmp_path)
    table = tmp_path / "user01_led_labels.csv"
    rows = table.read_text().splitlines()[1:]
    table.write_text("\n".join([*rows[:place], row, *rows[place:]]), encoding="utf-8")
    with pytest.raises(UserError, match=r"user01_led_labels\.csv: needs rows of class 1 to 11") as caught:
        build_datasets("dvsg", tmp_path)
    assert str(caught.value).isprintable()


def test_a_table_without_gestures_is_named(tmp_path):
    broken(tmp_path, "user01_led_labels.csv", HEADING)
    with pytest.raises(UserError, match=r"user01_led_labels\.csv: needs rows .*; it has none"):
        build_datasets("dvsg", tmp_path)


def test_a_missing_list_is_named(tmp_path):
    write_gesture(tmp_path)
    (tmp_path / "trials_to_test.txt").unlink()
    with pytest.raises(UserError, match=r"trials_to_test\.txt: can't be read"):
        build_datasets("dvsg", tmp_path)


def test_a_tonic_folder_without_its_other_half_is_named(tmp_path):
    (tmp_path / "ibmGestureTrain").mkdir()
    with pytest.raises(MissingData, match="ibmGestureTrain: names no recordings"):
        build_datasets("dvsg", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00broken"])
def test_a_damaged_array_is_named(tmp_path, content):
    path = tmp_path / "3.npy"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"3\.npy: not a complete \.npy array") as caught:
        read_npy(path)
    assert "\n" not in str(caught.value)


def test_an_array_of_another_shape_is_named(tmp_path):
    path = tmp_path / "3.npy"
    np.save(path, np.zeros((5, 3)))
    with pytest.raises(UserError, match=r"needs numbers \(N, 4\).*got float64 \(5, 3\)"):
        read_npy(path)
