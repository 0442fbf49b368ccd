"""Build network, data, mixers and losses of a run from its options; what they leave open the data set decides."""

import inspect
import os
import re
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from timm.data import Mixup
from torch import nn

from ..checkpoints import load_checkpoint
from ..data import DatasetInfo
from ..data.build import Augment, DataBundle, build_datasets
from ..data.events.frames import event_channels
from ..data.events.mixing import CutMix, EventMix, MixUp
from ..data.loading.loader import make_loader
from ..data.pictures.sources import Source
from ..data.registry import lookup
from ..errors import UserError, shown, unknown
from ..models.base import SpikingTransformer
from ..models.registry import REGISTERED
from ..recipe import Options, keywords
from .distributed import Ranks
from .learner import Place
from .losses import Distillation, build_loss
from .mixers import EventMixer, ImageMixer
from .prefetch import Ahead
from .step import Mixer

__all__ = [
    "Shape",
    "build_data",
    "build_loaders",
    "build_losses",
    "build_mixer",
    "build_network",
    "check_batch",
    "evaluates",
    "find_shape",
]


@dataclass(frozen=True)
class Shape:
    """What the data set and the options make of the network's two ends.

    Args:
        info: the data set.
        size: height and width of the input.
        step: number of time steps T.
        num_classes: classes K of the head.
    """

    info: DatasetInfo
    size: tuple[int, int]
    step: int
    num_classes: int


def _input_arguments(options: Options, shape: Shape) -> dict[str, Any]:
    """Return the network's arguments for channels and size; a network of sequences has neither."""
    if shape.info.kind == "sequence":
        return {}
    data, chans = options.data, shape.info.in_chans
    if shape.info.kind == "event":
        chans = event_channels(data.frames, merge=data.merge_polarity, appended=data.polarity_sum)
    return {
        "in_chans": chans * (shape.step if options.model.temporal_flatten else 1),
        "img_size": shape.size[0] if shape.size[0] == shape.size[1] else shape.size,
    }


