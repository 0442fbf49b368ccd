"""Streams of photos (WebDataset shards and the like): an epoch for each rank, without access by index.

The order and the augmentation are functions of seed, epoch, and the numbers of processes and of workers: unlike those
of `loader`, they change with the workers. Going on in the middle of an epoch reads its beginning once more.
"""

import random
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from ...errors import UserError
from ...files import reason
from ..pictures.decoding import photos_only
from ..pictures.sources import PictureStream

__all__ = ["Failure", "StreamLoader", "collate", "raising", "seed_generators"]

_EPOCH, _SAMPLE = 2, 3
"""Keep the seeds of a stream's epochs and samples apart, and from those of `loader`."""


class Failure(str):
    """A mistake of the user's, as the text that leaves a worker, where an exception would arrive as a traceback."""


def collate(samples: list) -> list[Tensor] | Failure:
    """Return samples as a batch, or the first `Failure` among them."""
    failures = [sample for sample in samples if isinstance(sample, Failure)]
    return failures[0] if failures else [_stacked(parts) for parts in zip(*samples, strict=True)]


def _stacked(parts: tuple) -> Any:
    """Return one part of all samples, such as their inputs, as a batch."""
    stack = getattr(type(parts[0]), "stack", None)  # of what is no tensor, as `runtime.batch.Batch`
    return default_collate(list(parts)) if stack is None else stack(parts)


def raising(batches: Iterable) -> Iterator[list[Tensor]]:
    """Yield the batches; a `Failure` in the place of one is raised as `UserError`."""
    for batch in batches:
        if isinstance(batch, Failure):
            raise UserError(str(batch))
        yield batch


def seed_generators(*key: int) -> None:
    """Seed the generators of Python, NumPy and torch with what a key of whole numbers is hashed to."""
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2:])
    torch.default_generator.manual_seed(int(words[2]) << 32 | int(words[3]))


@contextmanager
def _strictly(stream: PictureStream) -> Iterator[None]:
    """Let timm's readers open photos alone, and stop at a sample that can't be read, instead of leaving it out.

    This lasts as long as a worker reads, which is a process of ours.
    """
    with photos_only(f"{stream.source.name}: a picture of the stream", stream.max_pixels):
        if stream.source.prefix != "wds":
            yield
            return
        from timm.data.readers import reader_wds

        read, skip = reader_wds._decode, reader_wds.log_and_continue

        def decode(sample: dict[str, Any], **given: Any) -> Any:
            name = f"{sample.get('__url__', stream.source.name)}: {sample.get('__key__', 'a sample')}"
            with photos_only(name, stream.max_pixels):
                try:
                    return read(sample, **given)
                except UserError:
                    raise
                except Exception as error:
                    raise UserError(f"{name}: {reason(error, 200)}") from None

        def stop(error: Exception) -> bool:
            raise error

        reader_wds._decode, reader_wds.log_and_continue = decode, stop
        try:
            yield
        finally:
            reader_wds._decode, reader_wds.log_and_continue = read, skip


class _Share(IterableDataset):
    """Read one worker's share of an epoch."""

    def __init__(self, stored: Any, stream: PictureStream, *, seed: int, rank: int) -> None:
        self.stored, self.stream, self.seed, self.rank = stored, stream, seed, rank
        self.epoch = 0

    def __iter__(self) -> Iterator[tuple[Tensor, int] | Failure]:
        stream, key = self.stream, (self.seed, _SAMPLE, self.epoch, self.rank, get_worker_info().id)
        try:
            with _strictly(stream):
                for place, (picture, label) in enumerate(self.stored):
                    seed_generators(*key, place)
                    yield stream.sample(picture, label)
        except UserError as error:
            yield Failure(str(error))
        except Exception as error:
            # The packages behind timm raise whatever the network or a file does to them.
            yield Failure(f"--dataset-source {stream.source.name}: the stream broke off ({reason(error, 200)})")


class StreamLoader:
    """Iterate over the batches (x, y) of an epoch of a stream, with the calls of `loader.Loader`.

    In training every process gets the same number of whole batches, for which a worker whose shards hold fewer samples
    reads some of them twice. In evaluation each sample comes once, at one process.

    Args:
        stream: what is read.
        batch_size: samples per batch of this rank.
        seed: of the order and of the augmentation.
        workers: processes that read; at least one, and no more than there are shards for.
        rank: of this process.
        world_size: number of processes that train together.
        pin_memory: put batches into page-locked memory.

    Raises:
        UserError: for fewer shards than processes.
    """

    def __init__(
        self, stream: PictureStream, *, batch_size: int, seed: int, workers: int, rank: int, world_size: int,
        pin_memory: bool,
    ) -> None:  # fmt: skip
        self.batch_size = batch_size
        stored = stream.source.open(train=stream.train, batch_size=batch_size, seed=seed)
        reader = stored.reader
        reader.dist_rank, reader.dist_num_replicas = rank, world_size
        self.workers = max(1, workers)
        if stream.source.prefix == "wds":
            self.workers = min(self.workers, _own_shards(reader, stream, rank, world_size))
        stored.set_loader_cfg(num_workers=self.workers)
        share = len(stored) if stream.train else -(-len(stream) // world_size)
        self.count = -(-share // batch_size)
        self.seed, self.pin_memory, self.skip = seed, pin_memory, 0
        self._share = _Share(stored, stream, seed=seed, rank=rank)
        if stream.train and rank == 0:
            warnings.warn(
                f"{stream.source.name} is a stream: its order depends on {self.workers} workers and {world_size} "
                "processes, so resume with as many (--workers); going on within an epoch reads its beginning again",
                stacklevel=3,
            )

    def __len__(self) -> int:
        """Return the batches of a training epoch, or about those of an evaluation: each worker has a last one."""
        return self.count

    def set_epoch(self, epoch: int, skip_batches: int = 0) -> None:
        """Choose the epoch whose order and augmentation the next iteration has.

        Args:
            epoch: 0 or more.
            skip_batches: batches at its beginning that are read and left out.
        """
        self._share.epoch, self.skip = epoch, skip_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._share.stored.set_epoch(self._share.epoch)
        # Workers draw their shuffling from this seed, so that an epoch is the same after an interruption.
        key = np.random.SeedSequence((self.seed, _EPOCH, self._share.epoch)).generate_state(1)
        loader = DataLoader(
            self._share,
            batch_size=self.batch_size,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=self.pin_memory,
            generator=torch.Generator().manual_seed(int(key[0])),
        )
        yield from raising(islice(loader, self.skip, None))


def _own_shards(reader: Any, stream: PictureStream, rank: int, world_size: int) -> int:
    """Return how many shards this rank reads; in evaluation they are dealt out here.

    timm's reader would cut every rank's share of an evaluation to the same length, and miss or repeat samples.
    """
    shards = reader.split_info.filenames
    if len(shards) < world_size:
        raise UserError(
            f"--dataset-source {stream.source.name}: {len(shards)} shards can't be shared among {world_size} "
            "processes; start fewer, or write smaller shards"
        )
    if not stream.train:
        reader.split_info.filenames = tuple(shards[rank::world_size])
        reader.dist_rank, reader.dist_num_replicas = 0, 1
        return len(reader.split_info.filenames)
    return len(shards) // world_size
