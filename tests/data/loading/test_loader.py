"""Batches are a function of seed, epoch and place: whatever the workers, the ranks and the point of resuming."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from braincog_transformers.data.loading.loader import make_loader
from braincog_transformers.errors import UserError


class Noisy(Dataset):
    """Samples that show their index and a draw of each generator."""

    def __init__(self, count=23):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        draws = [float(index), random.random(), np.random.random(), torch.rand(()).item()]
        return torch.tensor(draws, dtype=torch.float64), index


class Broken(Noisy):
    def __getitem__(self, index):
        if index == 5:
            raise UserError("file 5 is damaged")
        return super().__getitem__(index)


def loader(dataset=None, *, workers=0, train=True, batch_size=4, seed=7, **options):
    return make_loader(dataset or Noisy(), batch_size=batch_size, train=train, seed=seed, workers=workers, **options)


def batches(data, epoch=0, skip=0):
    data.set_epoch(epoch, skip)
    return [(x.tolist(), y.tolist()) for x, y in data]


def indices(data, epoch=0):
    return [index for _, y in batches(data, epoch) for index in y]


@pytest.mark.parametrize("workers", [1, 2])
def test_same_batches_for_any_number_of_workers(workers):
    assert batches(loader(workers=workers), 3) == batches(loader(), 3)


def test_persistent_workers_know_the_epoch():
    lasting = loader(workers=2, persistent_workers=True)
    assert [batches(lasting, epoch) for epoch in (0, 1)] == [batches(loader(), epoch) for epoch in (0, 1)]


@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_in_the_middle_of_an_epoch(workers):
    assert batches(loader(workers=workers), 2, skip=3) == batches(loader(), 2)[3:]


def test_an_epoch_that_was_left_early_does_not_disturb_the_next():
    lasting = loader(workers=2, persistent_workers=True)
    for _ in lasting:
        break
    assert batches(lasting, 1) == batches(loader(), 1)


def test_epochs_and_seeds_differ_in_order_and_in_augmentation():
    assert indices(loader(), 0) != indices(loader(), 1)
    assert indices(loader(), 0) != indices(loader(seed=8), 0)
    draws = [{int(row[0]): row[1:] for x, _ in batches(loader(), epoch) for row in x} for epoch in (0, 1)]
    common = draws[0].keys() & draws[1].keys()
    assert all(a != b for index in common for a, b in zip(draws[0][index], draws[1][index], strict=True))


def test_every_sample_has_draws_of_its_own():
    rows = [row for x, _ in batches(loader()) for row in x]
    for column in (1, 2, 3):
        assert len({row[column] for row in rows}) == len(rows)


def test_generators_are_put_back():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.random(), torch.rand(()).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    batches(loader())
    batches(loader(workers=1))
    assert (random.random(), np.random.random(), torch.rand(()).item()) == expected


def test_training_shards_are_disjoint_and_equally_long():
    shards = [indices(loader(rank=rank, world_size=3, drop_last=False)) for rank in range(3)]
    assert [len(shard) for shard in shards] == [7, 7, 7]
    assert len({index for shard in shards for index in shard}) == 21


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 23])
def test_evaluation_sees_every_sample_once_over_the_ranks(count, world_size, workers):
    ranks = range(world_size)
    shards = [
        indices(loader(Noisy(count), train=False, rank=rank, world_size=world_size, workers=workers)) for rank in ranks
    ]
    assert sorted(index for shard in shards for index in shard) == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_repeated_samples_are_augmented_anew_and_spread_over_the_ranks(world_size):
    ranks = range(world_size)
    shards = [batches(loader(rank=rank, world_size=world_size, repeats=3, drop_last=False), epoch=1) for rank in ranks]
    assert {sum(len(y) for _, y in shard) for shard in shards} == {23 // world_size}
    rows = [[tuple(row) for x, _ in shard for row in x] for shard in shards]
    every = [row for shard in rows for row in shard]
    assert len(set(every)) == len(every)
    assert len({draw for _, *draws in every for draw in draws}) == 3 * len(every)
    counts = sorted([row[0] for row in every].count(index) for index in {row[0] for row in every})
    assert counts[1:] == [3] * (len(counts) - 1)  # one sample may be cut off at the end of the epoch
    assert len(counts) == -(-len(every) // 3)
    if world_size == 3:  # one copy of each sample at each rank
        assert [row[0] for row in rows[0]] == [row[0] for row in rows[1]] == [row[0] for row in rows[2]]


@pytest.mark.parametrize("workers", [1, 2])
def test_repeats_are_the_same_for_any_number_of_workers_and_after_resuming(workers):
    expected = batches(loader(repeats=3), 2)
    assert batches(loader(repeats=3, workers=workers), 2) == expected
    assert batches(loader(repeats=3, workers=workers), 2, skip=2) == expected[2:]


def test_the_first_copy_is_the_sample_of_an_epoch_without_repeats():
    plain = {row[0]: row for x, _ in batches(loader(drop_last=False)) for row in x}
    copies = {}
    for x, _ in batches(loader(repeats=2, drop_last=False)):
        for row in x:
            copies.setdefault(row[0], row)
    assert all(plain[index] == row for index, row in copies.items())


def test_draws_stay_what_they_were_from_version_to_version():
    words = np.random.SeedSequence((7, 1, 2, 5)).generate_state(4)
    expected = random.Random(int(words[0]) << 32 | int(words[1])).random()
    drawn = {int(row[0]): row[1] for x, _ in batches(loader(drop_last=False), 2) for row in x}
    assert drawn[5] == expected


def test_evaluation_repeats_nothing():
    assert indices(loader(train=False, repeats=3)) == list(range(23))


def test_evaluation_keeps_the_order():
    assert indices(loader(train=False)) == list(range(23))


@pytest.mark.parametrize(
    ("count", "drop_last", "expected"), [(23, True, 5), (23, False, 6), (20, False, 5), (3, True, 1)]
)
def test_length_and_an_incomplete_last_batch(count, drop_last, expected):
    data = loader(Noisy(count), drop_last=drop_last)
    assert len(data) == expected
    assert len(batches(data)) == expected


def test_length_counts_the_whole_epoch_after_skipping():
    data = loader()
    data.set_epoch(0, 2)
    assert len(data) == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_mistake_arrives_as_itself(workers):
    with pytest.raises(UserError) as caught:
        batches(loader(Broken(), workers=workers))
    assert str(caught.value) == "file 5 is damaged"


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": -1}, {"seed": -1}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="must be 1 or more"):
        loader(**options)


def test_fewer_samples_than_ranks_are_refused():
    with pytest.raises(UserError, match="2 training samples can't be shared among 3"):
        loader(Noisy(2), world_size=3)
