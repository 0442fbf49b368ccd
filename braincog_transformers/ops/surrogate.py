"""Surrogate gradients: a step forward, the derivative of a smooth curve backward, under BrainCog's class names.

Each derivative takes `x`, the membrane potential minus the threshold, and the steepness `alpha`. The formulas are
those of `braincog.base.strategy.surrogate`; the spike differs in one point: here a neuron fires at the threshold
(`>=`), whatever the surrogate, unless `strict` asks for BrainCog's `>` of its arctangent and gate functions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..runtime.watching import followed

__all__ = ["SURROGATES", "Spike", "fire", "spike"]


def _sigmoid(x: Tensor, alpha: Tensor) -> Tensor:
    # alpha s (1 - s) with s = sigmoid(alpha x), written with one exponential and one division, and no overflow
    e = torch.exp(-(alpha * x).abs())
    share = 1 / (1 + e)
    return alpha * e * share * share


def _atan(x: Tensor, alpha: Tensor) -> Tensor:
    scaled = math.pi / 2 * alpha * x
    return alpha / 2 / (1 + scaled * scaled)


def _gate(x: Tensor, alpha: Tensor) -> Tensor:
    return (x.abs() < 1 / alpha).to(x.dtype)


def _quadratic_gate(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x.abs() <= 1 / alpha, alpha - alpha * alpha * x.abs(), 0.0)


SURROGATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SigmoidGrad": _sigmoid,
    "AtanGrad": _atan,
    "GateGrad": _gate,
    "QGateGrad": _quadratic_gate,
}


# What each derivative is the derivative of, for those who follow single operations.
_SMOOTH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SigmoidGrad": lambda x, alpha: torch.sigmoid(alpha * x),
    "AtanGrad": lambda x, alpha: torch.atan(math.pi / 2 * alpha * x) / math.pi,
    "GateGrad": lambda x, alpha: torch.where(x.abs() < 1 / alpha, x, 0.0),
    "QGateGrad": lambda x, alpha: torch.where(x.abs() <= 1 / alpha, alpha * x * (1 - alpha / 2 * x.abs()), 0.0),
}


def fire(x: Tensor, strict: bool = False) -> Tensor:
    """Return 1 where `x`, potential minus threshold, is at least 0 (`strict`: above 0), else 0, in the type of
    `x`."""
    return (x > 0 if strict else x >= 0).to(x.dtype)


class Spike(torch.autograd.Function):
    """The step function with a given derivative."""

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, derivative: Callable[[Tensor, Tensor], Tensor], strict: bool) -> Tensor:
        ctx.save_for_backward(x, alpha)
        ctx.derivative = derivative
        return fire(x, strict)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, alpha = ctx.saved_tensors
        return grad * ctx.derivative(x, alpha), None, None, None


def _followed(x: Tensor, alpha: Tensor, surrogate: str, strict: bool) -> Tensor:
    """Fire, by operations that every transform knows: a smooth function is added for its derivatives, and taken off."""
    s = fire(x, strict)
    if torch.onnx.is_in_onnx_export():  # what nobody differentiates stays short
        return s
    smooth = _SMOOTH[surrogate](x, alpha if surrogate == "AtanGrad" else alpha.detach())
    return s + (smooth - smooth.detach())


def spike(x: Tensor, alpha: Tensor, surrogate: str, strict: bool = False) -> Tensor:
    """Fire, with the derivative of `surrogate` in the backward pass.

    Args:
        x: membrane potential minus threshold, any shape.
        alpha: steepness of the surrogate, a scalar tensor; it gets no gradient, but from a transform of AtanGrad.
        surrogate: a key of `SURROGATES`.
        strict: fire above the threshold only.

    Returns:
        Zeros and ones in the shape and type of `x`.
    """
    if followed():
        return _followed(x, alpha, surrogate, strict)
    return Spike.apply(x, alpha, SURROGATES[surrogate], strict)
