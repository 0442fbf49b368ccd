"""Load official state dicts, and our own, into the networks here.

A file is data, never code (`files`); `state_dicts` decides which of its weights are read. An official state dict goes
through the network's `official_names`: names are translated, dead keys (declared and never used by the official class)
dropped, layouts brought to ours. Loading ends strict: what does not fit is named.
"""

import logging
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from braincog.base.node.node import BaseNode
from torch import Tensor, nn

from ..errors import UserError, listed, shown
from ..models.base import SpikingTransformer
from ..models.masked import MaskedAutoencoder, encoder_weights
from ..models.official import OfficialNames
from .files import read_checkpoint
from .state_dicts import find_weights, refuse_broken, refuse_odd, without_prefix

__all__ = [
    *("class_count", "convert_official", "describe_foreign", "fit_tables", "load_checkpoint", "load_content"),
    *("load_state", "misfits"),
]

_logger = logging.getLogger(__name__)

# The classifier, and the head that learns from a teacher.
_HEADS = ("head.", "head_dist.")

# What this package adds, and official checkpoints do not have; the same of BrainCog's nodes.
_OPTIONAL = ("_extra_state", "qcfs_levels", ".levels", ".initialised")
_OF_NODES = ("threshold", "act_fun.alpha")

_ONE_PROJECTION = "one projection makes its queries, keys and values, where the paper's network has"
# Networks of other libraries that resemble ours: a name that no other has, what they are, and why they don't load.
_FOREIGN = (
    (
        r"(^|\.)patch_embed\.stages\.0\.conv_bn\.block\.0\.",
        "SpikingJelly's Spikformer, another network: its stem pools in front of the neurons, "
        f"{_ONE_PROJECTION} several, and its projections and MLPs have no biases",
    ),
    (
        r"(^|\.)stage1\.0\.attn\.qk_conv_bn\.0\.",
        "SpikingJelly's QKFormer, another network: "
        f"{_ONE_PROJECTION} several, and its attention's projections have no biases",
    ),
    (
        r"(^|\.)stage1\.0\.dwconv\.",
        "SpikingJelly's MaxFormer, of which this package has no network: its first stages have depthwise convolutions "
        "in the place of attention",
    ),
)


def describe_foreign(names: Iterable[str]) -> str:
    """Say of which other library's network these are the weights, and what differs; "" for none that is known."""
    names = list(names)
    return next((text for pattern, text in _FOREIGN if any(re.search(pattern, name) for name in names)), "")


def _to_layout(value: Tensor, like: Tensor | None) -> Tensor:
    """Drop or add trailing axes of one element: 1x1 convolutions are linear layers, or of other dimensions, here."""
    fits = like is not None and value.shape[:2] == like.shape[:2] and value.numel() == like.numel()
    return value.reshape(like.shape) if fits else value


def convert_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Translate an official state dict into our names and layouts; our own passes unchanged.

    Args:
        state: tensors by official name.
        model: a network of the same family; one without `official_names` has no official weights.

    Returns:
        Tensors by our name, dead keys left out (each is named, with the reason, in the debug log).
    """
    own = model.state_dict()
    names: OfficialNames | None = getattr(model, "official_names", None)
    if names is None or set(state) <= set(own):
        return dict(state)
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        new = names.translate(name)
        if new is None:
            _logger.debug("%s: left out %s: %s", type(model).__name__, name, names.reason_dead(name))
        elif new in converted:
            raise UserError(f"{shown(name, 80)} and another of its names both stand for {shown(new, 80)}")
        else:
            converted[new] = _to_layout(value, own.get(new))
    return _absorb_biases(converted, own)


def fit_tables(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """Resize tables of positions, if the network knows how, and say in a clause which ones."""
    if not hasattr(model, "fit_tables"):
        return state, ""
    fitted = model.fit_tables(state)
    resized = [name for name, value in fitted.items() if value.numel() != state[name].numel()]
    return fitted, "".join(
        f"; {name} resized from {tuple(state[name].shape)} to {tuple(fitted[name].shape)}" for name in resized
    )


def _absorb_biases(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move the biases of convolutions that have none here into the running mean of the normalisation behind them.

    The normalisation subtracts the mean, so that nothing else changes, not even in training.
    """
    for name in [name for name in state if name.endswith(".conv.bias") and name not in own]:
        mean = f"{name.removesuffix('conv.bias')}bn.running_mean"
        if mean in state and state[mean].shape == state[name].shape:
            state[mean] = state[mean] - state.pop(name)
    return state


