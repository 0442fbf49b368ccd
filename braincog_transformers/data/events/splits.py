"""Named rules that split a set without an official test split; each is a function of the file names alone."""

import math
import re
from pathlib import Path

import numpy as np

from ...errors import UserError, unknown
from ..loading.folders import unpaired

__all__ = ["SPLITS", "split_by_class", "split_files", "stratified"]

_TEBN_TEST_FILES = 100
SPLITS = {
    "text": "names sorted as text, the first ceil(train_portion * n) of each class train (the Spikformer family's)",
    "tebn": "files 0 to 99 of each class test, the others train (TEBN's; its accuracies are higher)",
    "random": "a permutation of each class that depends on the seed of the split",
    "stratified": "the same, with classes rounded so that ceil((1 - train_portion) * n) of all samples test",
}


def split_files(
    files: list[Path], rule: str, *, train_portion: float, seed: int, label: int
) -> tuple[list[Path], list[Path]]:
    """Split one class's recordings into training and test.

    Args:
        files: sorted by name as text.
        rule: a name in `SPLITS`, apart from `stratified`, which splits all classes together.
        train_portion: share of the training files, above 0 and below 1.
        seed: of the rule `random`.
        label: the class; each has a permutation of its own.

    Raises:
        UserError: for an unknown rule, a rule that leaves one side empty, or a file name without a number (`tebn`).
    """
    if rule not in SPLITS:
        raise unknown("split", rule, SPLITS)
    if rule == "stratified":
        raise ValueError("split_files: the split stratified is one of all classes together; use split_by_class")
    if rule == "tebn":
        in_test = [_number(path) < _TEBN_TEST_FILES for path in files]
    else:
        places = np.arange(len(files))
        order = np.random.default_rng((seed, label)).permutation(len(files)) if rule == "random" else places
        # Rounded first: 0.55 * 100 is 55.00000000000001 in floating point.
        in_test = np.isin(places, order[math.ceil(round(train_portion * len(files), 9)) :])
    return _parted(files, in_test, rule)


def _number(path: Path) -> int:
    digits = re.search(r"(\d+)$", path.stem)
    if not digits:
        raise UserError(f"{path}: split 'tebn' needs a number at the end of the name; use split 'text' or 'random'")
    return int(digits.group(1))


def _parted(files: list[Path], in_test: list[bool] | np.ndarray, rule: str) -> tuple[list[Path], list[Path]]:
    train, test = ([path for path, tests in zip(files, in_test, strict=True) if tests == side] for side in (0, 1))
    if not train or not test:
        raise UserError(
            f"{files[0].parent}: split {rule!r} of {len(files)} recordings leaves none for "
            f"{'test' if train else 'training'}; add recordings or choose another split or --train-portion"
        )
    return train, test


def split_by_class(
    files: list[list[Path]], rule: str, *, train_portion: float, seed: int
) -> tuple[tuple[list[Path], list[int]], tuple[list[Path], list[int]]]:
    """Split every class and return (files, labels) for training and for test, class after class.

    Args:
        files: of every class, sorted by name as text.
        rule: a name in `SPLITS`.
        train_portion: share of the training files, above 0 and below 1.
        seed: of the rules in `settings.SEEDED`.

    Raises:
        UserError: as `split_files`.
    """
    if rule == "stratified":
        labels = np.repeat(np.arange(len(files)), [len(group) for group in files])
        chosen = np.isin(np.arange(len(labels)), stratified(labels, round(1 - train_portion, 9), seed)[1])
        parts = [_parted(group, chosen[labels == label], rule) for label, group in enumerate(files)]
    else:
        options = {"train_portion": train_portion, "seed": seed}
        parts = [split_files(group, rule, **options, label=label) for label, group in enumerate(files)]
    train, test = ([(path, label) for label, part in enumerate(parts) for path in part[side]] for side in (0, 1))
    return unpaired(train), unpaired(test)


def stratified(labels: np.ndarray, test_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of training and test samples (sorted), each class with its share of test samples.

    Every class gives the whole part of its share; the classes with the largest remainders give one more, until
    ceil(test_share * N) is reached. Which samples: a permutation of each class by (seed, class).
    """
    classes, counts = np.unique(labels, return_counts=True)
    share = counts * test_share
    take = np.floor(share).astype(int)
    more = math.ceil(len(labels) * test_share) - take.sum()
    take[np.argsort(take - share, kind="stable")[:more]] += 1
    test = [
        np.random.default_rng((seed, int(label))).permutation(np.flatnonzero(labels == label))[:count]
        for label, count in zip(classes, take, strict=True)
    ]
    chosen = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen
