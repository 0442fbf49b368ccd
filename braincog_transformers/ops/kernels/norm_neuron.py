"""Batch normalisation and the neuron behind it as one operation.

`normalised_spikes` with the backend "reference" is the definition: `multi_step(batch_norm(x))`. The fused form takes
mean and variance from PyTorch, normalises and fires in one compiled kernel, never writes the normalised potentials, and
keeps nothing for the backward pass but x, which both need. Backward, a kernel runs the neuron again and gives the
gradient of the potentials, from which PyTorch's normalisation goes on. Whatever the types of x and of the parameters,
statistics, potentials and membrane are in `membrane_dtype`.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...runtime import packing
from ...runtime.compiler import compiled
from ...runtime.watching import batched
from ..dynamics import Dynamics, membrane_dtype
from ..neuron import Backend, multi_step
from ..surrogate import derivative_for
from .fused_neuron import differentiable_gradients, like, plain, run_backward, run_forward, without_division

__all__ = ["Normalisation", "normalised_spikes"]


class Normalisation(NamedTuple):
    """A batch normalisation over all axes but the last.

    Args:
        weight, bias: `(C,)`.
        running_mean, running_var: `(C,)`; updated in place in training.
        momentum: weight of the batch in the running statistics.
        eps: added to the variance.
        training: normalise by the batch's own statistics.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    momentum: float
    eps: float
    training: bool


def _forward(x, scale, shift, leak, threshold, dynamics: Dynamics, steps: int, packed: bool):
    y = (x.to(scale.dtype) * scale + shift).expand(steps, -1, -1)
    return run_forward(y, leak, threshold, dynamics, x.dtype, packed)


def _adjoint(x, grad, scale, shift, leak, threshold, alpha, dynamics: Dynamics, steps: int, wants: tuple[bool, bool]):
    """Return the gradient of the potentials in the shape and type of x, of k and of the threshold."""
    y = (x.to(scale.dtype) * scale + shift).expand(steps, -1, -1)
    derivative = derivative_for(dynamics.surrogate, x.dtype, x.device.type)
    grads, g_leak, g_threshold = run_backward(y, grad, leak, threshold, alpha, dynamics, derivative)
    grads = [sum(grads)] if x.shape[0] == 1 else grads
    g = torch.stack([g.to(x.dtype) for g in grads])
    return g, g_leak.sum() if wants[0] else None, g_threshold.sum() if wants[1] else None


class _NormNeuron(torch.autograd.Function):
    """Spikes `(T, M, C)` of x `(T, M, C)`, or of `(1, M, C)` that stands for T equal steps."""

    @staticmethod
    def forward(ctx, x, weight, bias, statistics, norm, leak, threshold, alpha, dynamics, steps):
        kind = (x.shape[0] == 1, steps, x.dtype, x.device.type, dynamics)
        mean, var = statistics
        inverse = torch.rsqrt((var.double() if norm.training else var) + norm.eps).to(var.dtype)
        scale = inverse * weight.detach().to(inverse.dtype)
        shift = bias.detach().to(inverse.dtype) - mean * scale
        # a threshold by channel keeps the axis of channels in every step's loop: then the compiler makes one of all
        thresholds = plain(threshold).to(scale.dtype).expand_as(scale).contiguous()
        packed = packing.active()
        kernel = compiled(_forward, *kind, packed)
        spikes, bits = kernel(x.detach(), scale, shift, plain(leak), thresholds, dynamics, steps, packed)
        if packed:
            packing.note(spikes, bits)
        ctx.save_for_backward(x, weight, bias, mean, var, inverse, scale, shift, thresholds, leak, threshold, alpha)
        ctx.settings = kind, dynamics, steps, norm.training, norm.eps
        return spikes

    @staticmethod
    def backward(ctx, grad):
        x, weight, bias, mean, var, inverse, scale, shift, thresholds, leak, threshold, alpha = ctx.saved_tensors
        kind, dynamics, steps, training, eps = ctx.settings
        if torch.is_grad_enabled() or batched(grad):

            def run(x, weight, bias, leak, threshold):
                used = (None, None) if training else (mean, var)
                norm = Normalisation(weight.to(mean.dtype), bias.to(mean.dtype), *used, 0.0, eps, training)
                rows = x.to(mean.dtype).expand(steps, -1, -1)
                return _reference(rows, norm, steps, leak, threshold, alpha, dynamics).to(x.dtype)

            inputs = (x, weight, bias, leak, threshold)
            *normalised, g_leak, g_threshold = differentiable_gradients(run, inputs, grad)
            return *normalised, None, None, g_leak, g_threshold, None, None, None
        wants = ctx.needs_input_grad[5:7]
        kernel = compiled(_adjoint, *kind, grad.dtype, wants)
        g, g_leak, g_threshold = kernel(
            x, grad.contiguous(), scale, shift, plain(leak), thresholds, plain(alpha), dynamics, steps, wants
        )
        g_x, g_weight, g_bias = torch.ops.aten.native_batch_norm_backward(
            g.flatten(0, 1), x.flatten(0, 1), weight.to(mean.dtype), mean, var, mean, inverse,
            training, eps, [True, True, True],
        )  # fmt: skip
        g_leak, g_threshold = like(g_leak, leak), like(g_threshold, threshold)
        g_weight, g_bias = like(g_weight, weight), like(g_bias, bias)
        return g_x.view(x.shape), g_weight, g_bias, None, None, g_leak, g_threshold, None, None, None


