"""Spiking neurons over T steps, as pure functions: one step (`advance`), and T of them (`run`).

A neuron is given by its step; integrate-and-fire neurons by `advance`. With `v[-1] = v_reset`, for t = 0 .. T-1

    charge   LIF    h[t] = v[t-1] + (x[t] - (v[t-1] - v_reset)) / tau      (without `decay_input`: x[t] is added
    undivided)
             PLIF   the same with k = sigmoid(w) in place of 1 / tau
             IF     h[t] = v[t-1] + x[t]
    fire     s[t] = 1 if h[t] >= threshold else 0
    reset    hard   v[t] = (1 - s[t]) h[t] + s[t] v_reset
             soft   v[t] = h[t] - s[t] threshold

The gradient of s is a surrogate (`ops.surrogate`); with `detach_reset` the s in the reset counts as a constant. The
membrane is kept in float32 (float64 for float64 input), whatever the input's type.

This is the definition; `ops.kernels` computes the same faster.

Source: Fang et al., Incorporating Learnable Membrane Time Constant (ICCV 2021, arXiv 2007.05785), equations 1 to 5,
8; BrainCog's `LIFNode`, `PLIFNode` and `IFNode`, whose order of operations is kept so that results agree to the last
bit.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["Dynamics", "Fire", "Membrane", "Neuron", "Numbers", "advance", "charge", "membrane_dtype", "move", "reset"]
__all__ += ["run"]

Fire = Callable[[Tensor], Tensor]


class Dynamics(NamedTuple):
    """What kind of integrate-and-fire neuron it is; the numbers (tau or k, threshold, alpha) travel beside it.

    Args:
        charge: which charging equation, see the module's docstring.
        surrogate: a key of `ops.surrogate.SURROGATES`.
        decay_input: divide the input by tau too.
        soft_reset: subtract the threshold instead of going back to `v_reset`.
        detach_reset: no gradient through the spike in the reset.
        detach_mem: no gradient from one step to the one before (BrainCog's `mem_detach`).
        strict: fire above the threshold only, as BrainCog's arctangent and gate surrogates do.
        v_reset: resting potential, where every sequence starts.
    """

    charge: Literal["lif", "plif", "if"] = "lif"
    surrogate: str = "SigmoidGrad"
    decay_input: bool = True
    soft_reset: bool = False
    detach_reset: bool = True
    detach_mem: bool = False
    strict: bool = False
    v_reset: float = 0.0


class Membrane(NamedTuple):
    """State of an integrate-and-fire neuron: its potential after the reset."""

    v: Tensor | float


class Numbers(NamedTuple):
    """What `advance` reads: tau for "lif" (steps, above 1), k for "plif" (0 to 1) or None for "if"; the threshold."""

    leak: Tensor | None
    threshold: Tensor
    dynamics: Dynamics


def charge(x: Tensor, v: Tensor, leak: Tensor | None, dynamics: Dynamics) -> Tensor:
    """Add one step's input to the membrane."""
    if dynamics.charge == "if":
        return v + x
    from_rest = v - dynamics.v_reset if dynamics.v_reset else v
    decayed = x - from_rest if dynamics.decay_input else -from_rest
    change = decayed / leak if dynamics.charge == "lif" else decayed * leak
    return v + change if dynamics.decay_input else v + change + x


def reset(h: Tensor, s: Tensor, threshold: Tensor, dynamics: Dynamics) -> Tensor:
    """Bring the membrane back where `s` is 1."""
    if dynamics.soft_reset:
        return h - s * threshold
    v = h * (1 - s)
    return v + s * dynamics.v_reset if dynamics.v_reset else v


def advance(x: Tensor, state: Membrane, numbers: Numbers, fire: Fire) -> tuple[Tensor, Membrane]:
    """Take one step of an integrate-and-fire neuron."""
    leak, threshold, dynamics = numbers
    h = charge(x, state.v, leak, dynamics)
    s = fire(h - threshold)
    return s, Membrane(reset(h, s.detach() if dynamics.detach_reset else s, threshold, dynamics))


# Any neuron


class Neuron(NamedTuple):
    """What a neuron is, but for its parameters.

    Args:
        advance: one step: maps input, state, parameters and `fire` to spikes and the next state.
        rest: state with which every sequence begins, in numbers, the membrane potential first.
        detach: no gradient from one step to the one before.
    """

    advance: Callable[[Tensor, NamedTuple, NamedTuple, Fire], tuple[Tensor, NamedTuple]]
    rest: NamedTuple
    detach: bool


def membrane_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which the membrane is kept for input of type `dtype`."""
    # PyTorch 2.6 would export `torch.promote_types` as an operation
    wide = dtype.itemsize >= 4 and (dtype.is_floating_point or dtype.is_complex)
    return dtype if wide else torch.float32


def move(neuron: Neuron, x: Tensor, state: NamedTuple, parameters: NamedTuple, fire: Fire) -> tuple[Tensor, NamedTuple]:
    """Take one step with input `x` of any shape; spikes come in its type, whatever that of the state is."""
    wide = membrane_dtype(x.dtype)
    parts = [v if isinstance(v, Tensor) else torch.full_like(x, v, dtype=wide) for v in state]
    if neuron.detach:
        parts = [part.detach() for part in parts]
    # called, since PyTorch 2.6 can't trace `_make`
    s, state = neuron.advance(x.to(wide), type(state)(*parts), parameters, fire)
    return s.to(x.dtype), state


def run(neuron: Neuron, x: Tensor, parameters: NamedTuple, fire: Fire) -> tuple[Tensor, Tensor]:
    """Take all steps from rest.

    Args:
        neuron: what it is.
        x: input `(T, ...)`, T at least 1, floating point.
        parameters: what its step reads.
        fire: maps the potential minus the threshold to spikes.

    Returns:
        Spikes, in the type of x, and the membrane potential after each step, in `membrane_dtype`, both `(T, ...)`.
    """
    state, fired, potentials = neuron.rest, [], []
    for x_t in x.unbind(0):
        s, state = move(neuron, x_t, state, parameters, fire)
        fired.append(s)
        potentials.append(state[0])
    return torch.stack(fired), torch.stack(potentials)
