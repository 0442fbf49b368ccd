"""Which recordings train and which test, by rules that depend on file names alone."""

from pathlib import Path

import numpy as np
import pytest
from writers import write_bin, write_dvsc10

from braincog_transformers.data.events.splits import split_by_class, split_files, stratified
from braincog_transformers.data.loading.folders import class_files
from braincog_transformers.data.pictures.digits import digit_pictures
from braincog_transformers.data.readers import make_events
from braincog_transformers.errors import UserError

FIRST_TEST_LABELS = [1, 3, 4, 6, 1, 3, 4, 1, 9, 8, 7, 0]


def files(count):
    return sorted(Path(f"cat/cifar10_cat_{number}.aedat") for number in range(count))


def numbers(paths):
    return sorted(int(path.stem.split("_")[-1]) for path in paths)


def split(count, rule, train_portion=0.9, seed=0, label=3):
    return split_files(files(count), rule, train_portion=train_portion, seed=seed, label=label)


def test_text_order_tests_files_91_to_99_and_909_to_999():
    train, test = split(1000, "text")
    assert numbers(test) == [*range(91, 100), *range(909, 1000)]
    assert len(train) == 900


def test_tebn_tests_the_first_hundred_numbers():
    train, test = split(1000, "tebn")
    assert numbers(test) == list(range(100))
    assert numbers(train) == list(range(100, 1000))


def test_random_depends_on_seed_and_class_and_covers_everything():
    train, test = split(50, "random", seed=1)
    assert numbers(train + test) == list(range(50))
    assert (train, test) == split(50, "random", seed=1)
    assert test != split(50, "random", seed=2)[1]
    assert test != split(50, "random", seed=1, label=4)[1]


@pytest.mark.parametrize(("count", "portion", "expected"), [(100, 0.55, 55), (11, 0.9, 10), (3, 0.5, 2)])
def test_training_gets_the_share_rounded_up(count, portion, expected):
    assert len(split(count, "text", portion)[0]) == expected


def test_a_side_without_recordings_is_refused():
    with pytest.raises(UserError, match="leaves none for test"):
        split(5, "text")


def test_tebn_needs_numbers():
    with pytest.raises(UserError, match=r"cat\.aedat: split 'tebn' needs a number"):
        split_files([Path("a/cat.aedat")], "tebn", train_portion=0.9, seed=0, label=0)


def test_unknown_rule_names_the_nearest():
    with pytest.raises(UserError, match="did you mean text"):
        split(10, "texts")


def test_stratified_takes_the_share_of_every_class():
    labels = np.repeat([0, 1, 2], [10, 21, 33])
    train, test = stratified(labels, 0.2, 0)
    assert np.bincount(labels[test]).tolist() == [2, 4, 7]
    assert sorted([*train, *test]) == list(range(64))


def by_class(sizes, seed=0, train_portion=0.9):
    groups = [[Path(f"{label}/image_{number:04d}.bin") for number in range(size)] for label, size in enumerate(sizes)]
    return groups, split_by_class(groups, "stratified", train_portion=train_portion, seed=seed)


def test_stratified_files_keep_shares_order_and_labels():
    groups, (train, test) = by_class([31, 40, 435])
    assert np.bincount(test[1]).tolist() == [3, 4, 44]
    assert sorted(train[0] + test[0]) == sorted(path for group in groups for path in group)
    for paths, labels in (train, test):
        assert labels == sorted(labels)
        assert [path.parent.name for path in paths] == [str(label) for label in labels]
        assert paths == sorted(paths)


def test_stratified_files_depend_on_the_seed_alone():
    assert by_class([20, 30], seed=4)[1] == by_class([20, 30], seed=4)[1]
    assert by_class([20, 30], seed=4)[1] != by_class([20, 30], seed=5)[1]
    # another class does not move the samples of this one
    assert by_class([20, 30])[1][1][0][:2] == by_class([20, 40])[1][1][0][:2]


def test_a_class_too_small_for_both_sides_is_named():
    with pytest.raises(UserError, match=r"^0: split 'stratified' of 3 recordings leaves none for test"):
        by_class([3, 3, 44])


def test_digits_split_is_fixed_at_1437_and_360():
    train, test = (digit_pictures(train=train) for train in (True, False))
    assert (train[0].shape, test[0].shape) == ((1437, 8, 8), (360, 8, 8))
    assert np.bincount(test[1]).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    # Accuracies are comparable only as long as these stay the test samples.
    assert test[1][:12].tolist() == FIRST_TEST_LABELS


def test_two_formats_side_by_side_are_refused(tmp_path):
    write_dvsc10(tmp_path)
    write_dvsc10(tmp_path, 1, ".aedat4")
    with pytest.raises(UserError, match=r"\.aedat and \.aedat4.*never mixed"):
        class_files(tmp_path, ("cat", "dog"), (".aedat", ".aedat4"))


def test_a_class_without_recordings_is_named(tmp_path):
    write_bin(tmp_path / "0" / "a.bin", make_events([0], [0], [0], [True]))
    with pytest.raises(UserError, match=r"1 of 2 classes \(1\)"):
        class_files(tmp_path, ("0", "1"), (".bin",))


def test_files_come_sorted_as_text_and_hidden_ones_not_at_all(tmp_path):
    for name in ("b.bin", "10.bin", "9.bin", "._9.bin", "note.txt"):
        write_bin(tmp_path / "0" / name, make_events([0], [0], [0], [True]))
    assert [path.name for path in class_files(tmp_path, ("0",), (".bin",))[0]] == ["10.bin", "9.bin", "b.bin"]
