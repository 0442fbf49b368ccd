"""What a conversion starts from: an ordinary network, timm's or one of `conversion.SOURCES`, and its weights."""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from braincog.base.node.node import BaseNode
from timm.models import get_pretrained_cfg, is_model, model_entrypoint
from torch import Tensor, nn

from ..checkpoints import find_weights, load_state, read_checkpoint
from ..checkpoints.loading import convert_official
from ..conversion import SOURCES, is_converted, prepare
from ..data.registry import DatasetInfo, PictureSet, lookup
from ..errors import UserError, shown
from ..models.registry import REGISTERED
from ..models.timm_networks import find_timm, list_timm
from ..recipe import Options, arguments, keywords
from .class_names import compare_classes
from .distributed import Ranks
from .method import method_of
from .network import Shape, tune_batch_norm

__all__ = ["Start", "build_start", "find_source", "source_shape"]

STEPS = 32
"""T where --step is left out, but for networks that drain, which need about two steps for each level."""


@dataclass(frozen=True)
class Start:
    """What a conversion starts from, on its device.

    Args:
        network: the ordinary network.
        limit: the prepared network that the named file holds, with its weights; None for a file of the ordinary one.
        trained: whether the weights of the ordinary network are trained ones.
        kwargs: arguments with which timm builds it.
    """

    network: nn.Module
    limit: nn.Module | None
    trained: bool
    kwargs: dict[str, Any]


def find_source(name: str, method: str) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """Return the function that builds a network to convert, and arguments that it needs.

    Args:
        name: of timm's, with a dot and a tag where other weights than the default ones are meant; of `SOURCES`; or one
            that a plugin has registered with timm.
        method: that will convert it.

    Raises:
        UserError: for an unknown name, a network that spikes, or a source of another method.
    """
    base = name.partition(".")[0]
    if base in REGISTERED:
        raise UserError(_spiking(base, method))
    if base in SOURCES and SOURCES[base].method != method:
        raise UserError(f"--convert {method}: {base} is the network of --convert {SOURCES[base].method}; use that")
    if base in list_timm() or not is_model(base):
        build, config = find_timm(name)
    else:
        build, config = model_entrypoint(base), get_pretrained_cfg(name)
        if build.__module__.startswith("braincog."):
            raise UserError(_spiking(base, method))
    return build, {} if config is None else {"pretrained_cfg": config}


def _spiking(name: str, method: str) -> str:
    return f"--convert {method}: {name} spikes already, so there is nothing to convert; name an ordinary network"


def source_shape(options: Options) -> Shape:
    """Resolve input size, T and classes before any data are read, and try the method's options and the network.

    Raises:
        UserError: for an option of the method, or a network, that can't be had.
    """
    if options.run.eval_checkpoint:
        raise UserError(
            f"--eval_checkpoint {shown(options.run.eval_checkpoint)} is no converted network; --initial-checkpoint "
            "names weights to convert"
        )
    method, given = method_of(options)
    chosen = method.chosen(given)
    info, name, side = lookup(options.data.dataset), options.model.model, options.data.img_size
    _, configured = find_source(name, method.name)
    if side is None and info.size == PictureSet.size and configured:
        size = tuple(configured["pretrained_cfg"].input_size[-2:])  # photos have no size of their own
    else:
        size = info.size if side is None else (side, side)
    steps = 2 * chosen.levels if method.name == "spikezip" else STEPS
    shape = Shape(info=info, size=size, step=options.model.step or steps, num_classes=info.num_classes)
    with torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe, _ = _create(options, shape)
        if any(isinstance(module, BaseNode) for module in probe.modules()):
            raise UserError(_spiking(name, method.name))
        _require_classifier(probe.eval(), name, shape)
    return shape


