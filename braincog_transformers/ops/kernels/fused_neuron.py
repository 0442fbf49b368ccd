"""Kernels for integrate-and-fire neurons: one pass forward, one backward, and only the input is kept in between.

Forward, a kernel runs the T steps of an element in registers. Backward, a kernel runs them again from the saved input
and then goes through time in reverse with the adjoint of the equations, written out below. `torch.compile` makes C++
of them on a CPU and Triton on a GPU. Numbers (tau, threshold, alpha) are tensors and sizes are symbolic, so a kernel
serves every layer with the same T, type and kind of neuron.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ...runtime import packing
from ...runtime.compiler import compiled, compiler_works
from ...runtime.packing import bits_dtype
from ...runtime.watching import batched, dispatched, watched
from ..neuron import Dynamics, Fire, Membrane, Neuron, Numbers, advance, charge, membrane_dtype, reset, run
from ..surrogate import SURROGATES, fire, spike
from .spikes import derivative_for

__all__ = ["Backend", "Kernels", "NeuronOutput", "RunKernels", "applies", "bits", "compiler_works", "in_memory_order"]
__all__ += ["multi_step", "reference", "run_backward", "run_forward", "spikes", "takes", "without_division"]

Backend = Literal["reference", "fused"]

# The steps are unrolled in the kernel: beyond this many, compiling takes longer than it saves.
MAX_STEPS = 63
# Below this many elements a call costs more than its arithmetic, and compiling would be for nothing.
MIN_ELEMENTS = 1 << 15


def applies(x: Tensor, leak: Tensor | None, dynamics: Dynamics, *, forced: bool = False) -> bool:
    """Tell whether these kernels take this input, and pay (`forced`: whether they take it at all)."""
    known = dynamics.surrogate in SURROGATES and not (dynamics.charge == "lif" and leak.requires_grad)
    return known and takes(x, forced=forced)


def takes(x: Tensor, *, forced: bool = False) -> bool:
    """Tell whether a neuron's kernels may take an input `(T, ...)`, and pay.

    While a whole network is compiled the plain form is better: it fuses with its neighbours. Whoever else follows
    single operations can't follow a kernel.
    """
    if watched() or dispatched() or type(x) is not Tensor or x.layout != torch.strided:
        return False
    fits = 1 <= x.shape[0] <= MAX_STEPS and x.numel() >= (1 if forced else max(1, MIN_ELEMENTS))
    return fits and x.device.type in ("cpu", "cuda") and x.is_floating_point() and compiler_works(x.device.type)


def run_forward(y, leak, threshold, dynamics, dtype, packed: bool):
    """Return the spikes of input `(T, ...)`, given in `membrane_dtype`, in `dtype`; and their bits, or None."""
    _, _, fired = _run(y, leak, threshold, dynamics)
    return torch.stack([s.to(dtype) for s in fired]), bits(fired) if packed else None


def bits(fired: list[Tensor]) -> Tensor:
    """Return the steps as one integer, step t at bit t."""
    dtype = bits_dtype(len(fired))
    word = torch.promote_types(dtype, torch.int32)
    found = 0
    for first in range(0, len(fired), 16):  # powers of two are added as floating point numbers, which is faster
        found = found + (sum(s * (1 << t) for t, s in enumerate(fired[first : first + 16])).to(word) << first)
    return found.to(dtype)


def _forward(x: Tensor, leak: Tensor | None, threshold: Tensor, dynamics: Dynamics, packed: bool):
    return run_forward(x.to(membrane_dtype(x.dtype)), leak, threshold, dynamics, x.dtype, packed)


def _run(y, leak, threshold, dynamics):
    """Return, for each step, the potential before charging, the charged potential, and the spikes."""
    v = torch.full_like(y[0], dynamics.v_reset)
    before, charged, fired = [], [], []
    for y_t in y.unbind(0):
        h = charge(y_t, v, leak, dynamics)
        s = fire(h - threshold, dynamics.strict)
        before.append(v)
        charged.append(h)
        fired.append(s)
        v = reset(h, s, threshold, dynamics)
    return before, charged, fired


def run_backward(y, grad, leak, threshold, alpha, dynamics: Dynamics, derivative):
    """Return the gradients of the input `(T, ...)` as a list by step, of k and of the threshold, not yet summed.

    Going back from t = T-1, with g the gradient arriving at s[t] and `gv` the one arriving at v[t]:
    dh = (g + gv dv/ds) surrogate(h - threshold) + gv dv/dh, then through the charge to y[t], v[t-1] and k.
    """
    before, charged, fired = _run(y, leak, threshold, dynamics)
    gv = torch.zeros_like(y[0])
    g_leak, g_threshold, grads = torch.zeros_like(gv), torch.zeros_like(gv), []
    for t in reversed(range(y.shape[0])):
        h, s, g = charged[t], fired[t], grad[t].to(y.dtype)
        if not dynamics.detach_reset:
            g = g + gv * (-threshold if dynamics.soft_reset else dynamics.v_reset - h)
        through_spike = g * derivative(h - threshold, alpha)
        gh = through_spike + (gv if dynamics.soft_reset else gv * (1 - s))
        g_threshold = g_threshold - through_spike - (gv * s if dynamics.soft_reset else 0)
        leaked = 0 if dynamics.charge == "if" else gh / leak if dynamics.charge == "lif" else gh * leak
        from_rest = before[t] - dynamics.v_reset
        g_leak = g_leak + gh * (y[t] - from_rest if dynamics.decay_input else -from_rest)
        grads.append(leaked if dynamics.decay_input and dynamics.charge != "if" else gh)
        gv = torch.zeros_like(gh) if dynamics.detach_mem else gh - leaked
    return grads[::-1], g_leak, g_threshold


def _backward(grad, x, leak, threshold, alpha, dynamics: Dynamics, want_leak: bool, want_threshold: bool):
    """Return the gradients of the input `(T, M)`, of k and of the threshold (None where not wanted)."""
    derivative = derivative_for(dynamics.surrogate, x.dtype, x.device.type)
    y = x.to(membrane_dtype(x.dtype))
    grads, g_leak, g_threshold = run_backward(y, grad, leak, threshold, alpha, dynamics, derivative)
    return (
        torch.stack([g.to(x.dtype) for g in grads]),
        g_leak.sum() if want_leak else None,
        g_threshold.sum() if want_threshold else None,
    )


def in_memory_order(x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `run(x)` for an elementwise `run`, which is given `(T, M)` in memory order, so no layout is copied."""
    order = [0, *sorted(range(1, x.dim()), key=lambda axis: (-x.stride(axis), axis))]
    folded = x.permute(order)
    out = run(folded.reshape(x.shape[0], -1).contiguous())
    return out.view(folded.shape).permute([order.index(axis) for axis in range(len(order))])


