"""Find the weights in what a training script saved, and name what makes them unusable."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError, quoted, shown

__all__ = ["Weights", "find_weights", "refuse_broken", "refuse_odd", "weights_of", "without_prefix"]

# Where training scripts put the weights, in the order in which they are looked for.
_CONTAINERS = (
    *("state_dict", "model", "model_state_dict", "net", "network", "model_state", "module", "weights", "params"),
    *("checkpoint", "state"),
)
# Where they put the moving average that the best epoch was chosen by; timm looks there, too.
_RANKED = ("state_dict_ema", "model_ema")
# Our own place for an average that was never evaluated (--model-ema-force-cpu).
UNRANKED = "state_dict_ema_unranked"
# Where others put averages, of which it is not known whether they were ever evaluated.
_AVERAGES = (*_RANKED, UNRANKED, "ema", "ema_state_dict", "swa_state_dict")

# Those of torch.compile, FSDP and activation checkpointing, which may be around any part of a network.
_AROUND = re.compile(r"(?<![^.])_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.")
_DEPTH = 4
# Its square is beyond float32: no trained weight is so large, one with a flipped bit is.
_LARGEST = 2.0**64


class Weights(NamedTuple):
    """Weights, and which ones of a file they are.

    Args:
        state: tensors by name, without the prefixes that wrappers of every script add.
        place: names of the dictionaries around them, joined by dots; "" for a file that holds nothing else.
        averaged: whether they are a moving average.
        passed_over: whether the file holds an average and these are not it.
    """

    state: dict[str, Tensor]
    place: str = ""
    averaged: bool = False
    passed_over: bool = False

    @property
    def description(self) -> str:
        """Which weights were read, as a clause."""
        if self.averaged:
            return f"the moving average ({shown(self.place, 60)}; --no-use-ema for the weights themselves)"
        if self.passed_over:
            return f"the weights themselves ({shown(self.place, 60)}), not their moving average"
        return f"the weights in {shown(self.place, 60)}" if self.place else "all of the file"


def find_weights(content: Mapping[str, Any], *, ema: bool | None = None) -> Weights:
    """Find the weights in what a training script saved.

    Args:
        content: a bare state dict, or a dictionary that holds one as `state_dict`, `model`, `net` and so on, or as the
            only dictionary of tensors in it.
        ema: True for the moving average, False for the weights themselves; None for those that the run's best epoch
            was chosen by: the average, if the file has one as `state_dict_ema` or `model_ema`, as timm does.

    Returns:
        Plain tensors by name, and where they were.

    Raises:
        UserError: if there are none, or they are no ordinary tensors with names.
    """
    averages = {None: _RANKED, True: _AVERAGES, False: ()}[ema]
    average = _search(content, averages, alone=False) if averages else None
    found = average or (None if ema else _search(content, _CONTAINERS))
    if found is None:
        keys = ", ".join(shown(key, 40) for key in list(content)[:8]) or "none"
        raise UserError(f"no {'moving average' if ema else 'weights'} found: the keys are {keys}")
    place, state = found
    other = _search(content, _AVERAGES, alone=False)
    passed_over = average is None and other is not None and other[1] is not state
    refuse_odd(state)
    state = _without_wrappers(state)
    return Weights(state, ".".join(place), averaged=average is not None, passed_over=passed_over)


def weights_of(content: Mapping[str, Any], ema: bool | None = None) -> dict[str, Tensor]:
    """Return the tensors of `find_weights` alone."""
    return find_weights(content, ema=ema).state


def _search(
    content: Mapping, names: tuple[str, ...], *, alone: bool = True, depth: int = _DEPTH
) -> tuple[tuple[str, ...], Mapping] | None:
    """Return the way to the first dictionary of tensors under one of the names, and the dictionary.

    Args:
        content: where to look.
        names: of dictionaries that may hold it, or others that do.
        alone: accept `content` itself, or the only dictionary of tensors in it.
        depth: greatest number of dictionaries around it.
    """
    around = names if alone else (*names, *_CONTAINERS)
    for name in around if depth else ():
        inside = content.get(name)
        if isinstance(inside, Mapping):
            found = _search(inside, names, alone=alone or name in names, depth=depth - 1)
            if found is not None:
                return (name, *found[0]), found[1]
    if not alone:
        return None
    if _holds_tensors(content):
        return (), content
    left = (*_RANKED, UNRANKED, "optimizer")
    nested = [name for name, value in content.items() if isinstance(value, Mapping) and _holds_tensors(value)]
    nested = [name for name in nested if isinstance(name, str) and name not in left]
    return ((nested[0],), content[nested[0]]) if len(nested) == 1 and depth else None


def _holds_tensors(content: Mapping) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def _without_wrappers(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Take off what DataParallel, FSDP, torch.compile and averaging add to names."""
    cleaned: dict[str, Tensor] = {}
    for name, value in state.items():
        inner = _AROUND.sub("", name) if isinstance(name, str) else name
        while isinstance(inner, str) and inner.startswith("module."):
            inner = inner.removeprefix("module.")
        if not isinstance(value, Tensor) or name == "n_averaged":  # the counter of PyTorch's AveragedModel
            continue
        if inner in cleaned:
            raise UserError(f"{shown(inner, 80)} is there twice, with the prefix of a wrapper and without")
        cleaned[inner] = value
    return cleaned


