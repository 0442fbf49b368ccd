"""The event sets with layouts, sizes or formats of their own: places, splits, orientation, what is refused."""

import inspect
import shutil
from dataclasses import replace

import numpy as np
import pytest
from event_writers import (
    BULLYING10K,
    HMDB51,
    NCALTECH101,
    character,
    packets_of,
    wide_events,
    write_bullying10k,
    write_esimnet,
    write_hmdbdvs,
    write_ncaltech101,
    write_ncars,
    write_nomni,
    write_ucf101dvs,
)
from writers import write_bin, write_dvsc10, write_nmnist, write_tonic_gesture

from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.events.frames import events_to_frames, resize_counts
from braincog_transformers.data.registry import DATASETS
from braincog_transformers.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*published figures need all of them")


def top_left(events):
    shifted = events.copy()
    shifted["x"] -= events["x"].min()
    shifted["y"] -= events["y"].min()
    return shifted


def refused(name, root, message, **options):
    with pytest.raises(UserError, match=message) as caught:
        build_datasets(name, root, use_cache=False, **options).train[0]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["ncaltech101", "NCALTECH101/Caltech101", "DVS/NCALTECH101/NCALTECH101/Caltech101"])
def test_ncaltech101_lies_top_left_on_the_whole_sensor(tmp_path, place):
    write_ncaltech101(tmp_path / place, 2)
    write_bin(tmp_path / place / ".." / "Caltech101_annotations" / "ant" / "annotation_0001.bin", wide_events(3, 9, 9))
    bundle = build_datasets("ncaltech101", tmp_path, step=3, train_portion=0.5, split="text", use_cache=False)
    assert (len(bundle.train), len(bundle.test), bundle.input_shape) == (101, 101, (3, 2, 180, 240))
    frames, label = bundle.test[9]
    stored = wide_events(60, 109, 80, seed=91)
    assert label == 9
    assert bundle.classes[9] == NCALTECH101[9] == "bass"
    assert np.array_equal(frames, events_to_frames(top_left(stored), 3, (180, 240)))
    assert not frames[..., 109:].any()


def test_ncaltech101_equals_tonics_recordings_before_they_are_stretched(tmp_path):
    datasets = pytest.importorskip("tonic.datasets")
    write_ncaltech101(tmp_path / "NCALTECH101" / "Caltech101", 2)

    class NCALTECH101(datasets.NCALTECH101):  # tonic looks in a folder of the class's name
        def _check_exists(self):
            return True

    tonic = NCALTECH101(str(tmp_path))
    theirs = {path: index for index, path in enumerate(tonic.data)}
    bundle = build_datasets("ncaltech101", tmp_path, step=1, train_portion=0.5, use_cache=False)
    for side in (bundle.train, bundle.test):
        for index in range(0, len(side), 20):
            events, target = tonic[theirs[str(side.files[index])]]
            frames, label = side[index]
            assert bundle.classes[label] == target
            expected = np.zeros((2, 180, 240))
            np.add.at(expected, (events["p"], events["y"], events["x"]), 1)
            assert np.array_equal(frames[0], expected)


def test_ncaltech101_is_split_stratified_by_a_seed(tmp_path):
    write_ncaltech101(tmp_path, 4, count=5)
    sides = [
        build_datasets("ncaltech101", tmp_path, use_cache=False, train_portion=0.75, split_seed=s) for s in (0, 0, 1)
    ]
    files = [[str(path) for path in bundle.test.files] for bundle in sides]
    assert files[0] == files[1] != files[2]
    assert sorted(sides[0].test.targets) == list(range(101))


def test_ncars_keeps_its_orientation_and_official_split(tmp_path):
    write_ncars(tmp_path / "NCARS")
    bundle = build_datasets("ncars", tmp_path, step=2, size=(50, 60))
    assert (len(bundle.train), len(bundle.test), bundle.classes) == (6, 4, ("background", "cars"))
    frames, label = bundle.test[3]
    stored = wide_events(80, 61, 50, seed=108)
    assert label == 1
    expected = resize_counts(events_to_frames(top_left(stored), 2, (100, 120)), (50, 60))
    assert np.allclose(frames, expected)


def test_ucf101dvs_stands_upright_and_passes_over_empty_files(tmp_path):
    write_ucf101dvs(tmp_path / "UCF101DVS" / "UCF101DVS")
    train = tmp_path / "UCF101DVS" / "UCF101DVS" / "train" / "Archery"
    (train / "v_Archery_g00_c01.mat").write_bytes(b"small")
    bundle = build_datasets("UCF101DVS", tmp_path, step=2, use_cache=False)
    assert (len(bundle.train), len(bundle.test)) == (101, 101)
    frames, label = bundle.train[2]
    assert (label, bundle.classes[2]) == (2, "Archery")
    assert np.array_equal(frames, events_to_frames(wide_events(200, 240, 180, 4), 2, (180, 240)))


