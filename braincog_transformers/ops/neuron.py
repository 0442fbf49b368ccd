"""Integrate-and-fire neurons over T steps, as pure functions: LIF, PLIF and IF.

With `v[-1] = v_reset`, for t = 0 .. T-1

    charge   LIF    h[t] = v[t-1] + (x[t] - (v[t-1] - v_reset)) / tau      (without `decay_input`: x[t] is added
    undivided)
             PLIF   the same with k = sigmoid(w) in place of 1 / tau
             IF     h[t] = v[t-1] + x[t]
    fire     s[t] = 1 if h[t] >= threshold else 0
    reset    hard   v[t] = (1 - s[t]) h[t] + s[t] v_reset
             soft   v[t] = h[t] - s[t] threshold

The gradient of s is a surrogate (`ops.surrogate`); with `detach_reset` the s in the reset counts as a constant. The
membrane is kept in float32 (float64 for float64 input), whatever the input's type.

`step` and `_reference` are the definition. `ops.kernels.fused_neuron` computes the same from compiled kernels.

Source: Fang et al., Incorporating Learnable Membrane Time Constant (ICCV 2021, arXiv 2007.05785), equations 1 to 5,
8; BrainCog's `LIFNode`, `PLIFNode` and `IFNode`, whose order of operations is kept so that results agree to the last
bit.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..runtime.watching import followed
from .dynamics import Dynamics, charge, membrane_dtype, reset
from .kernels import fused_neuron
from .surrogate import SURROGATES, spike

__all__ = ["NeuronOutput", "multi_step", "step"]

Backend = Literal["reference", "fused"]


class NeuronOutput(NamedTuple):
    """Spikes and, where they were asked for, membrane potentials after the reset, both `(T, ...)`."""

    spikes: Tensor
    potentials: Tensor | None


def step(
    x: Tensor,
    v: Tensor,
    leak: Tensor | None,
    threshold: Tensor,
    alpha: Tensor,
    dynamics: Dynamics,
    fire: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Advance one step.

    Args:
        x: input current, any shape.
        v: membrane potential left by the step before, the shape of `x`, in `membrane_dtype`.
        leak: tau for "lif" (steps, above 1), k for "plif" (0 to 1), None for "if"; a scalar tensor.
        threshold: scalar tensor.
        alpha: steepness of the surrogate, scalar tensor.
        dynamics: the kind of neuron.
        fire: a spike function with a gradient of its own, instead of `dynamics.surrogate`.

    Returns:
        Spikes in the type of `x`, and the membrane potential after the reset.
    """
    if dynamics.detach_mem:
        v = v.detach()
    h = charge(x.to(v.dtype), v, leak, dynamics)
    over = h - threshold
    ours = fire is None or (dynamics.surrogate in SURROGATES and followed())  # few functions can be transformed
    s = spike(over, alpha, dynamics.surrogate, dynamics.strict) if ours else fire(over)
    v = reset(h, s.detach() if dynamics.detach_reset else s, threshold, dynamics)
    return s.to(x.dtype), v


def _reference(x, leak, threshold, alpha, dynamics, fire=None) -> NeuronOutput:
    """Run `step` over the first axis of `x`, from the resting potential."""
    v = torch.full_like(x[0], dynamics.v_reset, dtype=membrane_dtype(x.dtype))
    spikes, potentials = [], []
    for x_t in x.unbind(0):
        s, v = step(x_t, v, leak, threshold, alpha, dynamics, fire)
        spikes.append(s)
        potentials.append(v)
    return NeuronOutput(torch.stack(spikes), torch.stack(potentials))


def multi_step(
    x: Tensor,
    leak: Tensor | None,
    threshold: Tensor,
    alpha: Tensor,
    dynamics: Dynamics,
    *,
    fire: Callable[[Tensor], Tensor] | None = None,
    with_potentials: bool = False,
    backend: Backend | None = None,
) -> NeuronOutput:
    """Run a neuron over T steps from its resting potential.

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
    plain = with_potentials or fire is not None
    if backend != "reference" and not plain and fused_neuron.applies(x, leak, dynamics, forced=backend == "fused"):
        return NeuronOutput(fused_neuron.spikes(x, leak, threshold, alpha, dynamics, _reference), None)
    if backend == "fused":
        raise RuntimeError(f"multi_step: no fused kernel for {x.dtype} on {x.device} with T={x.shape[0]}, {dynamics}")
    spikes, potentials = _reference(x, leak, threshold, alpha, dynamics, fire)
    return NeuronOutput(spikes, potentials if with_potentials else None)
