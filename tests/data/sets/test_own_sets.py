"""Sets of a user's own, registered from outside of the package: each kind is built, and trained on by the options."""

import numpy as np
import pytest
import torch
from event_writers import write_ssc
from PIL import Image
from writers import random_events, random_spikes, write_bin, write_shd_file

from braincog_transformers.cli import resolve
from braincog_transformers.data import DATASETS, EventSet, PictureSet, SequenceSet, register_dataset
from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.pictures.stored import ArrayPictures
from braincog_transformers.data.settings import CHARACTERS, Augment, Colours
from braincog_transformers.errors import UserError
from braincog_transformers.training.run import run

GREY = Colours(mean=(0.5,), std=(0.25,), origin="a guess")
COLOURS = Colours(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), origin="a guess")


@pytest.fixture(autouse=True)
def _table(monkeypatch):
    """Leave the table as it was."""
    before = dict(DATASETS)
    yield
    DATASETS.clear()
    DATASETS.update(before)


def write_pictures(root, classes=("cat", "dog"), side=8):
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")


def pets(**more):
    return PictureSet(
        name="pets", num_classes=2, size=(8, 8), colours=COLOURS, folders=("pets",),
        tree="pets/{train,val}/<class>/*.png", augment=CHARACTERS, **more,
    )  # fmt: skip


def test_pictures_in_class_folders(tmp_path):
    write_pictures(tmp_path / "pets")
    register_dataset(pets())
    bundle = build_datasets("pets", tmp_path)
    assert (len(bundle.train), len(bundle.test), bundle.classes) == (8, 4, ("cat", "dog"))
    x, label = bundle.train[7]
    assert x.shape == (3, 8, 8)
    assert label == 1


def test_classes_of_the_entry_number_the_labels(tmp_path):
    write_pictures(tmp_path / "pets")
    register_dataset(pets(classes=("dog", "cat")))
    bundle = build_datasets("pets", tmp_path)
    assert bundle.classes == ("dog", "cat")
    assert bundle.train.targets == [1] * 4 + [0] * 4
    assert bundle.test.targets == [1] * 2 + [0] * 2


def test_folders_that_are_not_the_classes_of_the_entry_are_refused(tmp_path):
    write_pictures(tmp_path / "pets")
    register_dataset(pets(classes=("dog", "cow")))
    with pytest.raises(UserError, match=r"train: its class folders are not the 2 classes of pets \(cat\)"):
        build_datasets("pets", tmp_path)


def test_a_missing_set_is_named_with_its_folders_and_warnings_name_it_too(tmp_path):
    register_dataset(pets())
    with pytest.raises(UserError, match=r"pets not found; looked in .*pets/train; expected pets/\{train,val\}"):
        build_datasets("pets", tmp_path)
    write_pictures(tmp_path / "pets")
    (tmp_path / "pets" / "train" / "cat" / "notes.xyz").write_text("x")
    with pytest.warns(UserWarning, match="1 files are not read as photos of pets"):
        build_datasets("pets", tmp_path)


@pytest.mark.parametrize("lost", ["train", "val"])
def test_a_half_that_is_missing_is_named_where_the_set_has_marks(tmp_path, lost):
    write_pictures(tmp_path / "pets")
    (tmp_path / "pets" / lost).rename(tmp_path / "elsewhere")
    (tmp_path / "pets" / "about.txt").write_text("x")
    register_dataset(pets(marks=("about.txt",)))
    with pytest.raises(UserError, match=r"data set pets not found; .*expected pets/\{train,val\}"):
        build_datasets("pets", tmp_path)


def test_pictures_from_arrays_are_trained_on_by_the_options(tmp_path):
    def read(info, data_dir, access):
        rng = np.random.default_rng(0)
        halves = (ArrayPictures(rng.integers(0, 256, (n, 8, 8), np.uint8), np.arange(n) % 3) for n in (12, 6))
        return *halves, info.classes

    register_dataset(
        PictureSet(
            name="noise", num_classes=3, in_chans=1, size=(8, 8), classes=("a", "b", "c"), colours=GREY, folders=(),
            tree="nothing", augment=CHARACTERS, read=read,
        )
    )  # fmt: skip
    options = resolve(
        ["--dataset", "noise", "--model", "spikformer_digits", "--epochs", "1", "--batch-size", "4", "--step", "2",
         "--warmup-epochs", "0", "--workers", "0", "--output", str(tmp_path), "--experiment", "x"]
    )  # fmt: skip
    run(options)
    assert (tmp_path / "x" / "results.json").is_file()


