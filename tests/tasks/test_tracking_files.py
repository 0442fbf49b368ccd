"""Files of tracks: what is written is read, events become sub-frames, and what is wrong is named."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from braincog_transformers.errors import UserError
from braincog_transformers.tasks.tracking.files import event_frames, find_sequences, write_sequence

EVENT = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "<i1")])
HEIGHT, WIDTH = 24, 32
SIGNS = ("pos", "neg")


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        frames = np.repeat(np.repeat(rng.integers(0, 2, (3, 2, 5, HEIGHT // 8, WIDTH // 8)), 8, -1), 8, -2)
        boxes = np.array([[2, 3, 10, 9], [3.5, 4, 10, 9], [-2, 5, 10, 9]])
        write_sequence(tmp_path, part, "one", (255 * frames).astype(np.uint8), boxes)
        (tmp_path / "img_120_split" / part / "list.txt").write_text("one\n")
    return tmp_path


def test_what_is_written_is_read(root):
    rng = np.random.default_rng(0)
    frames = 255 * np.repeat(np.repeat(rng.integers(0, 2, (3, 2, 5, HEIGHT // 8, WIDTH // 8)), 8, -1), 8, -2)
    (sequence,) = find_sequences(root, "train")
    assert sequence.size == (HEIGHT, WIDTH)
    assert sequence.frames == ("0001", "0002", "0003")
    torch.testing.assert_close(sequence.boxes[1], torch.tensor([3.5, 4, 10, 9], dtype=torch.float64))
    for number in range(3):
        found = sequence.frame(number)
        assert found.shape == (2, 5, 3, HEIGHT, WIDTH)
        # JPEG keeps blocks of 8 x 8 equal pixels, almost
        assert np.abs(found[:, :, 1].numpy().astype(int) - frames[number]).max() <= 3


def test_colours_are_blue_first(root):
    (sequence,) = find_sequences(root, "train")
    Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 0)).save(sequence.paths(0)[3], quality=100, subsampling=0)
    blue, green, red = sequence.frame(0)[0, 3].float().mean((1, 2)).tolist()
    assert red > 250
    assert max(blue, green) < 5


def test_events_become_sub_frames():
    events = np.array([(1, 2, 0, 1), (3, 4, 19, 1), (5, 6, 20, 1), (7, 8, 99, 0), (9, 10, 100, 1), (0, 0, 200, 1),
                       (2, 2, -1, 1)], dtype=EVENT)  # fmt: skip
    frames = event_frames(events, np.array([0, 100, 200]), HEIGHT, WIDTH)
    assert frames.shape == (2, 2, 5, HEIGHT, WIDTH)
    places = [(0, 0, 0, 2, 1), (0, 0, 0, 4, 3), (0, 0, 1, 6, 5), (0, 1, 4, 8, 7), (1, 0, 0, 10, 9)]
    assert sorted(map(tuple, np.argwhere(frames == 255).tolist())) == places
    assert set(np.unique(frames)) == {0, 255}


@pytest.mark.parametrize(
    ("borders", "place", "message"),
    [([0], 0, "two or more rising times"), ([0, 5, 5], 0, "rising"), ([0, 5], WIDTH, "outside of the sensor of 32 x")],
)
def test_events_that_fit_no_frame(borders, place, message):
    with pytest.raises(UserError, match=message):
        event_frames(np.array([(place, 0, 1, 1)], dtype=EVENT), np.array(borders), HEIGHT, WIDTH)


def spoil(root, file, text):
    path = root / "img_120_split" / "train" / file
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def boxes(root, *lines):
    spoil(root, "one/groundtruth_rect.txt", "\n".join(lines))


GOOD = "2 3 10 9"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, GOOD], "has 2 boxes for 3 frames"),
        ([GOOD] * 4, "has 4 boxes for 3 frames"),
        ([GOOD, "2 3 0 9", GOOD], r"box 2 is empty \(0 x 9\); --task-kwargs absent=True"),
        ([GOOD, "2 3 10 -9", GOOD], "box 2 is empty"),
        ([GOOD, "2 3 1e-300 9", GOOD], r"box 2 is empty \(1e-300 x 9\)"),
        ([GOOD, "2 3 10 0.9", GOOD], "box 2 is empty"),
        ([GOOD, "2 3 1e300 9", GOOD], "line 2: x y w h are pixels, of at most 1,000,000; got '2 3 1e300 9'"),
        ([GOOD, "-2e6 3 10 9", GOOD], "line 2: x y w h are pixels"),
        ([GOOD, GOOD, "32 3 10 9"], r"box 3 \(32 3 10 9\) lies outside of the picture of 32 x 24"),
        ([GOOD, GOOD, "-10 3 10 9"], r"box 3 .* lies outside"),
        ([GOOD, "2 3 10", GOOD], "line 2: needs four numbers x y w h; got '2 3 10'"),
        ([GOOD, "2 3 10 nan", GOOD], "line 2: needs four numbers"),
        ([GOOD, "2 3 10 inf", GOOD], "line 2: needs four numbers"),
        ([GOOD, "a b c d", GOOD], "line 2: needs four numbers"),
        ([GOOD, "2 3 10 9 1", GOOD], "line 2: needs four numbers"),
    ],
)
def test_boxes_that_can_not_be_used(root, lines, message):
    boxes(root, *lines)
    with pytest.raises(UserError, match=message) as caught:
        find_sequences(root, "train")
    assert "groundtruth_rect.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_boxes_with_commas_and_of_absent_objects(root):
    boxes(root, "2,3,10,9", "0,0,0,0", "3,3,10,9")
    (sequence,) = find_sequences(root, "train", absent=True)
    assert sequence.present.tolist() == [True, False, True]
    boxes(root, "0,0,0,0", "2,3,10,9", "3,3,10,9")
    with pytest.raises(UserError, match=r"box 1 is empty .* the first must hold the object"):
        find_sequences(root, "train", absent=True)


def test_a_mark_of_byte_order_is_no_part_of_a_name_or_number(root):
    for file in ("list.txt", "one/groundtruth_rect.txt"):
        path = root / "img_120_split" / "train" / file
        spoil(root, file, b"\xef\xbb\xbf" + path.read_bytes())
    (sequence,) = find_sequences(root, "train")
    assert sequence.name == "one"
    assert sequence.boxes[0].tolist() == [2, 3, 10, 9]


def remove(root, *names):
    for name in names:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: remove(root, "img_120_split/train/list.txt"), "list.txt: is missing"),
        (lambda root: spoil(root, "list.txt", "\n"), "names no sequence"),
        (lambda root: spoil(root, "list.txt", "one\ntwo\n"), "two: is missing, and"),
        (lambda root: spoil(root, "list.txt", "one\none\n"), "names 'one' twice"),
        (lambda root: spoil(root, "list.txt", "../one\n"), "'../one' is no name"),
        (lambda root: spoil(root, "list.txt", b"\xff\xfe"), "can't be read as text"),
        (lambda root: remove(root, "img_120_split/train/one/groundtruth_rect.txt"), "can't be read"),
        (lambda root: remove(root, "img_120_split/train/one/neg/0002.jpg"), r"different frames \(0002\)"),
        (lambda root: remove(root, "img_120_5_split/train/one"), "img_120_5_split/train/one: is missing"),
        (lambda root: remove(root, "img_120_5_split/train/one/neg/0003_4.jpg"), "0003_4.jpg: is missing"),
        (
            lambda root: remove(root, *(f"img_120_split/train/one/{p}/000{n}.jpg" for p in SIGNS for n in (2, 3))),
            "a track needs two frames or more; it has 1",
        ),
    ],
)
def test_files_that_do_not_belong_together(root, change, message):
    change(root)
    with pytest.raises(UserError, match=message) as caught:
        find_sequences(root, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "0002_3.jpg"),
        (lambda path: path.write_bytes(b""), "0002_3.jpg"),
        (lambda path: Image.new("L", (WIDTH, HEIGHT + 1)).save(path), "0002_3.jpg: has 32 x 25 pixels"),
    ],
)
def test_damaged_frames_are_named(root, content, message):
    (sequence,) = find_sequences(root, "train")
    content(sequence.paths(1)[2])
    with pytest.raises(UserError, match=message):
        sequence.frame(1)
