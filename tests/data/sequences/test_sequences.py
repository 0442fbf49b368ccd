"""Spiking Heidelberg Digits: the cut against tonic's, the files in both packings, and what is not as it should be."""

import pickle

import numpy as np
import pytest
import torch
from event_writers import write_ssc
from writers import random_spikes, write_shd, write_shd_file

from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.loading.loader import make_loader
from braincog_transformers.data.sequences.spikes import spike_counts
from braincog_transformers.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*published figures need all of them")


def test_counts_by_hand():
    # 10 us in 3 stretches of 3 us: 0..2, 3..5, 6..8; the last spike and the one at 9 us are dropped
    counts = spike_counts(np.array([0, 2, 3, 5, 8, 9, 10]) * 1e-6 + 1e-9, np.array([1, 1, 0, 2, 2, 0, 0]), 3, 3)
    assert counts.tolist() == [[0, 2, 0], [1, 0, 1], [0, 0, 1]]
    assert counts.dtype == np.float32


def test_a_sample_shorter_than_its_steps_has_no_counts():
    assert not spike_counts(np.array([0.5, 0.5]), np.array([1, 2]), 4, 5).any()


@pytest.mark.parametrize("steps", [1, 4, 10, 99])
def test_cut_equals_tonics(tmp_path, steps):
    datasets = pytest.importorskip("tonic.datasets")
    from tonic.transforms import ToFrame

    write_shd(tmp_path / "SHD")
    for part in ("train", "test"):
        (tmp_path / "SHD" / f"shd_{part}.h5.zip").touch()  # all that tonic asks for
    bundle = build_datasets("shd", tmp_path, step=steps)
    for ours, train in ((bundle.train, True), (bundle.test, False)):
        frames = ToFrame(sensor_size=datasets.SHD.sensor_size, n_time_bins=steps)
        theirs = datasets.SHD(str(tmp_path), train=train, transform=frames)
        assert len(ours) == len(theirs)
        for index in range(len(ours)):
            counts, label = ours[index]
            expected, target = theirs[index]
            assert np.array_equal(counts.numpy(), expected[:, 0])
            assert label == target


@pytest.mark.parametrize("ending", [".h5", ".h5.gz"])
@pytest.mark.parametrize("place", ["SHD", "shd", "DVS/SHD/SHD", "."])
def test_files_are_found_in_every_layout(tmp_path, place, ending):
    write_shd(tmp_path / place, ending=ending)
    bundle = build_datasets("shd", tmp_path, step=5)
    assert (len(bundle.train), len(bundle.test)) == (6, 4)
    assert (bundle.input_shape, bundle.num_classes) == ((5, 700), 20)
    assert (bundle.classes[0], bundle.classes[10], bundle.classes[19]) == ("zero", "null", "neun")
    counts, label = bundle.train[3]
    times, units = random_spikes(6, 0)
    assert np.array_equal(counts.numpy(), spike_counts(times[3], units[3], 5, 700))
    assert (counts.dtype, label) == (torch.float32, 9)


def test_batches_and_copies_for_workers(tmp_path):
    write_shd(tmp_path)
    train = build_datasets("shd", tmp_path, step=4).train
    x, y = next(iter(make_loader(train, batch_size=3, train=False, seed=0)))
    assert (x.shape, y.tolist()) == ((3, 4, 700), [0, 3, 6])
    assert torch.equal(pickle.loads(pickle.dumps(train))[2][0], train[2][0])


def test_download_asks_tonic_only_for_what_is_missing(tmp_path, monkeypatch):
    import tonic.datasets

    asked = []

    def fetched(folder, train):
        asked.append((folder, train))
        write_shd(tmp_path / "SHD")

    monkeypatch.setattr(tonic.datasets, "SHD", fetched)
    for _ in range(2):
        assert len(build_datasets("shd", tmp_path, download=True).train) == 6
    assert asked == [(str(tmp_path), True), (str(tmp_path), False)]


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    import tonic.datasets

    def offline(folder, train):
        raise OSError("no\nnetwork")

    monkeypatch.setattr(tonic.datasets, "SHD", offline)
    with pytest.raises(UserError, match=r"shd can't be fetched \(no network\); check the network, or unpack") as caught:
        build_datasets("shd", tmp_path, download=True)
    assert "\n" not in str(caught.value)


def test_one_file_without_the_other_is_named(tmp_path):
    write_shd(tmp_path)
    (tmp_path / "shd_test.h5").unlink()
    with pytest.raises(UserError, match=r"holds no shd_test\.h5 and no shd_test\.h5\.gz"):
        build_datasets("shd", tmp_path)


TIMES, UNITS = random_spikes(2)


