"""Event sets from their folders: layouts, splits, sizes, missing data."""

import shutil

import numpy as np
import pytest
from writers import CLASSES, random_events, write_bin, write_dvsc10, write_nmnist

from braincog_transformers.data.build import Augment, build_datasets, describe
from braincog_transformers.data.events.frames import events_to_frames, resize_counts, time_surfaces, voxel_grid
from braincog_transformers.data.loading.folders import MissingData
from braincog_transformers.data.registry import DATASETS
from braincog_transformers.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*published figures need all of them")


@pytest.mark.parametrize("place", ["nmnist", "NMNIST", "DVS/N-MNIST/NMNIST", "."])
def test_nmnist_is_found_in_every_layout(tmp_path, place):
    write_nmnist(tmp_path / place)
    bundle = build_datasets("nmnist", tmp_path, step=3)
    assert (len(bundle.train), len(bundle.test)) == (20, 10)
    assert bundle.input_shape == (3, 2, 34, 34)
    assert bundle.num_classes == 10
    frames, label = bundle.train[7]
    assert label == 3
    assert np.array_equal(frames.numpy(), events_to_frames(random_events(200, seed=301), 3, (34, 34)))


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("ending", [".aedat", ".aedat4"])
@pytest.mark.parametrize("place", ["dvsc10", "CIFAR10DVS", "."])
def test_dvsc10_reads_both_formats_and_layouts(tmp_path, place, ending, use_cache):
    write_dvsc10(tmp_path / place, 2, ending)
    bundle = build_datasets(
        "dvsc10", tmp_path, step=4, size=(64, 64), train_portion=0.5, use_cache=use_cache, augment=Augment(no_aug=True)
    )
    frames, label = bundle.test[3]
    expected = resize_counts(events_to_frames(random_events(100, 128, seed=3001), 4, (128, 128)), (64, 64))
    assert label == 3
    assert np.array_equal(frames.numpy(), expected)
    assert (tmp_path / "cache").exists() == use_cache


def names(side):
    return sorted(path.name for path in side.files if path.parent.name == "cat")


def test_dvsc10_splits_are_those_named(tmp_path):
    write_dvsc10(tmp_path / "dvsc10", numbers=[0, 5, 9, 10, 11, 20, 99, 100, 101, 999])
    build = {
        rule: build_datasets("dvsc10", tmp_path, split=rule, use_cache=False) for rule in ("text", "tebn", "random")
    }
    assert names(build["text"].test) == ["cifar10_cat_999.aedat"]
    assert names(build["tebn"].train) == [f"cifar10_cat_{number}.aedat" for number in (100, 101, 999)]
    assert len(build["random"].train) == 90
    again = build_datasets("dvsc10", tmp_path, split="random", use_cache=False)
    other = build_datasets("dvsc10", tmp_path, split="random", split_seed=1, use_cache=False)
    assert again.test.files == build["random"].test.files
    assert other.test.files != again.test.files


def test_only_training_samples_are_varied(tmp_path):
    write_dvsc10(tmp_path, 2)
    options = {"train_portion": 0.5, "use_cache": False, "augment": Augment(hflip=1.0, event_augment="none")}
    bundle = build_datasets("dvsc10", tmp_path, **options)
    plain = events_to_frames(random_events(100, 128, seed=0), 4, (128, 128))
    assert np.array_equal(bundle.train[0][0].numpy(), plain[..., ::-1])
    assert bundle.test.transforms == ()


def test_default_augmentation_is_the_sets_own(tmp_path):
    write_dvsc10(tmp_path / "dvsc10", 2)
    write_nmnist(tmp_path / "nmnist")
    kinds = [type(step).__name__ for step in build_datasets("dvsc10", tmp_path, train_portion=0.5).train.transforms]
    assert kinds == ["HorizontalFlip", "PaddedCrop"]
    assert build_datasets("nmnist", tmp_path).train.transforms == ()


def test_the_sum_of_the_polarities_follows_the_augmentation_in_training_and_test(tmp_path):
    write_nmnist(tmp_path)
    options = {"augment": Augment(hflip=1.0, event_augment="resformer"), "polarity_sum": True}
    bundle = build_datasets("nmnist", tmp_path, **options)
    assert bundle.input_shape == (4, 3, 34, 34)
    for side in (bundle.train, bundle.test):
        frames, _ = side[0]
        assert frames.shape == bundle.input_shape
        assert np.array_equal(frames[:, 2], frames[:, 0] + frames[:, 1])
    plain = events_to_frames(random_events(200, seed=10_000), 4, (34, 34))
    assert np.array_equal(bundle.test[0][0][:, :2], plain)
    noisy = build_datasets("nmnist", tmp_path, polarity_sum=True, augment=Augment(rand_aug=True, randaug_m=30))
    for index in range(5):
        frames, _ = noisy.train[index]
        assert np.allclose(frames[:, 2], frames[:, 0] + frames[:, 1])