def test_hmdbdvs_shares_no_file_between_training_and_test(tmp_path):
    write_hmdbdvs(tmp_path / "HMDBDVS", 2, count=150)
    bundle = build_datasets("HMDBDVS", tmp_path, train_portion=0.5, use_cache=False)
    assert not set(bundle.train.files) & set(bundle.test.files)
    assert len(bundle.train) == len(bundle.test) == 51
    assert bundle.classes == HMDB51
    shutil.rmtree(tmp_path / "HMDBDVS" / "wave")
    refused("HMDBDVS", tmp_path, r"1 of 51 classes \(wave\)")


@pytest.mark.parametrize("ending", [".npy", ".aedat4"])
def test_bullying10k_tests_on_every_fifth_clip_and_has_two_orders_of_classes(tmp_path, ending):
    write_bullying10k(tmp_path / "bullying10k", 5, ending=ending)
    by_number, by_name = (
        build_datasets("bullying10k", tmp_path, step=2, label_order=order, use_cache=False)
        for order in ("number", "text")
    )
    assert (len(by_number.train), len(by_number.test)) == (40, 10)
    assert by_number.classes == BULLYING10K
    assert by_name.classes == tuple(sorted(BULLYING10K))
    # the first clip of all, sorted by text, is the first of fingerguess
    assert (by_number.test.targets[0], by_name.test.targets[0]) == (4, 0)
    path = by_number.test.files[0]
    assert path.name == "clip_0" + ending
    frames, _ = by_number.test[0]
    assert np.array_equal(frames, events_to_frames(wide_events(50, 346, 260, 40), 2, (260, 346)))


def test_bullying10k_never_mixes_two_formats_and_names_missing_classes(tmp_path):
    write_bullying10k(tmp_path, 1)
    write_bullying10k(tmp_path / "other", 1, ending=".aedat4")
    shutil.copy(tmp_path / "other/kicking/scene0/clip_0.aedat4", tmp_path / "kicking/scene0")
    refused("bullying10k", tmp_path, r"\.aedat4 and \.npy; keep one")
    shutil.rmtree(tmp_path / "kicking")
    refused("bullying10k", tmp_path, r"1 of 10 classes \(kicking\)")


@pytest.mark.parametrize("steps", [8, 4, 1])
def test_esimnet_keeps_the_given_steps_or_joins_whole_ones(tmp_path, steps):
    write_esimnet(tmp_path / "ES-imagenet-0.18", tall=200, wide=240)
    bundle = build_datasets("esimnet", tmp_path, step=steps)
    assert (len(bundle.train), len(bundle.test), bundle.num_classes, bundle.classes) == (4, 2, 1000, ())
    frames, label = bundle.train[1]
    stored = np.load(tmp_path / "ES-imagenet-0.18/train/n0144_1.npz")
    expected = np.zeros((2, 8, 256, 256), np.float32)
    for place, name in enumerate(("neg", "pos")):
        row, column, step = stored[name].astype(int).T
        expected[place, step - 1, row + (254 - 200) // 2, column + (254 - 240) // 2] = 1
    expected = expected[:, :, 16:240, 16:240].reshape(2, steps, 8 // steps, 224, 224).sum(2)
    assert label == 3
    assert np.array_equal(frames, expected.transpose(1, 0, 2, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 3}, "comes in 8 steps; --step must divide them, got 3"),
        ({"step": 8, "frames_by": "time"}, "leave out --frames-by"),
        ({"step": 8, "remainder": "drop"}, "leave out --frames-by and --remainder"),
    ],
)
def test_esimnet_refuses_other_cuts(tmp_path, options, message):
    write_esimnet(tmp_path)
    refused("esimnet", tmp_path, message, **options)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.JPEG 5 200", "needs lines of file, class, rows and columns"),
        ("a.JPEG x 200 200", "needs lines of file"),
        ("a.JPEG 1000 200 200", "classes from 0 to 999"),
        ("", "at least one line"),
        ("gone.JPEG 5 200 200", r"gone\.npz: not a complete \.npz of pos and neg \(No such file"),
    ],
)
def test_esimnet_names_a_faulty_list(tmp_path, line, message):
    write_esimnet(tmp_path)
    (tmp_path / "trainlabel.txt").write_text(line)
    refused("esimnet", tmp_path, message, step=8)