def gestures(**more):
    given = {"endings": (".bin",), "classes": ("left", "right"), **more}
    return EventSet(name="waves", num_classes=2, size=(34, 34), folders=("waves",), tree="waves/...", **given)


def test_a_number_of_given_steps_that_nothing_reads_is_refused():
    with pytest.raises(UserError, match="given_steps is 0 or 8, the only number read; got 10"):
        gestures(splits=("random",), given_steps=10)


def write_waves(root, count=6):
    for name in ("left", "right"):
        for number in range(count):
            write_bin(root / name / f"{number}.bin", random_events(50, 34, seed=number))


def test_recordings_with_split_folders(tmp_path):
    for part in ("train", "test"):
        write_waves(tmp_path / "waves" / part)
    register_dataset(gestures(split_folders=("train", "test")))
    bundle = build_datasets("waves", tmp_path, step=3)
    assert bundle.input_shape == (3, 2, 34, 34)
    assert (len(bundle.train), len(bundle.test)) == (12, 12)
    assert bundle.train[0][0].sum() == 50


def test_recordings_that_a_rule_splits(tmp_path):
    write_waves(tmp_path / "waves")
    register_dataset(gestures(splits=("text", "random")))
    bundle = build_datasets("waves", tmp_path, train_portion=0.5, use_cache=False)
    assert (len(bundle.train), len(bundle.test)) == (6, 6)
    with pytest.raises(UserError, match="unknown split of data set waves 'tebn'"):
        build_datasets("waves", tmp_path, split="tebn")


def test_recordings_that_a_function_of_the_entry_deals_out(tmp_path):
    write_waves(tmp_path / "waves")

    def sides(root, info, split):
        files = sorted(root.rglob("*.bin"))
        labels = [info.classes.index(path.parent.name) for path in files]
        return [(files[::2], labels[::2]), (files[1::2], labels[1::2])]

    register_dataset(gestures(sides=sides, marks=("left",)))
    bundle = build_datasets("waves", tmp_path, use_cache=False)
    assert bundle.train.targets == [0] * 3 + [1] * 3


def test_spikes_in_the_format_of_the_heidelberg_sets(tmp_path):
    for part, count in (("train", 4), ("test", 2)):
        labels = [number % 2 for number in range(count)]
        write_shd_file(tmp_path / "words" / f"words_{part}.h5", *random_spikes(count), labels)
    register_dataset(
        SequenceSet(name="words", num_classes=2, classes=("no", "yes"), size=(1, 700), folders=("words",), tree="x")
    )
    bundle = build_datasets("words", tmp_path, step=5)
    assert bundle.input_shape == (5, 700)
    assert bundle.train[0][0].sum() > 0


def test_sequences_from_arrays(tmp_path):
    class Samples(torch.utils.data.Dataset):
        targets = (0, 1, 0)

        def __init__(self, steps):
            self.steps = steps

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return torch.zeros(self.steps, 5), self.targets[index]

    def read(info, data_dir, access, *, steps, split):
        return Samples(steps), Samples(steps)

    register_dataset(SequenceSet(name="zeros", num_classes=2, size=(1, 5), folders=(), tree="nothing", read=read))
    assert build_datasets("zeros", tmp_path, step=7).train[0][0].shape == (7, 5)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (lambda: register_dataset(DATASETS["cifar10"]), "data set cifar10 is registered already"),
        (lambda: pets(classes=("cat",)), "num_classes is 2, and classes names 1"),
        (lambda: pets(classes=("cat", "cat")), "classes names one twice"),
        (lambda: PictureSet(name="x", num_classes=2, colours=GREY, tree="x"), "colours needs 3 numbers"),
        (lambda: PictureSet(name="x", num_classes=2, size=(0, 1), colours=COLOURS, tree="x"), "two sides of 1 pixel"),
        (lambda: gestures(), "needs classes, and split_folders or splits"),
    ],
)
def test_what_does_not_fit_together_is_refused(entry, message):
    with pytest.raises(UserError, match=message):
        entry()


def test_an_unknown_argument_of_the_call_is_named():
    with pytest.raises(TypeError, match="no argument 'stepp'"):
        build_datasets("digits", "nowhere", stepp=3, augment=Augment())


def test_validation_samples_are_part_of_ssc(tmp_path):
    write_ssc(tmp_path / "SSC")
    assert len(build_datasets("ssc", tmp_path, split="valid").test)
