"""Batch normalisation and the neuron behind it as one operation.

`normalised_spikes` with the backend "reference" is the definition: the neuron of `batch_norm(x)`. The fused form takes
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
from ..neuron import Dynamics, membrane_dtype
from .fused_neuron import Backend, Kernels, RunKernels, reference, run_backward, run_forward, without_division
from .spikes import derivative_for

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


def _adjoint(grad, x, scale, shift, leak, threshold, alpha, dynamics: Dynamics, steps: int, wants: tuple[bool, bool]):
    """Return the gradient of the potentials in the shape and type of x, of k and of the threshold."""
    y = (x.to(scale.dtype) * scale + shift).expand(steps, -1, -1)
    derivative = derivative_for(dynamics.surrogate, x.dtype, x.device.type)
    grads, g_leak, g_threshold = run_backward(y, grad, leak, threshold, alpha, dynamics, derivative)
    grads = [sum(grads)] if x.shape[0] == 1 else grads
    g = torch.stack([g.to(x.dtype) for g in grads])
    return g, g_leak.sum() if wants[0] else None, g_threshold.sum() if wants[1] else None


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
    return reference(y.view(x.shape), leak, threshold, alpha, dynamics).spikes


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
        leak, threshold, alpha, dynamics: see `fused_neuron.multi_step`.
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
    kernels = _kernels(rows, norm, threshold.detach(), dynamics, steps)
    return RunKernels.apply(kernels, rows, norm.weight, norm.bias, leak, threshold, alpha).view(shape)


@torch.no_grad()
def _kernels(x: Tensor, norm: Normalisation, threshold: Tensor, dynamics: Dynamics, steps: int) -> Kernels:
    """Return the kernels for x `(T, M, C)`, or `(1, M, C)` that stands for T equal steps."""
    training, eps = norm.training, norm.eps
    mean, var = _statistics(x, norm, steps)
    inverse = torch.rsqrt((var.double() if training else var) + eps).to(var.dtype)
    scale = inverse * norm.weight.to(inverse.dtype)
    shift = norm.bias.to(inverse.dtype) - mean * scale
    # a threshold by channel keeps the axis of channels in every step's loop: then the compiler makes one of all
    thresholds = threshold.to(scale.dtype).expand_as(scale).contiguous()
    kind = x.shape[0] == 1, steps, x.dtype, x.device.type, dynamics

    def forward(x, weight, bias, leak, threshold, alpha):
        packed = packing.active()
        return compiled(_forward, *kind, packed)(x, scale, shift, leak, thresholds, dynamics, steps, packed)

    def backward(wants, grad, x, weight, bias, leak, threshold, alpha):
        kernel = compiled(_adjoint, *kind, grad.dtype, wants[3:5])
        g, *g_numbers = kernel(grad, x, scale, shift, leak, thresholds, alpha, dynamics, steps, wants[3:5])
        g_inputs = torch.ops.aten.native_batch_norm_backward(
            g.flatten(0, 1), x.flatten(0, 1), weight.to(mean.dtype), mean, var, mean, inverse,
            training, eps, [True, True, True],
        )  # fmt: skip
        return *g_inputs, *g_numbers, None

    def definition(x, weight, bias, leak, threshold, alpha):
        used = (None, None) if training else (mean, var)
        again = Normalisation(weight.to(mean.dtype), bias.to(mean.dtype), *used, 0.0, eps, training)
        rows = x.to(mean.dtype).expand(steps, -1, -1)
        return _reference(rows, again, steps, leak, threshold, alpha, dynamics).to(x.dtype)

    return Kernels(forward, backward, definition)