class Kernels(NamedTuple):
    """Both passes of a neuron, and its definition; each gets its input and numbers, which are tensors or None.

    Args:
        forward: returns spikes and their bits, or None for these.
        backward: gets before them which of them want a gradient, and the gradient of the spikes; returns a gradient or
            None for each, or None if there is no such kernel.
        definition: returns spikes by single operations.
    """

    forward: Callable[..., tuple[Tensor, Tensor | None]]
    backward: Callable[..., Sequence[Tensor | None] | None]
    definition: Callable[..., Tensor]


class RunKernels(torch.autograd.Function):
    """Spikes of contiguous input, of which nothing but that and the numbers is kept."""

    @staticmethod
    def forward(ctx, kernels: Kernels, *inputs):
        ctx.save_for_backward(*inputs)
        ctx.kernels = kernels
        spikes, bits = kernels.forward(*map(_detached, inputs))
        if bits is not None:
            packing.note(spikes, bits)
        return spikes

    @staticmethod
    def backward(ctx, grad):
        inputs, found = ctx.saved_tensors, None
        # a gradient that is differentiated again, or stands for many, consists of single operations
        if not (torch.is_grad_enabled() or batched(grad)):
            wants = ctx.needs_input_grad[1:]
            found = ctx.kernels.backward(wants, grad.contiguous(), *map(_detached, inputs))
        if found is None:
            return None, *_gradients_by_operations(ctx.kernels.definition, inputs, grad)
        return None, *(g if g is None else g.to(x.dtype).view(x.shape) for g, x in zip(found, inputs, strict=True))


