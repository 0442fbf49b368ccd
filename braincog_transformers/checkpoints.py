"""Read checkpoints safely, and load official state dicts into the networks here.

A file is data, never code: safetensors, or `torch.load` with `weights_only`. An official state dict goes through the
table of its family: names are translated, dead keys (declared and never used by the official class) dropped, layouts
brought to ours. Loading ends strict: what does not fit is named.
"""

import argparse
import logging
import pathlib
import pickle
import re
from collections.abc import Iterable, Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .errors import UserError
from .official_keys import FAMILIES

__all__ = ["convert_official", "load_checkpoint", "load_state", "misfits", "read_checkpoint", "translate", "weights_of"]

_logger = logging.getLogger(__name__)

# The classifier, and the head that learns from a teacher.
_HEADS = ("head.", "head_dist.")

# Where training scripts put the weights, in the order in which they are looked for.
_CONTAINERS = ("state_dict", "model", "model_state_dict", "net")

# What BrainCog's nodes and this package add, and official checkpoints do not have.
_OPTIONAL = (".threshold", ".act_fun.alpha", "_extra_state")


def read_checkpoint(path: str | pathlib.Path) -> dict[str, Any]:
    """Read a checkpoint file onto the CPU, without running any code in it.

    Args:
        path: a `.safetensors` file, or one written by `torch.save`.

    Returns:
        What the file holds; for safetensors `{"state_dict": tensors}`.

    Raises:
        UserError: if the file is missing, damaged, foreign, or a pickle that would run code.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist" + (" as a file; it is a folder" if path.is_dir() else ""))
    if path.suffix == ".safetensors":
        try:
            return {"state_dict": safetensors.torch.load_file(path)}
        except safetensors.SafetensorError as error:
            raise UserError(f"checkpoint {path} is damaged or no safetensors file ({error})") from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace, pathlib.PosixPath]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"checkpoint {path} is refused: it is no plain data"
            + (f", it would load {found[1]}" if found else "")
            + "; save only its weights, torch.save(model.state_dict(), ...), or as safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UserError(f"checkpoint {path} is damaged or no checkpoint ({reason})") from error
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path} holds a {type(content).__name__}, not a dictionary of weights")
    return content


def weights_of(content: Mapping[str, Any], ema: bool = False) -> dict[str, Tensor]:
    """Find the weights in what a training script saved.

    Args:
        content: a bare state dict, or a dictionary that holds one as `state_dict`, `model`, `model_state_dict` or
            `net`.
        ema: take `state_dict_ema`, the moving average, if it is there.

    Returns:
        Tensors by name, without the prefixes that wrappers add (`module.`, `_orig_mod.`).

    Raises:
        UserError: if no weights are found.
    """
    containers = ("state_dict_ema", *_CONTAINERS) if ema else _CONTAINERS
    state = next((content[name] for name in containers if isinstance(content.get(name), Mapping)), content)
    state = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"no weights found: the keys are {', '.join(map(str, list(content)[:8])) or 'none'}")
    return {re.sub(r"^((module|_orig_mod)\.)+", "", name): value for name, value in state.items()}


def translate(name: str, family: str) -> str | None:
    """Return our name for an official one, None for a dead key."""
    rules = FAMILIES[family]
    if any(re.search(pattern, name) for pattern, _ in rules.dead):
        return None
    for pattern, replacement in rules.rename:
        name = re.sub(pattern, replacement, name)
    return name


def _to_layout(value: Tensor, like: Tensor | None) -> Tensor:
    """Drop or add trailing axes of one element: 1x1 convolutions are linear layers, or of other dimensions, here."""
    fits = like is not None and value.shape[:2] == like.shape[:2] and value.numel() == like.numel()
    return value.reshape(like.shape) if fits else value


def convert_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Translate an official state dict into our names and layouts; our own passes unchanged.

    Args:
        state: tensors by official name.
        model: a network of the same family.

    Returns:
        Tensors by our name, dead keys left out (each is named, with the reason, in the debug log).
    """
    own = model.state_dict()
    family = type(model).__name__
    if family not in FAMILIES or set(state) <= set(own):
        return dict(state)
    converted = {}
    for name, value in state.items():
        new = translate(name, family)
        if new is None:
            reason = next(why for pattern, why in FAMILIES[family].dead if re.search(pattern, name))
            _logger.debug("%s: left out %s: %s", family, name, reason)
        else:
            converted[new] = _to_layout(value, own.get(new))
    return converted


def _some(names: Iterable[str], most: int = 12) -> str:
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def misfits(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Say what keeps a state dict under our names from fitting a network.

    Returns:
        Names by kind of misfit: "missing", "unexpected", and "of another shape" with both shapes.
    """
    own = model.state_dict()
    shapes = {
        f"{name} {tuple(value.shape)} for {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    }
    return {
        "missing": {name for name in own.keys() - state.keys() if not name.endswith(_OPTIONAL)},
        "unexpected": state.keys() - own.keys(),
        "of another shape": shapes,
    }


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, replace_classifier: bool = False) -> str:
    """Load official or own weights into a network, all or nothing.

    Args:
        model: the network.
        state: tensors by name.
        replace_classifier: keep the network's own classifier where the other one has another number of classes, and
            its own distillation head where the other has none.

    Returns:
        One line that says what was loaded.

    Raises:
        UserError: naming what is missing, unexpected or of another shape; nothing is loaded then.
    """
    converted = convert_official(state, model)
    official = converted.keys() != state.keys()
    state, own = converted, model.state_dict()
    kept = ""
    theirs, ours = (len(weights.get("head.weight", ())) for weights in (state, own))
    if replace_classifier and theirs and theirs != ours:
        kept = f"; new classifier for {ours} classes, not {theirs}" if ours else f"; without its {theirs} classes"
        state = {name: value for name, value in state.items() if not name.startswith(_HEADS)}
        state |= {name: value for name, value in own.items() if name.startswith(_HEADS)}
    fresh = {name: value for name, value in own.items() if name.startswith("head_dist.") and name not in state}
    if replace_classifier and fresh:  # a head that has learnt nothing must not count in evaluation
        kept += "; new distillation head"
        state |= fresh
    problems = misfits(model, state)
    if any(problems.values()):
        told = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names)
        if any(name.startswith("head_dist.") for name in problems["unexpected"]):
            told += "; distilled=True (--distilled) builds the second classifier"
        raise UserError(
            f"the checkpoint does not fit {type(model).__name__}: {told} (main.py --identify FILE says what it fits)"
        )
    if official and getattr(model, "fault", "") and model.as_released != (released := model.shows_fault(state)):
        model.set_as_released(released)  # before loading: where the file says more, as in thresholds, the file counts
        kept += (
            f"; computing as the released code does: {model.fault} (set_as_released(False) for the paper's network)"
            if released
            else "; computing as the paper says, as this file's network did"
        )
    model.load_state_dict(state, strict=False)
    return f"loaded {len(state)} tensors into {type(model).__name__}{kept}"


def load_checkpoint(
    model: nn.Module, path: str | pathlib.Path, *, ema: bool = False, replace_classifier: bool = False
) -> str:
    """Load a checkpoint file, official or our own, bare or inside a training script's dictionary.

    Args:
        model: the network.
        path: the file, see `read_checkpoint`.
        ema: take the moving average of the weights if the file has one.
        replace_classifier: see `load_state`.

    Returns:
        One line that says what was loaded.

    Raises:
        UserError: see `read_checkpoint` and `load_state`.
    """
    try:
        return load_state(model, weights_of(read_checkpoint(path), ema), replace_classifier=replace_classifier)
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error
