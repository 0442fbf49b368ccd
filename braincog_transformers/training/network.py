"""The network of a run: its input and output follow from the data set, its weights from a file or the options."""

import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import timm
import torch
from torch import nn

from ..checkpoints import load_content, read_checkpoint
from ..data import DatasetInfo
from ..data.build import DataBundle
from ..data.events.frames import event_channels
from ..data.registry import lookup
from ..errors import UserError, listed, shown, unknown
from ..models.base import Masking, SpikingTransformer
from ..models.masked import MaskedAutoencoder
from ..models.registry import REGISTERED
from ..recipe import Options, keywords
from ..recipe.groups import ModelOptions
from .class_names import compare_classes
from .distributed import Ranks

__all__ = ["Shape", "build_network", "create_backbone", "evaluates", "find_shape", "own_figures", "tune_batch_norm"]


def own_figures(network: nn.Module) -> dict[str, float]:
    """Return what a network of this package says of itself beside loss and accuracy."""
    return network.figures() if isinstance(network, SpikingTransformer) else {}


def evaluates(options: Options) -> bool:
    """Say whether a run only looks at test data, so that there need not be any for training."""
    run, look = options.run, options.analysis
    if options.convert.convert and not run.eval_checkpoint:
        return False
    return bool(run.eval or run.eval_checkpoint or look.analyze or look.audit)


@dataclass(frozen=True)
class Shape:
    """Input and output of a network, which follow from data set and options.

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


def _create(
    options: Options, shape: Shape, *, step: int | None, pretrained: bool = False, **of_task: Any
) -> nn.Module:
    model, pretrain = options.model, _masking(options).arguments if options.train.pretrain else {}
    chosen = {
        **_input_arguments(options, shape),
        "pretrained": pretrained,
        "num_classes": 0 if options.train.pretrain else shape.num_classes,
        "step": 1 if model.temporal_flatten else step,
        "encode_type": model.encode if model.encode != "direct" else None,
        "drop_rate": model.drop,
        "drop_path_rate": model.drop_path,
        **asdict(options.neuron),
        "as_released": model.as_released and not options.train.pretrain,
        "distilled": model.distilled,
        **pretrain,
        **of_task,
    }
    given = {name: value for name, value in chosen.items() if value is not None and value is not False}
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
        problem = f"--model {model.model} cannot be built for {shape.info.name}: {shown(error)}{way_out}"
        raise UserError(problem) from error
    except Exception as error:  # of any kind: what a constructor makes of values that it doesn't check
        if not further:
            raise
        given, cause = shown(" ".join(model.model_kwargs), 150), f"{type(error).__name__}: {shown(error, 150)}"
        raise UserError(f"--model-kwargs {given}: the network can't be built ({cause})") from error


def create_backbone(options: Options, shape: Shape, bundle: DataBundle, **further: Any) -> nn.Module:
    """Build a network of the zoo for a task other than classification, with the options of the run.

    Args:
        options: of the run.
        shape: of its input.
        bundle: the data, whose samples say the channels.
        **further: arguments of the network's constructor, as `features_only=True`.

    Raises:
        UserError: for a name that no network of the zoo has, or an option that this network does not have.
    """
    name = options.model.model
    if name.partition(".")[0] not in REGISTERED:
        raise unknown("network of the zoo", name, REGISTERED)
    given = {"in_chans": bundle.input_shape[-3], "num_classes": 0} | further
    network = _create(options, shape, step=options.model.step, pretrained=options.model.pretrained, **given)
    for inner in (module for module in network.modules() if isinstance(module, SpikingTransformer)):
        inner.pack_spikes = options.model.pack_spikes
        inner.set_attr("integer_products", options.model.integer_products)
        inner.set_grad_checkpointing(options.model.grad_checkpointing)
    return network


def _masking(options: Options) -> Masking:
    """Return how the network is pre-trained on masked pictures.

    Raises:
        UserError: for a network that can't be.
    """
    name, pretrain = options.model.model, options.train.pretrain
    by_name = {name: getattr(entry.cls, "masking", None) for name, entry in REGISTERED.items()}
    masking = by_name.get(name.partition(".")[0])
    if masking is None:
        known = sorted(other for other, found in by_name.items() if found)
        raise UserError(f"--pretrain {pretrain}: {name} can't be pre-trained so; {listed(known, 20)} can")
    if options.model.as_released and not masking.has_code:
        raise UserError(f"--as-released: no code that pre-trains {name} was released; leave the option out")
    return masking


def _unknown_argument(options: Options, shape: Shape, error: TypeError) -> UserError:
    """Say which option asked for an argument that the network's class does not have."""
    name, found = options.model.model, re.search(r"unexpected (?:keyword )?argument '?(\w+)", str(error))
    argument = found[1] if found else ""
    lacking = {"as_released": "fault of released code to keep", "distilled": "distillation head"}
    if argument in lacking:
        option = argument.replace("_", "-")
        return UserError(f"--{option}: {name} has no {lacking[argument]}; leave the option out.")
    if argument in keywords(options.model.model_kwargs):
        classes = [cls for cls in REGISTERED[name].cls.__mro__ if issubclass(cls, SpikingTransformer)]
        parameters = [one for cls in classes for one in inspect.signature(cls.__init__).parameters.values()]
        known = {one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)} - {"self"}
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
        with_time = replace(options, model=replace(options.model, temporal_flatten=False))  # asked for its own steps
        probe = _create(with_time, shape, step=step)
    return replace(shape, step=step or int(probe.step))


