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

__all__ = ["SURROGATES", "derivative_for", "fire", "fire_by", "spike"]


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


def _sigmoid_by_cosh(x: Tensor, alpha: Tensor) -> Tensor:
    """Return the derivative of the sigmoid, alpha / (2 + 2 cosh(alpha x)), without an exponential.

    A processor's exponential costs more than the rest of a neuron's backward pass. Here d = cosh - 1 of a/8 comes from
    its Taylor series and goes three times through cosh(2 y) - 1 = 2 d (d + 2), which neither cancels nor overflows into
    anything but a derivative of 0. In float32 it is off by at most 2e-7 for alpha = 4, as the exponential's form is.
    """
    w = x * (alpha * 0.125)
    w = w * w
    d = w * (1 / 2 + w * (1 / 24 + w * (1 / 720 + w * (1 / 40320 + w * (1 / 3628800)))))
    for _ in range(3):
        d = d * (2 * d + 4)
    return alpha / (4 + 2 * d)


def derivative_for(surrogate: str, dtype: torch.dtype, device_type: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the form of a surrogate's derivative that is fastest where a compiler makes one kernel of it."""
    if surrogate == "SigmoidGrad" and device_type == "cpu" and dtype != torch.float64:
        return _sigmoid_by_cosh
    return SURROGATES[surrogate]


def fire(x: Tensor, strict: bool = False) -> Tensor:
    """Return 1 where `x`, potential minus threshold, is at least 0 (`strict`: above 0), else 0, in the type of
    `x`."""
    return (x > 0 if strict else x >= 0).to(x.dtype)


class _Spike(torch.autograd.Function):
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
    return _Spike.apply(x, alpha, SURROGATES[surrogate], strict)


def fire_by(
    x: Tensor, alpha: Tensor, derivative: Callable[[Tensor, Tensor], Tensor] | None, strict: bool = False
) -> Tensor:
    """Fire, with this derivative in the backward pass, or none; for what becomes a kernel."""
    return fire(x, strict) if derivative is None else _Spike.apply(x, alpha, derivative, strict)
