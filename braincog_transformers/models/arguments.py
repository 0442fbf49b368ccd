"""Check what a network or its neurons are built with, by the types that the constructors declare and by name, and what
a network is fed."""

import inspect
import math
from collections.abc import Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from timm.layers import to_2tuple
from torch import Tensor, nn

from ..errors import UserError, nearest, quoted, unknown

__all__ = ["ArgumentChecks", "check_arguments", "hints_of", "sides"]

_PACKAGE = __name__.partition(".")[0]
_NAMES = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a name", type: "a class"}
_COUNTS = (
    *("embed_dim", "embed_dims", "num_heads", "patch_size", "patch_sizes", "group_size", "pool_to", "img_size"),
    *("in_chans", "step", "kernel_size", "blocks_per_stage", "widths", "window_size", "z_size", "x_size"),
    "num_conv3x3",
)
# smallest and largest values
_ENDS = {
    **dict.fromkeys(_COUNTS, (1, 2**16)),
    **dict.fromkeys(("depth", "depths"), (1, 1000)),
    **dict.fromkeys(("drop_rate", "drop_path_rate", "mlp_drop_rate"), (0, 1)),
    "num_classes": (0, 2**24),
    "thresholds": (1, 256),
    "levels": (1, 255),
}
_ABOVE_ZERO = ("mlp_ratio", "threshold", "tau", "alpha", "norm")


@cache
def hints_of(cls: type[nn.Module]) -> dict[str, Any]:
    """Return the types of a network's arguments by name; what a class of the user's own declares may be anything."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__init__" not in vars(base):
            continue
        ours = base.__module__.partition(".")[0] == _PACKAGE
        found |= get_type_hints(base.__init__) if ours else dict.fromkeys(inspect.signature(base.__init__).parameters)
    return found


def check_arguments(owner: str, hints: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raise `UserError` for the first argument of another type than is declared, or out of its range.

    Args:
        owner: what is built, for the message.
        hints: declared types by name; arguments without one pass.
        arguments: values by name.
    """
    for name, value in arguments.items():
        hint = hints.get(name) or Any
        if not _is(hint, value):
            if get_origin(hint) is Literal and nearest(value, choices := [str(one) for one in get_args(hint)]):
                raise unknown(f"{owner} {name}", value, choices)
            raise UserError(f"{owner}: {name} must be {_in_words(hint)}; got {quoted(value, 80)}")
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if hint is Any or not isinstance(one, Real):
                continue
            low, high = _ENDS.get(name, (-math.inf, math.inf))
            if not low <= one <= high:
                rule = f"at least {low}" if one < low else f"at most {high}"
                raise UserError(f"{owner}: {name} must be {rule}; got {quoted(value, 80)}")
            if name in _ABOVE_ZERO and one <= 0:
                raise UserError(f"{owner}: {name} must be above 0; got {quoted(value, 80)}")


def _is(hint: Any, value: Any) -> bool:
    """Return whether a value is what a type hint says."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_is(one, value) for one in inner)
    if kind is Literal:
        return isinstance(value, (str, int)) and value in inner
    if kind in (tuple, Sequence):
        wanted = len(inner) if kind is tuple and ... not in inner else None
        several = isinstance(value, (tuple, list)) and len(value) > 0 and wanted in (None, len(value))
        return several and all(_is(inner[0], one) for one in value)
    if hint is bool:
        return isinstance(value, Integral) and value in (0, 1)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def _in_words(hint: Any) -> str:
    """Name a type in words."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(_in_words(one) for one in inner)
    if kind is Literal:
        return " or ".join(map(repr, inner))
    if kind in (tuple, Sequence):
        return f"{len(inner) if kind is tuple and ... not in inner else 'several'} values, each {_in_words(inner[0])}"
    return "None" if hint is NoneType else _NAMES.get(hint, str(hint))


def sides(owner: str, img_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width; raise `UserError` unless they are one or two whole numbers from 1 on."""
    check_arguments(owner, {"img_size": int | tuple[int, int]}, {"img_size": img_size})
    return to_2tuple(img_size)


class ArgumentChecks:
    """Mixin of `SpikingTransformer`: rules on widths, heads and sides, and the shape of the input."""

    def _require_heads(self, dim: int, num_heads: int) -> None:
        """Raise `UserError` unless the heads divide the width."""
        if dim % num_heads:
            fitting = sorted((h for h in range(1, 33) if dim % h == 0), key=lambda h: abs(h - num_heads))[:2]
            raise UserError(
                f"{type(self).__name__}: embed_dim must be a multiple of num_heads; got embed_dim={dim}, "
                f"num_heads={num_heads} (try {' or '.join(map(str, sorted(fitting)))})"
            )

    def _require_width(self, multiple: int) -> None:
        """Raise `UserError` unless the width is a multiple of `multiple`."""
        if self.embed_dim % multiple:
            raise UserError(f"{type(self).__name__}: embed_dim must be a multiple of {multiple}; got {self.embed_dim}")

    def _require_sides(self, multiple: int) -> None:
        """Raise `UserError` unless height and width are multiples of `multiple`."""
        if any(side % multiple or side < multiple for side in self.img_size):
            near = max(multiple, round(self.img_size[0] / multiple) * multiple)
            raise UserError(
                f"{type(self).__name__}: img_size must be a multiple of {multiple}; got {self.img_size} (try {near})"
            )

    def _frames(self, x: Tensor) -> Tensor:
        """Return the input as the stem takes it; raise `ValueError` if it does not fit."""
        expected = (self.in_chans, *self.img_size)
        return checked_frames(x, type(self).__name__, expected, self.step, self.streaming, bool(self.joins_steps))


@torch.fx.wrap
def checked_frames(
    x: Tensor, owner: str, expected: tuple[int, int, int], step: int, streaming: bool, fixed_steps: bool
) -> Tensor:
    """Return an input whose shape fits; raise `ValueError` for any other.

    Args:
        x: what was fed.
        owner: class of the network.
        expected: `(C, H, W)`.
        step: number of steps T.
        streaming: whether a call takes one step.
        fixed_steps: whether T can't change.
    """
    if x.dim() not in ((4,) if streaming else (4, 5)) or tuple(x.shape[-3:]) != expected:
        shapes = "one step, (B, C, H, W)," if streaming else "(B, C, H, W) or, for events, (B, T, C, H, W)"
        raise ValueError(
            f"{owner}: input must be {shapes} with (C, H, W)={expected}; got {tuple(x.shape)} (img_size= and in_chans= "
            "build it for other sizes)."
        )
    if not x.is_floating_point():
        raise ValueError(f"{owner}: input must be floating point, scaled as in training; got {x.dtype} (x.float()).")
    if x.dim() == 5 and x.shape[1] != step:
        way_out = f"step={x.shape[1]} builds" if fixed_steps else f"set_attr('step', {x.shape[1]}) changes"
        raise ValueError(f"{owner}: the input has {x.shape[1]} steps, the network {step} ({way_out} it).")
    return x