@pytest.mark.parametrize(
    ("times", "units", "labels", "message"),
    [
        ([TIMES[0], TIMES[1][:0]], [UNITS[0], UNITS[1][:0]], [0, 1], "2 samples, 1 of them without spikes"),
        (TIMES, [UNITS[0], UNITS[1][1:]], [0, 1], "not equally many"),
        (TIMES, UNITS, [0], "not equally many"),
        (TIMES, [UNITS[0], UNITS[1] + 700], [0, 1], "outside of 700 channels"),
        ([TIMES[0], TIMES[1] * np.float16("nan")], UNITS, [0, 1], "times that are no numbers"),
        (TIMES, UNITS, [0, 20], "unknown labels"),
        ([], [], [], "holds 0 samples"),
    ],
)
def test_a_faulty_file_is_named(tmp_path, times, units, labels, message):
    write_shd(tmp_path)
    write_shd_file(tmp_path / "shd_train.h5", times, units, labels)
    with pytest.raises(UserError, match=message) as caught:
        build_datasets("shd", tmp_path)
    assert "shd_train.h5" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["shd_train.h5", "shd_train.h5.gz"])
@pytest.mark.parametrize(
    "content", [b"", b"not HDF5", b"\x1f\x8b\x08\x00broken", b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 9]
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    write_shd(tmp_path)
    (tmp_path / "shd_train.h5").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="not a complete HDF5 file") as caught:
        build_datasets("shd", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0}, "--step must be 1 or more"),
        ({"in_chans": 3}, "gives 1 channel; got in_chans=3"),
        ({"split": "random"}, "has its own test split"),
        ({"mean": (0.5,)}, "leave out --mean"),
        ({"polarity_sum": True}, "leave out --polarity-sum"),
        ({"label_order": "text"}, "leave out --label-order"),
    ],
)
def test_what_a_sequence_has_no_use_for_is_refused(tmp_path, options, message):
    write_shd(tmp_path)
    with pytest.raises(UserError, match=message):
        build_datasets("shd", tmp_path, **options)


@pytest.mark.parametrize(("split", "samples"), [(None, 4), ("valid", 3)])
@pytest.mark.parametrize("ending", [".h5", ".h5.gz"])
def test_ssc_is_evaluated_on_test_or_validation_samples(tmp_path, split, samples, ending):
    write_ssc(tmp_path / "SSC", ending=ending)
    bundle = build_datasets("ssc", tmp_path, step=3, split=split)
    assert (len(bundle.train), len(bundle.test), bundle.num_classes) == (6, samples, 35)
    assert bundle.classes == tuple(f"word {k}" for k in range(35))
    times, units = random_spikes(samples, 1 if split else 2)
    counts, label = bundle.test[2]
    assert label == 10
    assert np.array_equal(counts.numpy(), spike_counts(times[2], units[2], 3, 700))


def test_ssc_equals_tonics(tmp_path):
    datasets = pytest.importorskip("tonic.datasets")
    from tonic.transforms import ToFrame

    write_ssc(tmp_path / "SSC")
    frames = ToFrame(sensor_size=datasets.SSC.sensor_size, n_time_bins=5)
    for part in ("test", "valid"):
        (tmp_path / "SSC" / f"ssc_{part}.h5.zip").touch()
        ours = build_datasets("ssc", tmp_path, step=5, split=None if part == "test" else part).test
        theirs = datasets.SSC(str(tmp_path), split=part, transform=frames)
        assert len(ours) == len(theirs)
        for (counts, label), (expected, target) in zip(map(ours.__getitem__, range(len(ours))), theirs, strict=False):
            assert np.array_equal(counts.numpy(), expected[:, 0])
            assert label == target


def test_ssc_fetches_three_parts(tmp_path, monkeypatch):
    import tonic.datasets

    asked = []

    def fetched(folder, split):
        asked.append(split)
        write_ssc(tmp_path / "SSC")

    monkeypatch.setattr(tonic.datasets, "SSC", fetched)
    build_datasets("ssc", tmp_path, download=True)
    assert asked == ["train", "valid", "test"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ssc", {"split": "random"}, "ssc has its own test split"),
        ("ssc", {"split": "valid", "train_portion": 0.5}, "ssc has its own test split"),
        ("shd", {"split": "valid"}, "shd has its own test split"),
    ],
)
def test_only_ssc_has_a_validation_split(tmp_path, name, options, message):
    with pytest.raises(UserError, match=message):
        build_datasets(name, tmp_path, **options)


def test_ssc_without_all_names_is_refused(tmp_path):
    write_ssc(tmp_path, names=34)
    with pytest.raises(UserError, match=r"ssc_train\.h5: names 34 classes of 35"):
        build_datasets("ssc", tmp_path)