@pytest.mark.parametrize(
    "line",
    ["a.JPEG -5 200 200", "a.JPEG 5 2_0 200", "a.JPEG 5 200 1e2", f"a.JPEG 5 200 1{'0' * 30}", "a b.JPEG 5 200 200"],
)
def test_esimnet_takes_whole_numbers_alone(tmp_path, line):
    write_esimnet(tmp_path)
    (tmp_path / "trainlabel.txt").write_text(line)
    refused("esimnet", tmp_path, r"trainlabel\.txt: needs lines of file, class, rows and columns; got 'a", step=8)


def in_windows(path, heading=""):
    """Save a text file as an editor of Windows does, with a blank line at its end, and without its heading."""
    text = path.read_text().removeprefix(heading)
    path.write_bytes(("\ufeff" + text.replace("\n", "\r\n") + "\r\n").encode())


def test_esimnet_reads_lists_of_windows(tmp_path):
    write_esimnet(tmp_path)
    expected = build_datasets("esimnet", tmp_path, step=8, use_cache=False)
    for part in ("train", "val"):
        in_windows(tmp_path / f"{part}label.txt")
    found = build_datasets("esimnet", tmp_path, step=8, use_cache=False)
    assert (found.train.files, found.train.targets) == (expected.train.files, expected.train.targets)
    assert (found.test.files, found.test.targets) == (expected.test.files, expected.test.targets)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_listed_recording_that_is_missing_is_left_out_with_skip_bad(tmp_path, use_cache):
    write_esimnet(tmp_path)
    (tmp_path / "train" / "n0144_1.npz").unlink()
    with pytest.raises(UserError, match=r"n0144_1\.npz: .*No such file.*; --skip-bad leaves"):
        build_datasets("esimnet", tmp_path, step=8, use_cache=use_cache).train[1]
    bundle = build_datasets("esimnet", tmp_path, step=8, use_cache=use_cache, skip_bad=True)
    assert bundle.train.targets == [0, 6, 9]
    assert "n0144_1.npz" in bundle.left_out[0]


@pytest.fixture
def two_characters(monkeypatch):
    names = ("Braille/character01", "Japanese_(hiragana)/character02")
    monkeypatch.setitem(DATASETS, "nomni", replace(DATASETS["nomni"], num_classes=2, classes=names))
    return names


def cropped(events):
    moved = events.copy()
    moved["x"] -= 54
    moved["y"] -= 4
    return moved[(moved["x"] >= 0) & (moved["x"] < 250) & (moved["y"] >= 0) & (moved["y"] < 250)]


def test_nomni_trains_on_fifteen_drawings_of_each_character(tmp_path, two_characters):
    write_nomni(tmp_path / "NOmniglot", ("Braille/character01", "Japanese_hiragana/character02"))
    bundle = build_datasets("nomni", tmp_path, step=2)
    assert (len(bundle.train), len(bundle.test), bundle.input_shape) == (30, 10, (2, 2, 250, 250))
    assert bundle.test.targets == [0] * 5 + [1] * 5
    events, stretches = character(1)
    start, end = stretches[16]
    own = events[(events["t"] >= start) & (events["t"] < end)]
    assert np.array_equal(bundle.test[6][0], events_to_frames(cropped(own), 2, (250, 250)))


def test_nomni_reads_the_drawings_that_braincog_cut(tmp_path, two_characters):
    for seed, name in enumerate(two_characters):
        folder = tmp_path / "events_npy" / ("background", "evaluation")[seed] / name
        folder.mkdir(parents=True)
        for k in range(20):
            own = wide_events(30, 346, 260, seed * 100 + k)
            np.save(folder / f"{seed:04d}_{k + 1:02d}.npy", {key: own[key] for key in ("t", "x", "y", "p")})
    bundle = build_datasets("nomni", tmp_path, step=2, use_cache=False)
    assert (len(bundle.train), len(bundle.test)) == (30, 10)
    expected = events_to_frames(cropped(wide_events(30, 346, 260, 117)), 2, (250, 250))
    assert np.array_equal(bundle.test[7][0], expected)


def test_nomni_reads_tables_of_windows_with_or_without_a_heading(tmp_path, two_characters):
    write_nomni(tmp_path, two_characters)
    expected = build_datasets("nomni", tmp_path, use_cache=False)
    in_windows(tmp_path / "dvs_background/Braille/character01/0000.csv", "id,start,end\n")
    in_windows(tmp_path / "dvs_evaluation/Japanese_(hiragana)/character02/0001.csv")
    found = build_datasets("nomni", tmp_path, use_cache=False)
    assert (found.train.files, found.test.files) == (expected.train.files, expected.test.files)


