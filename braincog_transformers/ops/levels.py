"""Firing of whole numbers: a clamped rounding forward, the derivative of the clamp backward (straight through).

With D levels, a potential u in units of the threshold fires

    "even"  round(clamp(u, 0, D)), halves to the even number; the gradient is 1 for 0 <= u <= D, else 0
    "up"    floor(clamp(u, 0, D) + 1/2); the gradient is 1 for 0 < u < D, else 0

Source: Luo et al., Integer-Valued Training and Spike-Driven Inference Spiking Neural Network (ECCV 2024, arXiv
2407.20708), equations 8 to 10; Yao et al., Scaling Spike-driven Transformer with Efficient Spike Firing Approximation
Training (TPAMI 2025, arXiv 2411.16061), whose code has both rules.
"""

from typing import Literal

import torch
from torch import Tensor

from ..runtime.watching import followed

__all__ = ["Rounding", "fire_levels", "passes"]

Rounding = Literal["even", "up"]


def _rounded(u: Tensor, levels: int, rounding: Rounding) -> Tensor:
    clamped = u.clamp(0, levels)
    return clamped.round() if rounding == "even" else (clamped + 0.5).floor()


def passes(u: Tensor, levels: int, rounding: Rounding = "even") -> Tensor:
    """Tell where a potential, in units of the threshold, passes a gradient."""
    return (u >= 0) & (u <= levels) if rounding == "even" else (u > 0) & (u < levels)


class _Levels(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, levels: int, rounding: Rounding) -> Tensor:
        ctx.save_for_backward(passes(u, levels, rounding))
        return _rounded(u, levels, rounding)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None


def fire_levels(u: Tensor, levels: int, rounding: Rounding = "even") -> Tensor:
    """Fire whole numbers from 0 to D, see the module's docstring.

    Args:
        u: membrane potential over the threshold, any shape.
        levels: D, at least 1.
        rounding: "even" or "up".

    Returns:
        Whole numbers in the shape and type of `u`.
    """
    if not followed():
        return _Levels.apply(u, levels, rounding)
    fired = _rounded(u, levels, rounding)
    if torch.onnx.is_in_onnx_export():  # what nobody differentiates stays short
        return fired
    # by operations that every transform knows; whole numbers come out exactly, since u is less than 1 away from them
    passed = torch.where(passes(u, levels, rounding), u, 0.0)
    return passed + (fired - passed).detach()