@pytest.mark.parametrize(
    ("options", "chans", "expected"),
    [
        ({"merge_polarity": True}, 1, lambda events: events_to_frames(events, 4, (34, 34), merge=True)),
        ({"clip_counts": 1}, 2, lambda events: events_to_frames(events, 4, (34, 34)).clip(max=1)),
        ({"frames": "voxel"}, 1, lambda events: voxel_grid(events, 4, (34, 34))),
        ({"frames": "voxel", "frame_norm": "max"}, 1, lambda events: _to_one(voxel_grid(events, 4, (34, 34)))),
        ({"frames": "surface"}, 2, lambda events: time_surfaces(events, 4, (34, 34), tau_us=50_000)),
        (
            {"frames": "surface", "surface_tau": 1e4, "merge_polarity": True},
            1,
            lambda events: time_surfaces(events, 4, (34, 34), tau_us=1e4, merge=True),
        ),
        ({"resize": "bilinear", "size": (16, 16)}, 2, lambda events: _bilinear(events_to_frames(events, 4, (34, 34)))),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_each_kind_of_frames_arrives_as_it_was_computed(tmp_path, options, chans, expected, use_cache):
    write_nmnist(tmp_path)
    bundle = build_datasets("nmnist", tmp_path, use_cache=use_cache, **options)
    frames, _ = bundle.test[0]
    assert bundle.input_shape == frames.shape == (4, chans, *options.get("size", (34, 34)))
    assert frames.numpy() == pytest.approx(expected(random_events(200, seed=10_000)), abs=1e-6)


def _to_one(frames):
    return frames / np.abs(frames).max()


def _bilinear(frames):
    return resize_counts(frames, (16, 16), "bilinear")


def test_an_incomplete_set_is_used_with_a_warning(tmp_path):
    write_nmnist(tmp_path)
    with pytest.warns(UserWarning, match="20 of 60000 and 10 of 10000 recordings of nmnist"):
        build_datasets("nmnist", tmp_path)


@pytest.mark.parametrize("name", [one.name for one in DATASETS.values() if one.kind != "task" and one.folders])
def test_missing_data_say_what_where_how_and_which_option(tmp_path, name):
    with pytest.raises(MissingData) as caught:
        build_datasets(name, tmp_path)
    text = str(caught.value)
    assert text == describe(name, tmp_path)
    assert isinstance(caught.value, FileNotFoundError)
    assert "\n" not in text
    for part in (name, str(tmp_path), "expected", "--data-dir", "--download"):
        assert part in text


def test_a_missing_class_is_named(tmp_path):
    write_dvsc10(tmp_path, 2)
    shutil.rmtree(tmp_path / "frog")
    with pytest.raises(UserError, match=r"1 of 10 classes \(frog\)"):
        build_datasets("dvsc10", tmp_path, train_portion=0.5)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_damaged_recording_is_named(tmp_path, use_cache):
    write_nmnist(tmp_path)
    (tmp_path / "Train" / "0" / "00000.bin").write_bytes(b"123")
    with pytest.raises(UserError, match=r"00000\.bin: truncated"):
        build_datasets("nmnist", tmp_path, use_cache=use_cache).train[0]


def test_events_of_a_larger_sensor_are_refused(tmp_path):
    write_nmnist(tmp_path)
    write_bin(tmp_path / "Train" / "0" / "00000.bin", random_events(50, side=64))
    with pytest.raises(UserError, match="outside of the 34 x 34 sensor"):
        build_datasets("nmnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nmnis", {}, "did you mean nmnist"),
        ("nmnist", {"step": 0}, "--step must be 1 or more; got 0"),
        ("nmnist", {"size": (0, 4)}, "two sides of 1 pixel or more"),
        ("nmnist", {"in_chans": 3}, "gives 2 channels; got in_chans=3"),
        ("nmnist", {"mean": (0.5,)}, "leave out --mean"),
        ("nmnist", {"frames_by": "numbers"}, "did you mean number"),
        ("nmnist", {"remainder": "lst"}, "did you mean last"),
        ("nmnist", {"resize": "are"}, "did you mean area"),
        ("nmnist", {"frames": "voxels"}, "did you mean voxel"),
        ("nmnist", {"frame_norm": "min"}, "unknown rule of --frame-norm 'min'"),
        ("nmnist", {"clip_counts": 0}, "--clip-counts must be 1 or more; got 0"),
        ("nmnist", {"surface_tau": 0.0}, "--surface-tau must be above 0"),
        ("nmnist", {"frames": "voxel", "merge_polarity": True}, "leave it out"),
        ("nmnist", {"polarity_sum": True, "merge_polarity": True}, "no two polarities to add"),
        ("nmnist", {"merge_polarity": True, "in_chans": 2}, "gives 1 channel; got in_chans=2"),
        ("digits", {"merge_polarity": True}, "leave out --merge-polarity"),
        ("nmnist", {"split": "random"}, "has its own test split"),
        ("nmnist", {"train_portion": 0.5}, "has its own test split"),
        ("nmnist", {"augment": Augment(event_augment="snn")}, "did you mean none or snn_wide"),
        ("nmnist", {"label_order": "text"}, "one order of labels; leave out --label-order"),
        ("nmnist", {"label_order": "txt"}, "did you mean text"),
        ("nmnist", {"polarity_sum": True, "in_chans": 2}, "gives 3 channels; got in_chans=2"),
        ("digits", {"polarity_sum": True}, "leave out --polarity-sum"),
        ("dvsc10", {"split": "tebm"}, "did you mean tebn"),
        ("dvsc10", {"split": "tebn", "train_portion": 0.5}, "leave out --train-portion"),
        ("dvsc10", {"train_portion": 1.0}, "above 0 and below 1"),
        ("dvsc10", {}, "leaves none for test"),
    ],
)
def test_wrong_options_are_refused_in_one_line(tmp_path, name, options, message):
    write_nmnist(tmp_path / "nmnist")
    write_dvsc10(tmp_path / "dvsc10", 2)
    with pytest.raises(UserError, match=message) as caught:
        build_datasets(name, tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_class_names_are_constants(tmp_path):
    write_dvsc10(tmp_path, 2)
    assert build_datasets("dvsc10", tmp_path, train_portion=0.5).classes == CLASSES
