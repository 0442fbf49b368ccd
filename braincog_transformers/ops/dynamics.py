"""The equations that every form of a neuron shares: what kind it is, how it charges, how it resets.

See `ops.neuron` for the whole. These functions are used by the plain definition there and by the compiled kernels
alike, so the two can't drift apart.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["Dynamics", "charge", "membrane_dtype", "reset"]


class Dynamics(NamedTuple):
    """What kind of neuron it is; the numbers (tau or k, threshold, alpha) are tensors and travel beside it.

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


def membrane_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which the membrane is kept for input of type `dtype`."""
    return torch.promote_types(dtype, torch.float32)


def charge(x: Tensor, v: Tensor, leak: Tensor | None, dynamics: Dynamics) -> Tensor:
    """Add one step's input to the membrane; `leak` is tau (LIF), k (PLIF) or None (IF)."""
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