def _require_classifier(probe: nn.Module, name: str, shape: Shape) -> None:
    """Refuse a network that does not map an image of the data to the logits of its classes."""
    sides = "x".join(map(str, (shape.info.in_chans, *shape.size)))
    try:
        out = probe(torch.zeros(1, shape.info.in_chans, *shape.size))
    except Exception as error:  # of any kind: whatever an input of another size makes of a network
        raise UserError(f"--model {name} does not take images of {sides}: {shown(error, 200)}") from error
    found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if found != (1, shape.num_classes):
        raise UserError(
            f"--model {name} is no classifier: it answers {found} for an image of {sides}; needed are "
            f"(1, {shape.num_classes})"
        )


def _create(options: Options, shape: Shape, *, published: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """Build the source, and return it with the arguments that build it with timm."""
    model = options.model
    build, configured = find_source(model.model, options.convert.convert)
    further = keywords(model.model_kwargs)
    chosen = {"num_classes": shape.num_classes, "in_chans": shape.info.in_chans}
    chosen |= {"drop_rate": model.drop, "drop_path_rate": model.drop_path}
    if twice := sorted(further.keys() & {*chosen, "img_size"}):
        raise UserError(f"--model-kwargs {twice[0]}: an option of its own sets this argument; use that")
    kwargs = {name: value for name, value in chosen.items() if value is not None} | further
    sized = kwargs | {"img_size": shape.size[0] if shape.size[0] == shape.size[1] else shape.size}
    configured = configured | {"pretrained": True} if published else configured
    try:
        try:
            return build(**configured, **sized), sized
        except TypeError as error:
            if "img_size" not in str(error):  # most convolutional networks take images of any size
                raise
            return build(**configured, **kwargs), kwargs
    except Exception as error:  # of any kind: of the hub, or what a constructor makes of values that it doesn't check
        why = f"{type(error).__name__}: {shown(error, 200)}"
        if published:
            remedy = "give a file with --initial-checkpoint"
            raise UserError(f"--pretrained: {model.model} with its weights can't be had ({why}); {remedy}") from error
        given = f"; --model-kwargs {shown(' '.join(model.model_kwargs), 150)}" if further else ""
        sides = "x".join(map(str, shape.size))
        raise UserError(f"--model {model.model} can't be built for images of {sides}: {why}{given}") from error


def build_start(
    options: Options, shape: Shape, ranks: Ranks, *, say: Callable[[str], object], classes: Sequence[str]
) -> Start:
    """Build the network to convert, with its weights.

    Args:
        options: of the run.
        shape: of its input and output.
        ranks: the processes of the run.
        say: prints a line, here what was loaded.
        classes: names of the data's classes, which those of a checkpoint are compared with.

    Raises:
        UserError: for weights that can't be had or don't fit, or a network that the method can't convert.
    """
    model, trains = options.model, not options.convert.calibrate_only and method_of(options)[0].trains
    if model.pretrained:
        _require_same_ends(options, shape, trains)
    network, kwargs = _create(options, shape, published=model.pretrained)
    tune_batch_norm(network, model)
    held = None
    if path := model.initial_checkpoint:
        if is_converted(path):
            raise UserError(f"--initial-checkpoint {shown(path)} is converted already; --eval_checkpoint evaluates it")
        content = read_checkpoint(path)
        held = _load(network, content, path, options, new_classifier=trains, say=say)
        compare_classes(content, path, classes, options.data, refuses=not trains, say=say)
    elif model.pretrained:
        say(f"{model.model}: weights {network.pretrained_cfg.get('tag') or ''} of timm")
    elif not options.run.resume:
        say(f"{model.model} starts from random weights: no --initial-checkpoint and no --pretrained is given")
    if path or model.pretrained:
        _say_colours(network, options, shape.info, say)
    layout = torch.channels_last if options.train.channels_last else torch.preserve_format
    placed = (one if one is None else one.to(ranks.device).to(memory_format=layout) for one in (network, held))
    return Start(*placed, trained=bool(path or model.pretrained) and held is None, kwargs=kwargs)


def _require_same_ends(options: Options, shape: Shape, trains: bool) -> None:
    """Refuse published weights whose classifier is of other classes, unless a new one is trained."""
    _, configured = find_source(options.model.model, options.convert.convert)
    known = configured["pretrained_cfg"].num_classes if configured else shape.num_classes
    if known != shape.num_classes and not trains:
        raise UserError(
            f"--pretrained: the published weights of {options.model.model} know {known} classes, and the data have "
            f"{shape.num_classes}; train the network on them and give it with --initial-checkpoint"
        )


def _load(
    network: nn.Module, content: Mapping[str, Any], path: str, options: Options, *, new_classifier: bool,
    say: Callable[[str], object],
) -> nn.Module | None:  # fmt: skip
    """Load a file into the network; or into its prepared form, if it holds that, which is returned then."""
    held, about, own = None, content.get("options"), options.convert.convert
    goal = about.get("convert") if isinstance(about, Mapping) else None
    if goal not in (None, "", own):
        raise UserError(f"--initial-checkpoint {shown(path)} was trained for --convert {shown(goal)}, not for {own}")
    try:
        weights = find_weights(content, ema=options.run.use_ema)
        if options.model.model.partition(".")[0] in SOURCES:
            held = _prepared(network, weights.state, options)
        if held is None:
            state, notes = _translated(network, weights.state), ""
            if new_classifier:
                state, notes = _with_own_classifier(network, state)
            try:
                said = load_state(network, state) + notes
            except UserError:
                if (held := _prepared(network, weights.state, options)) is None:
                    raise
        if held is not None:
            said = load_state(held, weights.state)
    except UserError as error:
        raise UserError(f"--initial-checkpoint {shown(path)}: {error}") from error
    say(f"{said} from {shown(path)}: {weights.description}")
    return held


def _prepared(network: nn.Module, state: Mapping[str, Tensor], options: Options) -> nn.Module | None:
    """Return the prepared form of the network if weights are of that: they have names that it adds to the network.

    A network that a paper made for its method may be prepared from the start.
    """
    method, given = method_of(options)
    limit = prepare(network, method.name, **given)
    added = limit.state_dict().keys() - network.state_dict().keys()
    return limit if not added or added & convert_official(state, limit).keys() else None


def _translated(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Bring weights under a paper's names, or for another size of images, to timm's network, where timm can."""
    own, config = network.state_dict(), getattr(network, "pretrained_cfg", None) or {}
    if state.keys() == own.keys() and all(state[name].shape == own[name].shape for name in own):
        return state
    build = getattr(timm.models, config.get("architecture") or "", network)
    modules = (sys.modules[one.__module__] for one in (build, type(network)))
    translate = next(filter(None, (getattr(module, "checkpoint_filter_fn", None) for module in modules)), None)
    try:
        return state if translate is None else translate(dict(state), network)
    except Exception:  # of any kind; loading names what does not fit
        return state


def _with_own_classifier(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """Put the network's own classifier into the place of one for another number of classes, and say so in a clause."""
    own, found = network.state_dict(), (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    heads = [found] if isinstance(found, str) else list(found)
    differs = [
        head for head in heads
        if (theirs := state.get(f"{head}.weight")) is not None and theirs.shape != own[f"{head}.weight"].shape
    ]  # fmt: skip
    if not differs:
        return state, ""
    starts = tuple(f"{head}." for head in differs)
    fresh = {name: value for name, value in own.items() if name.startswith(starts)}
    kept = {name: value for name, value in state.items() if not name.startswith(starts)}
    return kept | fresh, f"; new classifier for {network.num_classes} classes"


def _say_colours(network: nn.Module, options: Options, info: DatasetInfo, say: Callable[[str], object]) -> None:
    """Say how the published weights of a network see photos, where this run shows it others."""
    config, data = getattr(network, "pretrained_cfg", None) or {}, options.data
    if info.size != PictureSet.size:
        return
    here = {"mean": data.mean or info.mean, "std": data.std or info.std}
    here["crop_pct"] = data.crop_pct or info.augment.crop_pct
    here["interpolation"] = data.interpolation or info.augment.interpolation
    there = {name: config.get(name) for name in here}
    if differs := {name: there[name] for name in here if there[name] not in (None, here[name])}:
        say(f"the published weights of {options.model.model} are for {' '.join(arguments(differs))}")
