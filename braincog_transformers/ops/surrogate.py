"""Surrogate gradients: a step forward, the derivative of a smooth curve backward, under BrainCog's class names.

Each derivative takes `x`, the membrane potential minus the threshold, and the steepness `alpha`. The formulas are
those of `braincog.base.strategy.surrogate`; the spike differs in one point: here a neuron fires at the threshold
(`>=`), whatever the surrogate, unless `strict` asks for BrainCog's `>` of its arctangent and gate functions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SURROGATES", "coarse_sigmoid", "fire", "spike"]


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


def coarse_sigmoid(x: Tensor, alpha: Tensor) -> Tensor:
    """Return the derivative of the sigmoid to 3 digits, for gradients that are rounded to 16 bits anyway.

    A processor's exponential costs more than the rest of a neuron's backward pass. Here exp(a) is the 16th power of its
    Taylor polynomial at a/16: the derivative is off by 0.02 % for a = |alpha x| up to 8, and by 3e-7 of 1 beyond.
    """
    z = (alpha * x).abs() * 0.0625
    power = 1 + z * (1 + z * (1 / 2 + z * (1 / 6 + z * (1 / 24 + z * (1 / 120)))))
    for _ in range(4):
        power = power * power
    share = 1 / (1 + power)
    return alpha * share * (1 - share)


def fire(x: Tensor, strict: bool = False) -> Tensor:
    """Return 1 where `x`, potential minus threshold, is at least 0 (`strict`: above 0), else 0, in the type of
    `x`."""
    return (x > 0 if strict else x >= 0).to(x.dtype)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, surrogate: str, strict: bool) -> Tensor:
        ctx.save_for_backward(x, alpha)
        ctx.surrogate = surrogate
        return fire(x, strict)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, alpha = ctx.saved_tensors
        return grad * SURROGATES[ctx.surrogate](x, alpha), None, None, None


def spike(x: Tensor, alpha: Tensor, surrogate: str, strict: bool = False) -> Tensor:
    """Fire, with the derivative of `surrogate` in the backward pass.

    Args:
        x: membrane potential minus threshold, any shape.
        alpha: steepness of the surrogate, a scalar tensor; it gets no gradient.
        surrogate: a key of `SURROGATES`.
        strict: fire above the threshold only.

    Returns:
        Zeros and ones in the shape and type of `x`.
    """
    return _Spike.apply(x, alpha, surrogate, strict)
