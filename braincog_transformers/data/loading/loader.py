"""Batches that depend only on the seed, the epoch and the sample, not on the workers or on where a run was resumed.

Samples are requested as (epoch, index, copy), so that workers that are kept from epoch to epoch know the epoch. Before
each one the generators of Python, NumPy and torch are seeded from (seed, epoch, index), and from the number of the copy
where an epoch has several of a sample; they are put back afterwards.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ...errors import UserError
from ...runtime.batch import tensors_of
from ..pictures.sources import PictureStream
from .streams import Failure, StreamLoader, collate, raising, seed_generators

__all__ = ["Loader", "make_loader"]

_ORDER, _SAMPLE = 0, 1
"""Keep the seeds of an epoch's order and of its samples apart."""


@dataclass
class _SeededDataset(Dataset):
    """Fetch samples by (epoch, index, copy), each with generators of its own; values that are not finite are named."""

    dataset: Dataset
    seed: int
    part: str

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, places: Sequence[tuple[int, int, int]]) -> list:
        kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            return [self._sample(*place) for place in places]
        except UserError as error:
            return [Failure(error)]
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
            torch.set_rng_state(kept[2])

    def _sample(self, epoch: int, index: int, copy: int) -> tuple[Any, Any]:
        seed_generators(self.seed, _SAMPLE, epoch, index, *((copy,) if copy else ()))
        x, label = self.dataset[index]
        # the sum takes one pass; that of finite values may overflow
        if any(not torch.isfinite(part.sum()) and not torch.isfinite(part).all() for part in tensors_of(x)):
            single = isinstance(label, int | np.integer) or (isinstance(label, Tensor) and not label.ndim)
            about = f", label {label}" if single else ""
            raise UserError(
                f"{self.part} sample {index} (counted from 0{about}) holds values that are not finite; check the data, "
                "--mean and --std"
            )
        return x, label


@dataclass
class _Batches(Sampler):
    """Yield lists of (epoch, index, copy): one rank's share of an epoch's order, cut into batches."""

    samples: int
    batch_size: int
    train: bool
    seed: int
    rank: int
    world_size: int
    drop_last: bool
    repeats: int
    epoch: int = 0
    skip: int = 0

    def __post_init__(self) -> None:
        samples, ranks = self.samples, self.world_size
        self.share = samples // ranks if self.train else len(range(self.rank, samples, ranks))
        whole, rest = divmod(self.share, self.batch_size)
        # A set smaller than a batch would otherwise give no batch at all, without a word.
        self.count = whole + bool(rest and not (self.drop_last and whole))

    def __len__(self) -> int:
        return self.count

    def order(self) -> tuple[np.ndarray, np.ndarray]:
        """Return this rank's samples in the order of the epoch, and which copy of its sample each one is."""
        if not self.train:
            samples = np.arange(self.rank, self.samples, self.world_size)
            return samples, np.zeros_like(samples)
        rng = np.random.default_rng((self.seed, _ORDER, self.epoch))
        # Equal shares: what world_size doesn't divide waits for another epoch's order, and so do the samples whose
        # places the copies take. Neighbours go to different ranks, so the copies of a sample do too.
        places = np.arange(self.share * self.world_size)[self.rank :: self.world_size]
        return rng.permutation(self.samples)[places // self.repeats], places % self.repeats

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        epoch, (samples, copies) = self.epoch, self.order()
        places = list(zip(samples.tolist(), copies.tolist(), strict=True))
        for number in range(self.skip, self.count):
            batch = places[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(epoch, *place) for place in batch]


class Loader:
    """Iterate over the batches (x, y) of an epoch; built by `make_loader`.

    `set_epoch` says which epoch comes next, and where in it to begin; `len` is the number of batches of a whole epoch.
    """

    def __init__(self, loader: DataLoader, batches: _Batches) -> None:
        self._loader, self._batches = loader, batches

    def __len__(self) -> int:
        return len(self._batches)

    def set_epoch(self, epoch: int, skip_batches: int = 0) -> None:
        """Choose the epoch whose order and augmentation the next iteration has.

        Args:
            epoch: 0 or more.
            skip_batches: batches at its beginning that are left out, and not loaded.
        """
        if epoch < 0 or skip_batches < 0:
            raise ValueError(f"Loader.set_epoch: epoch and skip_batches must be 0 or more; got {epoch}, {skip_batches}")
        self._batches.epoch, self._batches.skip = epoch, skip_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from raising(self._loader)


def make_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    train: bool,
    seed: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    drop_last: bool | None = None,
    persistent_workers: bool = False,
    repeats: int = 1,
) -> Loader | StreamLoader:
    """Build a loader.

    Args:
        dataset: samples (x, label), picklable, since workers may be started afresh; or a stream, see `streams`.
        batch_size: samples per batch of this rank, 1 or more.
        train: shuffle, and give every rank equally many samples; otherwise keep the order, each sample at one rank.
        seed: of the order and of the augmentation, 0 or more.
        workers: processes that load; 0 loads in this one. The batches are the same.
        rank: of this process.
        world_size: number of processes that train together.
        pin_memory: put batches into page-locked memory, for a GPU.
        drop_last: leave an incomplete last batch out where there is another one; by default in training.
        persistent_workers: keep the workers from epoch to epoch.
        repeats: copies of a sample in an epoch of training, each augmented by draws of its own, one after the other
            (Hoffer et al., CVPR 2020); the epoch stays as long, with so many times fewer samples.

    Raises:
        UserError: for a value out of range, or fewer samples than processes.
    """
    if batch_size < 1 or workers < 0 or seed < 0:
        got = f"{batch_size}, {workers}, {seed}"
        raise UserError(f"--batch-size must be 1 or more, --workers and --seed 0 or more; got {got}")
    if not 0 <= rank < world_size:
        raise ValueError(f"make_loader: rank must be from 0 to world_size - 1; got {rank} of {world_size}")
    if isinstance(dataset, PictureStream):
        return StreamLoader(
            dataset, batch_size=batch_size, seed=seed, workers=workers, rank=rank, world_size=world_size,
            pin_memory=pin_memory,
        )  # fmt: skip
    if train and len(dataset) < world_size:
        raise UserError(f"{len(dataset)} training samples can't be shared among {world_size} processes; start fewer")
    if repeats < 1:
        raise ValueError(f"make_loader: repeats must be 1 or more; got {repeats}")
    drop_last = train if drop_last is None else drop_last
    batches = _Batches(len(dataset), batch_size, train, seed, rank, world_size, drop_last, repeats)
    loader = DataLoader(
        _SeededDataset(dataset, seed, "training" if train else "test"),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=persistent_workers and workers > 0,
        # Its own generator: drawing the workers' base seed from torch's would make a run depend on the worker count.
        generator=torch.Generator().manual_seed(seed),
    )
    return Loader(loader, batches)