def _some(names: Iterable[str], most: int = 4) -> str:
    return listed(sorted(shown(name, 120) for name in names), most)


def misfits(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Say what keeps a state dict under our names from fitting a network.

    Returns:
        Names by kind of misfit: "missing", "unexpected", "of another shape" with both shapes, and "cast to whole
        numbers", which no trained weight is.
    """
    own = model.state_dict()
    shapes = {
        f"{shown(name, 60)} {tuple(value.shape)} for {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    }
    nodes = [path for path, module in model.named_modules() if isinstance(module, BaseNode)]
    added = {f"{path}.{name}" for path in nodes for name in _OF_NODES}
    return {
        "missing": {name for name in own.keys() - state.keys() - added if not name.endswith(_OPTIONAL)},
        "unexpected": state.keys() - own.keys(),
        "of another shape": shapes,
        "cast to whole numbers": {
            f"{shown(name, 60)} {str(value.dtype).removeprefix('torch.')}"
            for name, value in state.items()
            if name in own and own[name].is_floating_point() and not value.is_floating_point() and value.dim()
        },
    }


class _Fitted(NamedTuple):
    """A state dict under our names, and how it fits.

    Args:
        state: tensors by our name, the network's own where the file's classifier is left out.
        official: whether names were translated.
        notes: clauses about what was replaced.
        problems: see `misfits`.
    """

    state: Mapping[str, Tensor]
    official: bool
    notes: str
    problems: Mapping[str, set[str]]

    @property
    def fits(self) -> bool:
        return not any(self.problems.values())


def class_count(state: Mapping[str, Tensor]) -> int:
    """Return the number of classes of a classifier, 0 for none."""
    weight = state.get("head.weight")
    return len(weight) if weight is not None and weight.dim() else 0


def _fit(model: nn.Module, state: Mapping[str, Tensor], replace_classifier: bool) -> _Fitted:
    """Bring a state dict to our names, and compare it with a network."""
    encoder = None if isinstance(model, MaskedAutoencoder) else encoder_weights(state)
    beside, state = len(state), state if encoder is None else encoder
    converted = convert_official(state, model)
    official = converted.keys() != state.keys()
    converted, adopted = model.adopt(converted) if hasattr(model, "adopt") else (converted, "")
    (state, notes), own = fit_tables(model, converted), model.state_dict()
    notes += adopted
    if encoder is not None:
        notes += f"; from masked pre-training, without the {beside - len(encoder)} tensors beside its encoder"
        if replace_classifier:
            new = _new_after_pretraining(model, own, state)
            state, notes = {**state, **new}, notes + (f"; new {_some(new)}" if new else "")
    theirs, ours = class_count(state), class_count(own)
    if replace_classifier and theirs and theirs != ours:
        notes += f"; new classifier for {ours} classes, not {theirs}" if ours else f"; without its {theirs} classes"
        state = {name: value for name, value in state.items() if not name.startswith(_HEADS)}
        state |= {name: value for name, value in own.items() if name.startswith(_HEADS)}
    fresh = {name: value for name, value in own.items() if name.startswith("head_dist.") and name not in state}
    if replace_classifier and fresh:  # a head that has learnt nothing must not count in evaluation
        notes += "; new distillation head"
        state = {**state, **fresh}
    return _Fitted(state, official, notes, misfits(model, state))


def _new_after_pretraining(
    model: nn.Module, own: Mapping[str, Tensor], encoder: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights of a network that its encoder has not: classifiers, and what its class names."""
    masking = getattr(model, "masking", None)
    pattern = masking.new if masking else "$^"
    missing = {name: value for name, value in own.items() if name not in encoder}
    return {name: value for name, value in missing.items() if name.startswith(_HEADS) or re.search(pattern, name)}


def _misfit(model: nn.Module, state: Mapping[str, Tensor], problems: Mapping[str, set[str]]) -> UserError:
    """Name what keeps weights from fitting a network."""
    if foreign := describe_foreign(state):
        return UserError(f"the checkpoint does not fit {type(model).__name__}: it is {foreign}")
    differences = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names)
    if encoder_weights(state) is not None and any(name.startswith(_HEADS) for name in problems["missing"]):
        differences += "; it is an encoder from masked pre-training, which --initial-checkpoint trains a classifier for"
    if any(name.startswith("head_dist.") for name in problems["unexpected"]):
        differences += "; distilled=True (--distilled) builds the second classifier"
    reason = getattr(model, "joins_steps", "")
    if reason and any(not name.startswith(_HEADS) for name in problems["of another shape"]):
        differences += f"; this network is for T={model.step}, img_size={model.img_size}, since {reason}"
    if isinstance(model, SpikingTransformer | MaskedAutoencoder):
        differences += " (main.py --identify FILE says what it fits)"
    return UserError(f"the checkpoint does not fit {type(model).__name__}: {differences}")


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, replace_classifier: bool = False) -> str:
    """Load official or own weights into a network, all or nothing.

    The prefix of a wrapper (`model.` of Lightning, `backbone.`) is taken off when all weights fit without it.

    Args:
        model: the network.
        state: tensors by name.
        replace_classifier: keep the network's own classifier where the other one has another number of classes, and
            its own distillation head where the other has none.

    Returns:
        One line that says what was loaded.

    Raises:
        UserError: naming what is missing, unexpected or of another shape, or a weight that is not finite or of no
            ordinary kind; nothing is loaded then.
    """
    refuse_odd(state)
    found = _fit(model, state, replace_classifier)
    if not found.fits:
        prefix, inner = without_prefix(state, lambda inner: _fit(model, inner, replace_classifier).fits)
        if not prefix:
            raise _misfit(model, state, found.problems)
        found = _fit(model, inner, replace_classifier)
        found = found._replace(notes=f"{found.notes}; without the prefix {prefix}")
    state, notes = found.state, found.notes
    refuse_broken(state)
    if found.official and getattr(model, "fault", "") and model.as_released != (released := model.shows_fault(state)):
        model.set_as_released(released)  # before loading: where the file says more, as in thresholds, the file counts
        notes += (
            f"; computing as the released code does: {model.fault} (set_as_released(False) for the paper's network)"
            if released
            else "; computing as the paper says, as this file's network did"
        )
    model.load_state_dict(state, strict=False)
    return f"loaded {len(state)} tensors into {type(model).__name__}{notes}"