def _create(options: Options, shape: Shape, *, step: int | None, pretrained: bool = False) -> nn.Module:
    model, neuron = options.model, options.neuron
    chosen = {
        **_input_arguments(options, shape),
        "pretrained": pretrained or None,
        "num_classes": shape.num_classes,
        "step": 1 if model.temporal_flatten else step,
        "encode_type": model.encode if model.encode != "direct" else None,
        "drop_rate": model.drop,
        "drop_path_rate": model.drop_path,
        "node_type": neuron.node_type,
        "act_fun": neuron.act_fun,
        "alpha": neuron.alpha,
        "threshold": neuron.threshold,
        "tau": neuron.tau,
        "requires_thres_grad": neuron.requires_thres_grad or None,
        "sigmoid_thres": neuron.sigmoid_thres or None,
        "as_released": model.as_released or None,
        "distilled": model.distilled or None,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    further = keywords(model.model_kwargs)
    if twice := sorted(further.keys() & chosen.keys()):
        raise UserError(f"--model-kwargs {twice[0]}: an option of its own sets this argument; use that.")
    try:
        return timm.create_model(model.model, **given, **further)
    except TypeError as error:
        raise _unknown_argument(options, shape, error) from error
    except (ValueError, NotImplementedError) as error:
        side = "--event-size" if shape.info.kind == "event" else "--img-size"
        way_out = f"; {side} sets the size" if "img_size" in str(error) else ""
        told = f"{shown(error)}{way_out}"
        raise UserError(f"--model {model.model} cannot be built for {shape.info.name}: {told}") from error
    except Exception as error:  # of any kind: what a constructor makes of values that it doesn't check
        if not further:
            raise
        given, told = shown(" ".join(model.model_kwargs), 150), f"{type(error).__name__}: {shown(error, 150)}"
        raise UserError(f"--model-kwargs {given}: the network can't be built ({told})") from error


def _unknown_argument(options: Options, shape: Shape, error: TypeError) -> UserError:
    """Say which option asked for an argument that the network's class does not have."""
    name, found = options.model.model, re.search(r"unexpected (?:keyword )?argument '?(\w+)", str(error))
    argument = found[1] if found else ""
    if argument == "as_released":
        return UserError(f"--as-released: {name} has no fault of released code to keep; leave the option out.")
    if argument == "distilled":
        return UserError(f"--distilled: {name} has no distillation head; leave the option out.")
    if argument in keywords(options.model.model_kwargs):
        classes = [cls for cls in REGISTERED[name].cls.__mro__ if issubclass(cls, SpikingTransformer)]
        known = {parameter for cls in classes for parameter in inspect.signature(cls).parameters}
        return unknown(f"argument of {name} in --model-kwargs", argument, known)
    return UserError(f"--model {name} cannot be built for {shape.info.name}: {shown(error)}")


def _default_size(model: str, info: DatasetInfo) -> tuple[int, int]:
    """Return the size of images as the data set has it; event frames are shrunk to the network's own size."""
    own = timm.get_pretrained_cfg(model)
    if info.kind != "event" or own is None:
        return info.size
    return min(info.size, tuple(own.input_size[-2:]))


def _check_kind(model: str, info: DatasetInfo, step: int | None) -> None:
    """Refuse a network of sequences, which have a height of 1, for images and events, and the other way round."""
    own = timm.get_pretrained_cfg(model)
    if own is not None and (own.input_size[1] == 1) != (info.kind == "sequence"):
        takes = " x ".join(map(str, own.input_size))
        raise UserError(f"--model {model} takes {takes}, and {info.name} holds {info.kind} data; {_fitting(info)}")
    if own is not None and info.kind == "sequence" and own.input_size[2] != info.size[1]:
        raise UserError(
            f"--model {model} takes sequences of {own.input_size[2]} channels, and those of {info.name} have "
            f"{info.size[1]}; {_fitting(info)}"
        )
    if info.length and step not in (None, info.length):
        raise UserError(f"--step {step}: {info.name} has one step for each of {info.length} pixels; leave it out")


def _fitting(info: DatasetInfo) -> str:
    """Say which networks take the sequences of a data set."""
    if info.kind != "sequence":
        return "see --list-models"
    sizes = {name: timm.get_pretrained_cfg(name).input_size for name in REGISTERED}
    fitting = [name for name, size in sizes.items() if size[1:] == (1, info.size[1])]
    return f"choose {' or '.join(fitting[:3])}" if fitting else "no network of this package takes such sequences yet"


def _with_time(options: Options) -> Options:
    """Return the options without folding of time, to ask a network for its own number of steps."""
    return replace(options, model=replace(options.model, temporal_flatten=False))


def find_shape(options: Options) -> Shape:
    """Resolve input size, steps and classes before any data are read.

    Raises:
        UserError: when the network does not take this input.
    """
    info = lookup(options.data.dataset)
    _check_kind(options.model.model, info, options.model.step)
    side = options.data.event_size if info.kind == "event" else options.data.img_size
    size = _default_size(options.model.model, info) if side is None else (side, side)
    step = options.model.step or info.length
    shape = Shape(info=info, size=size, step=step or 1, num_classes=info.num_classes)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe = _create(_with_time(options), shape, step=step)
    return replace(shape, step=step or int(probe.step))


def evaluates(options: Options) -> bool:
    """Say whether a run only looks at test data, so that there need not be any for training."""
    run, look = options.run, options.analysis
    return bool(run.eval or run.eval_checkpoint or look.analyze or look.audit)


def _workers(options: Options, ranks: Ranks) -> int:
    """Return the number of loading processes of one rank."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores // ranks.world_size) if options.data.workers is None else options.data.workers


def build_data(options: Options, shape: Shape, ranks: Ranks) -> DataBundle:
    """Read the data set, and build its cache with as many processes as will load it.

    Raises:
        UserError: when the class count asked for is not the data's.
    """
    data = options.data
    names = Augment.__dataclass_fields__
    given = {name: options.value(name) for name in names if name not in ("interpolation", "crop_pct")}
    augment = Augment(**given, interpolation=data.interpolation or None, crop_pct=data.crop_pct)
    bundle = build_datasets(
        data.dataset,
        data.data_dir,
        step=shape.step,
        size=shape.size,
        mean=data.mean,
        std=data.std,
        download=data.download,
        cache_dir=data.cache_dir,
        use_cache=not data.no_cache,
        workers=_workers(options, ranks),
        skip_bad=data.skip_bad,
        train_portion=data.train_portion,
        split=data.split,
        split_seed=data.split_seed,
        frames_by=data.frames_by,
        remainder=data.remainder,
        frames=data.frames,
        surface_tau=data.surface_tau,
        clip_counts=data.clip_counts,
        resize=data.event_resize,
        frame_norm=data.frame_norm,
        merge_polarity=data.merge_polarity,
        polarity_sum=data.polarity_sum,
        label_order=data.label_order,
        augment=augment,
        normalize=options.model.encode == "direct",  # the other codes read intensities from 0 to 1
        source=_source(options),
        num_classes=data.num_classes,
        max_pixels=data.max_pixels,
        needs_train=not evaluates(options),
    )
    if data.num_classes not in (None, bundle.num_classes):
        raise UserError(
            f"--num-classes {data.num_classes} does not match the data: {data.dataset} has {bundle.num_classes} "
            "classes; leave the option out."
        )
    for part, dataset in (("training", bundle.train), ("test", bundle.test)):
        if not len(dataset) and not (part == "training" and evaluates(options)):
            raise UserError(f"--dataset {data.dataset}: its {part} part is empty; check --data-dir {data.data_dir}.")
    return bundle


def _source(options: Options) -> Source | None:
    data = options.data
    if not data.dataset_source:
        return None
    names = ("train_split", "val_split", "train_num_samples", "val_num_samples", "class_map", "input_key", "target_key")
    given = {name: getattr(data, name) for name in (*names, "download")}
    return Source(name=data.dataset_source, root=data.data_dir, **given)


def build_loaders(options: Options, bundle: DataBundle, ranks: Ranks) -> tuple[Any, Any]:
    """Return the loaders of training and evaluation; None for the former where an evaluation has no training data."""
    data = options.data
    shared = {
        "seed": options.run.seed,
        "workers": _workers(options, ranks),
        "rank": ranks.rank,
        "world_size": ranks.world_size,
        "pin_memory": data.pin_mem and ranks.device.type == "cuda",
        "persistent_workers": data.use_multi_epochs_loader,
    }
    test_batch = data.batch_size * data.validation_batch_size_multiplier
    repeats = max(1, options.aug.aug_repeats)
    test = make_loader(bundle.test, batch_size=test_batch, train=False, drop_last=False, **shared)
    ahead = ranks.device.type == "cuda" and not data.no_prefetcher
    if not len(bundle.train):
        return None, Ahead(test, ranks.device) if ahead else test
    train = make_loader(bundle.train, batch_size=data.batch_size, train=True, drop_last=True, repeats=repeats, **shared)
    if not len(train):
        raise UserError(
            f"--batch-size {data.batch_size} on {ranks.world_size} processes leaves no whole batch of the "
            f"{len(bundle.train)} training samples; lower it."
        )
    if ahead:
        return Ahead(train, ranks.device), Ahead(test, ranks.device)
    return train, test


def _tune_batch_norm(network: nn.Module, *, momentum: float | None, eps: float | None) -> None:
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = module.momentum if momentum is None else momentum
            module.eps = module.eps if eps is None else eps


def build_network(options: Options, shape: Shape, ranks: Ranks, *, say: Callable[[str], object]) -> nn.Module:
    """Build the network on its device, with the weights that it starts from.

    Args:
        options: of the run.
        shape: what data set and options make of the network's ends.
        ranks: the processes of the run.
        say: is told what was loaded.

    Raises:
        UserError: for an option that this network does not have.
    """
    model, train = options.model, options.train
    network = _create(options, shape, step=shape.step, pretrained=model.pretrained)
    if model.initial_checkpoint:
        evaluates = options.run.eval or options.run.eval_checkpoint
        path, ema = model.initial_checkpoint, options.run.use_ema
        say(load_checkpoint(network, path, ema=ema, replace_classifier=not evaluates))
    # TensorFlow's values, as timm has them; the options by name win
    momentum = 0.01 if model.bn_tf and model.bn_momentum is None else model.bn_momentum
    eps = 1e-3 if model.bn_tf and model.bn_eps is None else model.bn_eps
    _tune_batch_norm(network, momentum=momentum, eps=eps)
    if not model.layer_by_layer:
        network.set_attr("layer_by_layer", False)
    network.pack_spikes = model.pack_spikes
    network.set_attr("integer_products", model.integer_products)
    if model.grad_checkpointing:
        network.set_grad_checkpointing(True)
    network.to(ranks.device)
    return network.to(memory_format=torch.channels_last) if train.channels_last else network


def check_batch(options: Options, bundle: DataBundle, network: nn.Module, place: Place, ranks: Ranks) -> None:
    """Refuse a batch of one where a normalisation would have a single value to go by.

    Raises:
        UserError: with the smallest batch that trains.
    """
    smallest = min(options.data.batch_size, len(bundle.train) // ranks.world_size)
    if smallest > 1 or (options.train.sync_bn and ranks.world_size > 1):
        return
    probe = deepcopy(network).to("meta").train()
    x, _ = place(torch.zeros(1, *bundle.input_shape), torch.zeros(1))
    try:
        with torch.no_grad():
            probe(x.to("meta"))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"--batch-size 1: {options.model.model} normalises over the samples of a batch and can't train on one "
            "alone; give 2 or more (--grad-accum does not help)."
        ) from None


def build_losses(options: Options) -> tuple[nn.Module, nn.Module]:
    """Return the losses of training and of evaluation; the latter knows no smoothing and no steps."""
    train = options.train
    training = build_loss(
        train.loss_fn,
        smoothing=train.smoothing,
        tet=train.tet_loss,
        tet_weight=train.tet_lambda,
        tet_mean=train.tet_means,
    )
    if train.teacher:
        training = Distillation(training, kind=train.distill, alpha=train.distill_alpha, tau=train.distill_tau)
    return training, build_loss(train.loss_fn)


def build_mixer(options: Options, *, num_classes: int, size: tuple[int, int]) -> Mixer | None:
    """Return what mixes training samples of a height and width, or None."""
    mix, smoothing = options.mix, options.train.smoothing
    if mix.mixup or mix.cutmix or mix.cutmix_minmax:
        if options.data.batch_size % 2:
            raise UserError(f"--mixup and --cutmix pair samples: --batch-size {options.data.batch_size} must be even.")
        least, most = mix.cutmix_minmax or (0, 1)
        if any(int(side * least) >= int(side * most) for side in size):
            sides = "x".join(map(str, size))
            raise UserError(f"--cutmix-minmax {least} {most}: no box of whole pixels in {sides}; widen the range.")
        mixup = Mixup(
            mixup_alpha=mix.mixup,
            cutmix_alpha=mix.cutmix,
            cutmix_minmax=mix.cutmix_minmax,
            prob=mix.mixup_prob,
            switch_prob=mix.mixup_switch_prob,
            mode=mix.mixup_mode,
            label_smoothing=smoothing,
            num_classes=num_classes,
        )
        return ImageMixer(mixup)
    mixers = _event_mixers(options, num_classes)
    return EventMixer(mixers, num_classes=num_classes, smoothing=smoothing) if mixers else None


def _event_mixers(options: Options, num_classes: int) -> list[Mixer]:
    mix = options.mix
    rules = {
        "beta": mix.cutmix_beta,
        "prob": mix.cutmix_prob,
        "rounds": mix.cutmix_num,
        "noise": mix.cutmix_noise,
    }
    mixers = [MixUp(num_classes, **rules)] if mix.mix_up else []
    mixers += [CutMix(num_classes, **rules)] if mix.cut_mix else []
    mixers += [EventMix(num_classes, components=mix.gaussian_n, **rules)] if mix.event_mix else []
    return mixers
