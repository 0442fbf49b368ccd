"""Damaged recordings: named in one line, or left out of frames and labels with --skip-bad."""

import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
from writers import (
    aedat3_bytes,
    aedat4_bytes,
    random_events,
    write_aedat2,
    write_bin,
    write_dvsc10,
    write_gesture,
    write_nmnist,
)

from braincog_transformers.cli import resolve
from braincog_transformers.data.build import Augment, build_datasets
from braincog_transformers.data.events.frames import FrameRule
from braincog_transformers.data.loading.folders import class_files
from braincog_transformers.data.pictures.sources import Source
from braincog_transformers.data.readers import READERS, Segment, encode_bin, read_recording
from braincog_transformers.errors import UserError
from braincog_transformers.training.run import run

pytestmark = pytest.mark.filterwarnings("ignore:.*published figures need all of them")

EVENTS = random_events(200, seed=3)
BACKWARDS = EVENTS.copy()
BACKWARDS["t"][50] = BACKWARDS["t"][60] + 1
OUTSIDE = EVENTS.copy()
OUTSIDE["x"][7] = 34
DAMAGE = {
    "truncated": (encode_bin(EVENTS)[:-2], "truncated or foreign"),
    "empty": (b"", "holds no events"),
    "without an event": (b"\0\xf0\0\0\0", "holds no events"),  # a record in row 240 is none
    "foreign": (b"\x89PNG\r\n\x1a\n not events", "foreign"),
    "of another format": (aedat4_bytes(EVENTS), "00000.bin: "),
    "of a larger sensor": (encode_bin(OUTSIDE), "outside of the 34 x 34 sensor"),
    "unsorted": (encode_bin(BACKWARDS), "time goes backwards 1 times"),
}


@pytest.fixture
def nmnist(tmp_path):
    """Two training and one test recording by class; that of digit 0 is to be damaged."""
    write_nmnist(tmp_path)
    return tmp_path


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("kind", DAMAGE)
def test_the_first_damaged_recording_is_named_with_the_way_out(nmnist, kind, use_cache):
    content, text = DAMAGE[kind]
    bad = nmnist / "Train" / "0" / "00000.bin"
    bad.write_bytes(content)
    with pytest.raises(UserError) as caught:
        build_datasets("nmnist", nmnist, use_cache=use_cache).train[0]
    message = str(caught.value)
    assert str(bad) in message
    assert text in message
    assert message.endswith("; --skip-bad leaves such recordings out")
    assert "\n" not in message


@pytest.mark.parametrize("use_cache", [True, False])
def test_skipping_leaves_them_out_of_frames_and_labels(nmnist, use_cache):
    whole = build_datasets("nmnist", nmnist)
    bad = [nmnist / "Train" / str(label) / "00001.bin" for label in range(len(DAMAGE))]
    for path, (content, _) in zip(bad, DAMAGE.values(), strict=True):
        path.write_bytes(content)
    (nmnist / "Test" / "9" / "00000.bin").write_bytes(b"1")
    bundle = build_datasets("nmnist", nmnist, use_cache=use_cache, skip_bad=True)
    kept = [index for index, path in enumerate(whole.train.files) if path not in bad]
    assert bundle.train.files == [whole.train.files[index] for index in kept]
    assert bundle.train.targets == [whole.train.targets[index] for index in kept]
    for place, index in enumerate(kept):
        assert np.array_equal(bundle.train[place][0], whole.train[index][0])
    assert len(bundle.test) == 9
    told = [*bad, nmnist / "Test" / "9" / "00000.bin"]
    assert [text.split(":")[0] for text in bundle.left_out] == [str(path) for path in told]


def test_nothing_is_left_out_of_sound_recordings(nmnist):
    assert build_datasets("nmnist", nmnist, skip_bad=True).left_out == ()


def test_a_repaired_recording_comes_back(nmnist):
    path = nmnist / "Train" / "0" / "00000.bin"
    path.write_bytes(b"123")
    assert len(build_datasets("nmnist", nmnist, skip_bad=True).train) == 19
    write_bin(path, EVENTS)
    assert len(build_datasets("nmnist", nmnist).train) == 20


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_set_of_damaged_recordings_alone_is_refused(nmnist, use_cache):
    for path in (nmnist / "Test").glob("*/*.bin"):
        path.write_bytes(b"123")
    with pytest.raises(UserError, match=r"none of the 10 recordings of nmnist-test can be read; the first: .*/0/00000"):
        build_datasets("nmnist", nmnist, use_cache=use_cache, skip_bad=True)


def test_a_missing_class_is_no_damage_to_skip(tmp_path):
    write_dvsc10(tmp_path, 2)
    shutil.rmtree(tmp_path / "frog")
    with pytest.raises(UserError, match=r"1 of 10 classes \(frog\)"):
        build_datasets("dvsc10", tmp_path, train_portion=0.5, skip_bad=True)


def test_a_damaged_recording_moves_no_other_one_to_the_other_side(tmp_path):
    write_dvsc10(tmp_path, 4)
    options = {"train_portion": 0.5, "augment": Augment(no_aug=True)}
    whole = build_datasets("dvsc10", tmp_path, **options)
    whole.train.files[0].write_bytes(b"misnamed")
    bundle = build_datasets("dvsc10", tmp_path, **options, skip_bad=True)
    assert bundle.train.files == whole.train.files[1:]
    assert bundle.test.files == whole.test.files


def test_changed_tables_of_labels_give_other_frames_and_labels(tmp_path):
    write_gesture(tmp_path, train=("user01_led",), count=600)
    before = build_datasets("dvsg", tmp_path, step=2, size=(16, 16))
    table = tmp_path / "user01_led_labels.csv"
    lines = table.read_text().splitlines()
    label, start, end = lines[1].split(",")
    table.write_text("\n".join([lines[0], f"3,{int(start) + 1000},{end}", *lines[2:]]))
    after = build_datasets("dvsg", tmp_path, step=2, size=(16, 16))
    assert (before.train[0][1], after.train[0][1]) == (int(label) - 1, 2)
    assert not np.array_equal(before.train[0][0], after.train[0][0])
    assert np.array_equal(before.train[1][0], after.train[1][0])


def aedat2_bytes(tmp_path):
    return write_aedat2(tmp_path / "whole.aedat", random_events(60, 128)).read_bytes()