def _gradients_by_operations(run: Callable[..., Tensor], inputs: tuple, grad: Tensor) -> list[Tensor | None]:
    """Return the gradients of `run(*inputs)`, with a history of their own where that is asked for (`create_graph`)."""
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        found = iter(torch.autograd.grad(run(*inputs), wanted, grad, create_graph=again, allow_unused=True))
    return [next(found) if x is not None and x.requires_grad else None for x in inputs]


def _detached(tensor: Tensor | None) -> Tensor | None:
    """Detach, so that a parameter that learns and one that does not share a kernel."""
    return None if tensor is None else tensor.detach()


def without_division(leak: Tensor | None, dynamics: Dynamics) -> tuple[Tensor | None, Dynamics]:
    """Turn a division by tau into a multiplication where 1/tau is exact, so that not a bit changes."""
    if dynamics.charge != "lif" or leak.device.type != "cpu" or math.frexp(leak.item())[0] != 0.5:
        return leak, dynamics
    return 1 / leak, dynamics._replace(charge="plif")


def spikes(x: Tensor, leak: Tensor | None, threshold: Tensor, alpha: Tensor, dynamics: Dynamics) -> Tensor:
    """Return the spikes `(T, ...)` for input that `applies`; see `multi_step`."""
    leak, dynamics = without_division(leak, dynamics)
    if leak is not None:
        leak = leak.to(membrane_dtype(x.dtype))  # a kernel of mixed types would lose its vector instructions
    kind = x.shape[0], x.dtype, x.device.type, dynamics

    def forward(x, leak, threshold, alpha):
        packed = packing.active()
        return compiled(_forward, *kind, packed)(x, leak, threshold, dynamics, packed)

    def backward(wants, grad, *inputs):
        _, *learnt, _ = wants
        return *compiled(_backward, *kind, grad.dtype, *learnt)(grad, *inputs, dynamics, *learnt), None

    kernels = Kernels(forward, backward, lambda *inputs: reference(*inputs, dynamics).spikes)
    return in_memory_order(x, lambda rows: RunKernels.apply(kernels, rows, leak, threshold, alpha))


class NeuronOutput(NamedTuple):
    """Spikes and, where they were asked for, membrane potentials after the reset, both `(T, ...)`."""

    spikes: Tensor
    potentials: Tensor | None


def reference(x, leak, threshold, alpha, dynamics, fire: Fire | None = None) -> NeuronOutput:
    """Run the definition, see `multi_step`."""
    neuron = Neuron(advance, Membrane(dynamics.v_reset), dynamics.detach_mem)
    fire = fire or partial(spike, alpha=alpha, surrogate=dynamics.surrogate, strict=dynamics.strict)
    return NeuronOutput(*run(neuron, x, Numbers(leak, threshold, dynamics), fire))


def multi_step(
    x: Tensor,
    leak: Tensor | None,
    threshold: Tensor,
    alpha: Tensor,
    dynamics: Dynamics,
    *,
    fire: Fire | None = None,
    with_potentials: bool = False,
    backend: Backend | None = None,
) -> NeuronOutput:
    """Run an integrate-and-fire neuron over T steps from its resting potential.

    Args:
        x: input current `(T, ...)`, T at least 1, floating point.
        leak: tau for "lif", k for "plif", None for "if"; a scalar tensor; k may require a gradient.
        threshold: scalar tensor; may require a gradient.
        alpha: steepness of the surrogate, scalar tensor.
        dynamics: the kind of neuron.
        fire: a spike function with a gradient of its own, instead of `dynamics.surrogate`.
        with_potentials: return the membrane potentials too; else the second field is None.
        backend: "reference" or "fused"; None takes the fused kernels where they work and pay.

    Returns:
        Spikes `(T, ...)` in the type of `x`, potentials `(T, ...)` in `membrane_dtype` or None.

    Raises:
        RuntimeError: if "fused" is asked for and can't be had for this input.
    """
    simple = fire is None and not with_potentials
    if backend != "reference" and simple and applies(x, leak, dynamics, forced=backend == "fused"):
        return NeuronOutput(spikes(x, leak, threshold, alpha, dynamics), None)
    if backend == "fused":
        raise RuntimeError(f"multi_step: no fused kernel for {x.dtype} on {x.device} with T={x.shape[0]}, {dynamics}")
    fired, potentials = reference(x, leak, threshold, alpha, dynamics, fire)
    return NeuronOutput(fired, potentials if with_potentials else None)