def tune_batch_norm(network: nn.Module, model: ModelOptions) -> None:
    """Set momentum and epsilon, each by its own option or else by --bn-tf, which means timm's values for TensorFlow."""
    values = {"momentum": 0.01, "eps": 1e-3} if model.bn_tf else {}
    asked = {"momentum": model.bn_momentum, "eps": model.bn_eps}
    values |= {name: value for name, value in asked.items() if value is not None}
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name, value in values.items():
                setattr(module, name, value)


def build_network(
    options: Options, shape: Shape, ranks: Ranks, *, say: Callable[[str], object], classes: Sequence[str] = ()
) -> nn.Module:
    """Build the network on its device, with the weights that it starts from.

    Args:
        options: of the run.
        shape: of its input and output.
        ranks: the processes of the run.
        say: prints a line, here what was loaded.
        classes: names of the data's classes, which those of a checkpoint are compared with; none to leave that.

    Raises:
        UserError: for an option that this network does not have, or a checkpoint that does not fit it.
    """
    model, train = options.model, options.train
    network = _create(options, shape, step=shape.step, pretrained=model.pretrained)
    if status := getattr(network, "status", ""):
        say(f"{model.model}: {status}, its authors released no code; docs/reconstructions.md says what it rests on")
    if model.rand_step and (reason := getattr(network, "joins_steps", "")):
        raise UserError(f"--rand-step: {model.model} keeps its number of steps, because {reason}; leave it out.")
    if model.initial_checkpoint:
        path, content = model.initial_checkpoint, read_checkpoint(model.initial_checkpoint)
        replaces = not (options.run.eval or options.run.eval_checkpoint)
        say(load_content(network, content, path, ema=options.run.use_ema, replace_classifier=replaces))
        compare_classes(content, path, classes, options.data, refuses=evaluates(options), say=say)
    if not model.layer_by_layer:
        network.set_attr("layer_by_layer", False)
    network.pack_spikes = model.pack_spikes
    network.set_attr("integer_products", model.integer_products)
    if model.grad_checkpointing:
        network.set_grad_checkpointing(True)
    if train.pretrain:
        sizes = {name: getattr(train, name) for name in ("mask_ratio", "decoder_dim", "decoder_depth", "decoder_heads")}
        network = MaskedAutoencoder(network, **sizes, as_released=model.as_released)
    tune_batch_norm(network, model)
    network.to(ranks.device)
    return network.to(memory_format=torch.channels_last) if train.channels_last else network