@torch.no_grad()
def _statistics(x: Tensor, norm: Normalisation, steps: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance to normalise by, and bring the running statistics up to date."""
    wide = membrane_dtype(x.dtype)
    if not norm.training:  # copies: whatever moves the running statistics, this call's gradient stays this call's
        return norm.running_mean.to(wide, copy=True), norm.running_var.to(wide, copy=True)
    rows = x.flatten(0, 1)
    n = rows.shape[0]
    running = norm.running_mean.to(wide), norm.running_var.to(wide)
    if steps == x.shape[0]:
        mean, var = torch.batch_norm_update_stats(rows, *running, norm.momentum)
    else:  # the running variance is that of T copies
        mean, var = torch.batch_norm_update_stats(rows, running[0], None, norm.momentum)
        running[1].lerp_(var * (steps * n / (steps * n - 1)), norm.momentum)
    if norm.running_mean.dtype != wide:
        norm.running_mean.copy_(running[0])
        norm.running_var.copy_(running[1])
    return mean, var


def _reference(x, norm, steps, leak, threshold, alpha, dynamics) -> Tensor:
    """Normalise, then run the neuron; x is `(T, M, C)` here."""
    y = F.batch_norm(x.flatten(0, 1), norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training,
                     norm.momentum, norm.eps)  # fmt: skip
    return multi_step(y.view(x.shape), leak, threshold, alpha, dynamics, backend="reference").spikes


def normalised_spikes(
    x: Tensor,
    norm: Normalisation,
    steps: int,
    leak: Tensor | None,
    threshold: Tensor,
    alpha: Tensor,
    dynamics: Dynamics,
    *,
    copies: bool = False,
    backend: Backend = "fused",
) -> Tensor:
    """Normalise and fire.

    Args:
        x: `(T*B, ..., C)`, T outermost, channels last; with `copies`, `(B, ..., C)` that stands for T equal steps.
        norm: the normalisation.
        steps: T.
        leak, threshold, alpha, dynamics: see `ops.neuron.multi_step`.
        copies: whether x is one step for all.
        backend: "fused" (the caller has asked `fused_neuron.applies`), or "reference".

    Returns:
        Spikes `(T*B, ..., C)` in the type of x.
    """
    rows = x.reshape(1 if copies else steps, -1, x.shape[-1])
    shape = (steps * x.shape[0] if copies else x.shape[0], *x.shape[1:])
    if backend == "reference":
        rows = rows.expand(steps, -1, -1)
        return _reference(rows, norm, steps, leak, threshold, alpha, dynamics).reshape(shape)
    leak, dynamics = without_division(leak, dynamics)
    if leak is not None:
        leak = leak.to(membrane_dtype(x.dtype))
    rows = rows.contiguous()
    statistics = _statistics(rows, norm, steps)
    spikes = _NormNeuron.apply(rows, norm.weight, norm.bias, statistics, norm, leak, threshold, alpha, dynamics, steps)
    return spikes.view(shape)