def load_checkpoint(
    model: nn.Module, path: str | pathlib.Path, *, ema: bool | None = None, replace_classifier: bool = False
) -> str:
    """Load a checkpoint file, official or our own, bare or inside a training script's dictionary.

    Args:
        model: the network.
        path: the file, see `read_checkpoint`.
        ema: True for the moving average of the weights, False for the weights themselves; None for the average if the
            file has one that its best epoch was chosen by, see `find_weights`.
        replace_classifier: see `load_state`.

    Returns:
        One line that says what was loaded.

    Raises:
        UserError: see `read_checkpoint`, `find_weights` and `load_state`.
    """
    return load_content(model, read_checkpoint(path), path, ema=ema, replace_classifier=replace_classifier)


def load_content(
    model: nn.Module, content: dict[str, Any], path: str | pathlib.Path, *, ema: bool | None = None,
    replace_classifier: bool = False,
) -> str:  # fmt: skip
    """Load what `read_checkpoint` has read from `path`, as `load_checkpoint` does."""
    try:
        weights = find_weights(content, ema=ema)
        loaded = load_state(model, weights.state, replace_classifier=replace_classifier)
    except UserError as error:
        raise UserError(f"{shown(path)}: {error}") from error
    return f"{loaded} from {shown(path)}: {weights.description}"
