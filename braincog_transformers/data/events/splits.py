"""Named rules that split a set without an official test split; each is a function of the file names alone."""

import math
import re
from pathlib import Path

import numpy as np

from ...errors import UserError, unknown
from ..settings import SEEDED

__all__ = ["SEEDED", "SPLITS", "split_by_class", "split_files", "stratified"]

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
        rule: a name in `SPLITS`, apart from `stratified`, which is no matter of one class.
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
        is_test = [_number(path) < _TEBN_TEST_FILES for path in files]
        sides = (
            [path for path, test in zip(files, is_test, strict=True) if not test],
            [path for path, test in zip(files, is_test, strict=True) if test],
        )
    else:
        order = list(files)
        if rule == "random":
            order = [files[i] for i in np.random.default_rng((seed, label)).permutation(len(files))]
        # Rounded first: 0.55 * 100 is 55.00000000000001 in floating point.
        cut = math.ceil(round(train_portion * len(files), 9))
        sides = sorted(order[:cut]), sorted(order[cut:])
    _check_sides(files[0].parent, rule, sides)
    return sides


def _check_sides(folder: Path, rule: str, sides: tuple[list[Path], list[Path]]) -> None:
    if not all(sides):
        raise UserError(
            f"{folder}: split {rule!r} of {sum(map(len, sides))} recordings leaves none for "
            f"{'test' if sides[0] else 'training'}; add recordings or choose another split or --train-portion"
        )


def split_by_class(
    files: list[list[Path]], rule: str, *, train_portion: float, seed: int
) -> tuple[tuple[list[Path], list[int]], tuple[list[Path], list[int]]]:
    """Split every class and return (files, labels) for training and for test, class after class.

    Args:
        files: of every class, sorted by name as text.
        rule: a name in `SPLITS`.
        train_portion: share of the training files, above 0 and below 1.
        seed: of the rules in `SEEDED`.

    Raises:
        UserError: as `split_files`.
    """
    if rule == "stratified":
        return _split_stratified(files, train_portion, seed)
    sides: tuple = (([], []), ([], []))
    for label, group in enumerate(files):
        parts = split_files(group, rule, train_portion=train_portion, seed=seed, label=label)
        for (paths, labels), part in zip(sides, parts, strict=True):
            paths.extend(part)
            labels.extend([label] * len(part))
    return sides


def _split_stratified(files: list[list[Path]], train_portion: float, seed: int) -> tuple:
    labels = np.repeat(np.arange(len(files)), [len(group) for group in files])
    every = [path for group in files for path in group]
    chosen = stratified(labels, round(1 - train_portion, 9), seed)
    sides = tuple(([every[i] for i in part], labels[part].tolist()) for part in chosen)
    for label, group in enumerate(files):
        mine = tuple([path for path, own in zip(*side, strict=True) if own == label] for side in sides)
        _check_sides(group[0].parent, "stratified", mine)
    return sides


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


def _number(path: Path) -> int:
    digits = re.search(r"(\d+)$", path.stem)
    if not digits:
        raise UserError(f"{path}: split 'tebn' needs a number at the end of the name; use split 'text' or 'random'")
    return int(digits.group(1))