def npy_bytes(tmp_path):
    path = tmp_path / "whole.npy"
    np.save(path, np.stack([EVENTS["x"], EVENTS["y"], EVENTS["p"], EVENTS["t"] // 1000], 1)[:60])
    return path.read_bytes()


WHOLE = {
    ".bin": lambda _: encode_bin(EVENTS[:60]),
    ".aedat": aedat2_bytes,
    ".aedat4": lambda _: aedat4_bytes(random_events(60, 128)),
    ".npy": npy_bytes,
    "segment": lambda _: aedat3_bytes(random_events(60, 128)),
}


@pytest.mark.parametrize("ending", WHOLE)
def test_whatever_a_file_holds_it_is_read_or_named_in_one_line(tmp_path, ending):
    whole = WHOLE[ending](tmp_path)
    rng = np.random.default_rng(0)
    path = tmp_path / f"damaged{'.aedat' if ending == 'segment' else ending}"
    recording = Segment(path, 0, 300_000) if ending == "segment" else path
    cut = [whole[:length] for length in range(0, len(whole), 7)]
    changed = [bytearray(whole) for _ in range(150)]
    for content in changed:
        for place in rng.integers(0, len(whole), 4):
            content[place] = rng.integers(256)
    named = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for content in [*cut, *changed, rng.bytes(999)]:
            path.write_bytes(content)
            try:
                assert len(read_recording(recording, (128, 128)))
            except UserError as error:
                named += str(path) in str(error) and "\n" not in str(error)
                assert named
    assert named >= len(cut) // 2
    assert ending == "segment" or ending in READERS


RUN = ["--dataset", "nmnist", "--model", "spikformer_2_256_dvs", "--event-size", "16", "--step", "2", "--device", "cpu"]
RUN += ["--model-kwargs", "depth=1", "embed_dim=16", "--workers", "0", "-b", "4", "--max-steps", "1", "--epochs", "1"]
RUN += ["--warmup-epochs", "0", "--cooldown-epochs", "0", "--tensorboard-dir", ""]


def test_a_run_lists_what_it_left_out(nmnist, capsys):
    for label in range(10):
        (nmnist / "Train" / str(label) / "00000.bin").write_bytes(b"123")
    (nmnist / "Test" / "0" / "00000.bin").write_bytes(b"")
    options = resolve([*RUN, "--data-dir", str(nmnist), "--output", str(nmnist / "runs"), "--skip-bad"])
    folder = nmnist / "runs" / run(options)["folder"].split("/")[-1]
    told = capsys.readouterr().out
    assert "left out 11 recordings" in told
    assert told.count("00000.bin") == 10
    lines = (folder / "left_out.txt").read_text().splitlines()
    assert len(lines) == 11
    assert "holds no events" in lines[-1]
    assert "skip_bad: true" in (folder / "args.yaml").read_text()


def test_recordings_are_found_whatever_the_case_of_their_endings(tmp_path):
    write_nmnist(tmp_path, train=2, test=1)
    options = {"size": (8, 8), "step": 1, "use_cache": False}
    before = list(build_datasets("nmnist", tmp_path, **options).train)
    for path in list(tmp_path.glob("T*/*/*.bin"))[::2]:
        path.rename(path.with_suffix(".BIN"))
    after = list(build_datasets("nmnist", tmp_path, **options).train)
    assert all((x == y).all() and a == b for (x, a), (y, b) in zip(after, before, strict=True))


def test_a_link_that_leads_nowhere_is_named_where_small_recordings_are_passed_over(tmp_path):
    write_bin(tmp_path / "a" / "0.bin", EVENTS)
    (tmp_path / "a" / "1.bin").symlink_to("nowhere")
    (tmp_path / "a" / "2.bin").write_bytes(b"12345")
    ((first, second),) = class_files(tmp_path, ("a",), (".bin",), smallest=50)
    assert len(read_recording(first, (34, 34))) == len(EVENTS)
    with pytest.raises(UserError, match=r"1\.bin: can't be read \(No such file"):
        read_recording(second, (34, 34))


def test_an_ending_that_no_reader_has_is_told(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"12345")
    with pytest.raises(UserError, match=r"a\.xyz: its ending is none of \.bin, .*; rename it"):
        read_recording(tmp_path / "a.xyz", (34, 34))


def test_a_class_map_of_another_kind_is_refused_before_it_is_opened(tmp_path):
    (tmp_path / "map.json").write_text("{}")
    with pytest.raises(UserError, match=r"--class-map .*map\.json: must be a list \(\.txt\) or a pickle \(\.pkl\)"):
        Source(name="torch/imagenet", root=str(tmp_path), class_map="map.json").open(train=True)


def test_a_recording_of_which_no_event_is_left_is_named(tmp_path):
    path = write_bin(tmp_path / "0.bin", EVENTS[:3])
    rule = FrameRule(sensor=(34, 34), size=(8, 8), steps=4, remainder="drop")
    with pytest.raises(UserError, match=r"0\.bin: no event is left in its frames; .*--remainder last"):
        rule(path)
    assert replace(rule, remainder="last")(path).any()


@pytest.mark.parametrize("use_cache", [True, False])
def test_skipping_leaves_recordings_out_of_which_no_event_is_left(nmnist, use_cache):
    path = write_bin(nmnist / "Train" / "0" / "00000.bin", EVENTS[:3])
    options = {"size": (8, 8), "step": 4, "remainder": "drop", "use_cache": use_cache, "skip_bad": True}
    (left,) = build_datasets("nmnist", nmnist, **options).left_out
    assert left.startswith(f"{path}: no event is left")


@pytest.mark.parametrize("spoil", ["trial", "row", "test"])
def test_samples_that_are_listed_twice_are_told(tmp_path, spoil):
    write_gesture(tmp_path, count=300)
    train = tmp_path / "trials_to_train.txt"
    if spoil == "row":
        table = tmp_path / "user01_led_labels.csv"
        table.write_text(table.read_text() + table.read_text().splitlines()[-1])
    else:
        target = train if spoil == "trial" else tmp_path / "trials_to_test.txt"
        target.write_text(target.read_text() + train.read_text().splitlines()[0])
    with pytest.warns(UserWarning, match=r"samples of dvsg are listed more than once, each counts: .*user01_led"):
        build_datasets("dvsg", tmp_path, step=2, size=(8, 8), use_cache=False)
