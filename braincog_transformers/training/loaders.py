"""Batches: the data set of a run, its loaders, what brings a batch to the device, and the mixing of its samples."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from timm.data import Mixup
from torch import Tensor

from ..data.build import Access, Augment, Colours, DataBundle, FrameRule, Source, Split, build_datasets
from ..data.events.mixing import CutMix, EventMix, MixUp
from ..data.loading.loader import make_loader
from ..data.settings import source_problems
from ..errors import UserError
from ..recipe import Options
from ..recipe.groups import DataOptions
from ..recipe.options import raise_all
from .distributed import Ranks
from .losses import soft_labels
from .network import Shape, evaluates

__all__ = ["EventMixer", "ImageMixer", "Loaders", "Mixer", "Prefetcher", "ToDevice", "build_data", "build_loaders"]

Mixer = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
_RULES = {
    one.metadata["option"] for rule in (FrameRule, Split, Colours, Access) for one in fields(rule) if one.metadata
}
_PASSED = {one.name for one in fields(DataOptions)} & (_RULES | {"polarity_sum", "label_order", "num_classes"})
"""Options that `build_datasets` takes under their own names."""


@dataclass(frozen=True)
class ToDevice:
    """Bring a batch to the device and into the format of the network.

    Args:
        device: device of the network.
        channels_last: memory format of images.
        flatten_steps: fold the time of event frames `(B, T, C, H, W)` into the channels `(B, T*C, H, W)`.
    """

    device: torch.device | str = "cpu"
    channels_last: bool = False
    flatten_steps: bool = False

    def __call__(self, x: Any, target: Any) -> tuple[Any, Any]:
        x = x.to(self.device, non_blocking=True)
        target = target.to(self.device, non_blocking=True)
        if not isinstance(x, Tensor):
            return x, target
        if self.flatten_steps and x.ndim == 5:
            x = x.flatten(1, 2)
        if self.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, target


@dataclass(frozen=True)
class Prefetcher:
    """Stand in for a loader and keep one batch ahead on the device, copied on a stream of its own.

    Args:
        loader: gives pairs of tensors; its memory should be page-locked, else the copies wait.
        device: a CUDA device.
    """

    loader: Any
    device: torch.device

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int, skip_batches: int = 0) -> None:
        """Pass on to the loader."""
        self.loader.set_epoch(epoch, skip_batches=skip_batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        stream = torch.cuda.Stream(self.device)
        waiting: tuple[Tensor, ...] | None = None
        for batch in self.loader:
            with torch.cuda.stream(stream):
                coming = tuple(part.to(self.device, non_blocking=True) for part in batch)
            if waiting is not None:
                yield waiting
            torch.cuda.current_stream(self.device).wait_stream(stream)
            for part in coming:  # the allocator must not reuse the memory while the main stream reads it
                part.record_stream(torch.cuda.current_stream(self.device))
            waiting = coming
        if waiting is not None:
            yield waiting


@dataclass(frozen=True)
class Loaders:
    """Where batches come from and how they are prepared.

    Args:
        train: loader with `set_epoch(epoch, skip_batches=)` and a length.
        test: loader that gives this rank's share of the test samples.
        to_device: brings a batch to the device.
        mixer: mixes training samples; None for none.
        mixing_ends: epoch from which nothing is mixed; 0 for never.
    """

    train: Any
    test: Any
    to_device: ToDevice
    mixer: Mixer | None = None
    mixing_ends: int = 0

    def mixer_of(self, epoch: int) -> Mixer | None:
        """Return the mixer of an epoch; without it the criterion smooths the labels as the mixer did."""
        return None if self.mixing_ends and epoch >= self.mixing_ends else self.mixer


def _workers(data: DataOptions, ranks: Ranks) -> int:
    """Return the number of loading processes of one rank."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores // ranks.world_size) if data.workers is None else data.workers


def build_data(options: Options, shape: Shape, ranks: Ranks) -> DataBundle:
    """Read the data set, and build its cache with as many processes as will load it.

    Raises:
        UserError: when the class count asked for is not the data's.
    """
    raise_all(list(source_problems(options)))  # options from a program, which no command line has checked
    data = options.data
    given = {name: getattr(data, name) for name in _PASSED} | {
        "step": shape.step,
        "size": shape.size,
        "use_cache": not data.no_cache,
        "workers": _workers(data, ranks),
        "resize": data.event_resize,
        "augment": Augment(**{one.name: options.value(one.name) for one in fields(Augment)}),
        "normalize": options.model.encode == "direct",  # the other codes read intensities from 0 to 1
        "source": _source(data),
        "needs_train": not evaluates(options),
    }
    bundle = build_datasets(data.dataset, data.data_dir, **given)
    if data.num_classes not in (None, bundle.num_classes):
        raise UserError(
            f"--num-classes {data.num_classes} does not match the data: {data.dataset} has {bundle.num_classes} "
            "classes; leave the option out."
        )
    for part, dataset in (("training", bundle.train), ("test", bundle.test)):
        if not len(dataset) and not (part == "training" and evaluates(options)):
            raise UserError(f"--dataset {data.dataset}: its {part} part is empty; check --data-dir {data.data_dir}.")
    return bundle