def test_files_that_macos_leaves_beside_recordings_are_none(tmp_path, two_characters):
    write_nomni(tmp_path / "nomni", two_characters)
    write_bullying10k(tmp_path / "bullying10k", 1)
    for path in [*tmp_path.rglob("*.npy"), *tmp_path.rglob("*.aedat4"), *tmp_path.rglob("*.csv")]:
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    assert len(build_datasets("bullying10k", tmp_path, use_cache=False).train) == 8
    assert len(build_datasets("nomni", tmp_path, use_cache=False).train) == 30


def test_nomni_names_what_is_wrong(tmp_path, two_characters):
    write_nomni(tmp_path, two_characters)
    table = tmp_path / "dvs_background/Braille/character01/0000.csv"
    text = table.read_text()
    table.write_text(text.replace("\n20,", "\n20,x"))
    refused("nomni", tmp_path, r"0000\.csv: needs rows of number, start and end")
    table.write_text("id,start,end\n1,7,7\n")
    refused("nomni", tmp_path, "start and a later end")
    table.write_text("".join(text.splitlines(keepends=True)[:-1]))
    refused("nomni", tmp_path, "needs 20 drawings, of which the last five test; got 19")
    table.unlink()
    refused("nomni", tmp_path, r"got 1 \.aedat4 and 0 \.csv")
    shutil.rmtree(table.parent)
    refused("nomni", tmp_path, r"1 of 2 characters \(Braille/character01")


def test_every_character_of_omniglot_has_a_name():
    classes = DATASETS["nomni"].classes
    assert len(set(classes)) == 1623
    assert classes[963:965] == ("Tifinagh/character55", "Angelic/character01")


def test_a_recording_is_checked_before_it_is_shifted(tmp_path):
    write_ncaltech101(tmp_path / "NCALTECH101", 2, count=5)
    events = wide_events(5, 9, 9)
    events["x"] += 235
    write_bin(tmp_path / "NCALTECH101" / "ant" / "image_0001.bin", events)
    with pytest.raises(UserError, match=r"outside of the 240 x 180 sensor"):
        build_datasets("ncaltech101", tmp_path, train_portion=0.5)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    write_bullying10k(tmp_path, 1)

    class Hostile:
        def __reduce__(self):
            return (shutil.rmtree, (str(tmp_path / "handshake"),))

    stored = packets_of(wide_events(9, 9, 9))
    stored[1] = Hostile()
    for path in tmp_path.rglob("*.npy"):
        np.save(path, stored, allow_pickle=True)
    refused("bullying10k", tmp_path, r"clip_0\.npy: asks for shutil\.(_|rm).*, which is no part of an array")
    assert (tmp_path / "handshake").is_dir()


def test_tonic_takes_what_it_is_asked_for():
    import tonic.datasets

    fetched = {name: info.fetch for name, info in DATASETS.items() if info.fetch}
    for name, (cls, parts) in {name: (fetch.name, fetch.parts) for name, fetch in fetched.items()}.items():
        assert DATASETS[name].downloadable
        for arguments in parts:
            inspect.signature(getattr(tonic.datasets, cls)).bind("folder", **arguments)


def _as_tonic_leaves_it(name, root):
    if name == "nmnist":
        write_nmnist(root / "NMNIST")
    elif name == "dvsc10":
        write_dvsc10(root / "CIFAR10DVS", per_class=11, ending=".aedat4", count=20)
    else:
        write_tonic_gesture(root / "DVSGesture")


@pytest.mark.parametrize(
    ("name", "cls", "calls"), [("nmnist", "NMNIST", 2), ("dvsc10", "CIFAR10DVS", 1), ("dvsg", "DVSGesture", 2)]
)
def test_what_tonic_fetches_is_found_where_it_leaves_it(tmp_path, monkeypatch, name, cls, calls):
    import tonic.datasets

    asked = []

    def fetched(folder, **arguments):
        if not asked:
            _as_tonic_leaves_it(name, tmp_path)
        asked.append(arguments)

    monkeypatch.setattr(tonic.datasets, cls, fetched)
    with pytest.raises(UserError, match="add --download to fetch it"):
        build_datasets(name, tmp_path, use_cache=False)
    assert asked == []
    assert len(build_datasets(name, tmp_path, download=True, use_cache=False).train)
    assert len(asked) == calls


def test_nothing_is_fetched_unasked_and_a_fetched_set_is_found(tmp_path, monkeypatch):
    import tonic.datasets

    def fetched(folder):
        write_ncaltech101(tmp_path / "NCALTECH101" / "Caltech101", 2, count=5)

    monkeypatch.setattr(tonic.datasets, "NCALTECH101", fetched)
    options = {"train_portion": 0.5, "use_cache": False}
    with pytest.raises(UserError, match="add --download to fetch it"):
        build_datasets("ncaltech101", tmp_path, **options)
    assert len(build_datasets("ncaltech101", tmp_path, download=True, **options).train) == 101