def refuse_odd(state: Mapping[Any, Any]) -> None:
    """Raise `UserError` for the first tensor without a name, or of a kind that no weight is."""
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        if not isinstance(name, str):
            raise UserError(f"the key {quoted(name, 60)} of a weight is no text; save model.state_dict() as it is")
        if kind := _odd(value):
            raise UserError(f"{shown(name, 80)} is a {kind} tensor; save the weights as plain ones")


def _odd(value: Tensor) -> str:
    """Name the kind of a tensor that is no ordinary array of real numbers, "" for one that is."""
    if type(value) not in (Tensor, torch.nn.Parameter):
        return type(value).__name__
    kinds = {
        "nested": value.is_nested,
        "quantised": value.is_quantized,
        "meta": value.is_meta,
        "sparse": value.layout != torch.strided,
        "complex": value.is_complex(),
        "named": any(name is not None for name in getattr(value, "names", ())),  # gone from newer PyTorch
    }
    return next((kind for kind, so in kinds.items() if so), "")


def refuse_broken(state: Mapping[str, Tensor]) -> None:
    """Raise `UserError` for the first weight that is not finite or so large that it can't be meant, or a variance below
    0."""
    for name, value in state.items():
        if not value.is_floating_point() or not value.numel():
            continue
        if value.element_size() == 1:  # PyTorch computes nothing in 8 bits
            value = value.float()
        largest = value.detach().abs().max().item()
        if not largest < _LARGEST:
            what = f"a value of {largest:.1e}" if largest < float("inf") else "values that are not finite"
            raise UserError(f"{shown(name, 80)} holds {what}: the file is damaged, or its training went astray")
        if name.endswith("running_var") and value.min() < 0:
            raise UserError(f"{shown(name, 80)} holds a variance below 0: the file is damaged")


def without_prefix(
    state: Mapping[str, Tensor], fits: Callable[[Mapping[str, Tensor]], bool]
) -> tuple[str, Mapping[str, Tensor]]:
    """Take off the prefix of a wrapper (`model.`, `backbone.`) when all weights fit without it.

    Args:
        state: tensors by name.
        fits: returns whether such a state fits.

    Returns:
        What was taken off, "" for nothing, and the tensors by the names that are left.
    """
    prefix, inner = "", state
    while len(firsts := {name.partition(".")[0] for name in inner}) == 1 and prefix.count(".") < _DEPTH:
        first = firsts.pop()
        if any(name in (first, f"{first}.") for name in inner):
            break
        prefix, inner = f"{prefix}{first}.", {name.partition(".")[2]: value for name, value in inner.items()}
        if fits(inner):
            return prefix, inner
    return "", state