def _source(data: DataOptions) -> Source | None:
    if not data.dataset_source:
        return None
    names = [one.name for one in fields(Source) if one.name not in ("name", "root")]
    return Source(name=data.dataset_source, root=data.data_dir, **{name: getattr(data, name) for name in names})


def build_loaders(
    options: Options, bundle: DataBundle, shape: Shape, ranks: Ranks, *, test_batch: int | None = None
) -> Loaders:
    """Build the loaders of both parts, and the mixing; `train` is None where an evaluation has no training data.

    Args:
        options: of the run.
        bundle: the data.
        shape: of the network's input and output.
        ranks: the processes of the run.
        test_batch: test samples in a batch, where the options don't say it.

    Raises:
        UserError: for a batch size that leaves no whole batch, or that can't be mixed.
    """
    data, cuda = options.data, ranks.device.type == "cuda"
    shared = {
        "seed": options.run.seed, "workers": _workers(data, ranks), "rank": ranks.rank, "world_size": ranks.world_size,
        "pin_memory": data.pin_mem and cuda, "persistent_workers": data.use_multi_epochs_loader,
    }  # fmt: skip

    def prefetched(loader: Any) -> Any:
        return Prefetcher(loader, ranks.device) if cuda and not data.no_prefetcher else loader

    test_batch = test_batch or data.batch_size * data.validation_batch_size_multiplier
    test = make_loader(bundle.test, batch_size=test_batch, train=False, drop_last=False, **shared)
    train = None
    if len(bundle.train):
        rules = {"batch_size": data.batch_size, "drop_last": True, "repeats": max(1, options.aug.aug_repeats)}
        train = make_loader(bundle.train, train=True, **rules, **shared)
        if not len(train):
            raise UserError(
                f"--batch-size {data.batch_size} on {ranks.world_size} processes leaves no whole batch of the "
                f"{len(bundle.train)} training samples; lower it."
            )
        train = prefetched(train)
    to_device = ToDevice(ranks.device, options.train.channels_last, options.model.temporal_flatten)
    return Loaders(train, prefetched(test), to_device, _mixer(options, shape), options.mix.mixup_off_epoch)


@dataclass(frozen=True)
class ImageMixer:
    """Mix by timm's `Mixup`; all frames of an event sample are mixed alike.

    Args:
        mixup: timm's mixer; it draws from NumPy's global generator.
    """

    mixup: Mixup

    def __call__(self, x: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        # timm pairs samples from both ends, in place: an odd one is left out, and the loader's batch stays as it is
        pairs = len(x) - len(x) % 2 if len(x) > 1 else 0
        if not pairs:
            return x, soft_labels(target, num_classes=self.mixup.num_classes, smoothing=self.mixup.label_smoothing)
        x = x[:pairs].clone()
        frames = x.flatten(1, 2) if x.ndim == 5 else x
        frames, soft = self.mixup(frames, target[:pairs])
        return frames.view_as(x), soft


@dataclass(frozen=True)
class EventMixer:
    """Mix event frames on smoothed targets, by one mixer after the other.

    Args:
        mixers: each takes frames `(B, T, P, H, W)`, distributions `(B, K)` and a generator, and returns both mixed.
        num_classes: number of classes K.
        smoothing: label smoothing.
    """

    mixers: Sequence[Mixer]
    num_classes: int
    smoothing: float = 0.0

    def __call__(self, x: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        soft = soft_labels(target, num_classes=self.num_classes, smoothing=self.smoothing)
        for mixer in self.mixers:
            x, soft = mixer(x, soft, generator)
        return x, soft


def _mixer(options: Options, shape: Shape) -> Mixer | None:
    """Return what mixes training samples, or None."""
    mix, batch_size, num_classes = options.mix, options.data.batch_size, shape.num_classes
    smoothing = options.train.smoothing
    if mix.mixup or mix.cutmix or mix.cutmix_minmax:
        if batch_size % 2:
            raise UserError(f"--mixup and --cutmix pair samples: --batch-size {batch_size} must be even.")
        least, most = mix.cutmix_minmax or (0, 1)
        if any(int(side * least) >= int(side * most) for side in shape.size):
            sides = "x".join(map(str, shape.size))
            raise UserError(f"--cutmix-minmax {least} {most}: no box of whole pixels in {sides}; widen the range.")
        mixup = Mixup(
            mix.mixup, mix.cutmix, mix.cutmix_minmax, prob=mix.mixup_prob, switch_prob=mix.mixup_switch_prob,
            mode=mix.mixup_mode, label_smoothing=smoothing, num_classes=num_classes,
        )  # fmt: skip
        return ImageMixer(mixup)
    rules = {"beta": mix.cutmix_beta, "prob": mix.cutmix_prob, "rounds": mix.cutmix_num, "noise": mix.cutmix_noise}
    kinds = (MixUp, mix.mix_up), (CutMix, mix.cut_mix), (partial(EventMix, components=mix.gaussian_n), mix.event_mix)
    mixers = [kind(num_classes, **rules) for kind, wanted in kinds if wanted]
    return EventMixer(mixers, num_classes=num_classes, smoothing=smoothing) if mixers else None
