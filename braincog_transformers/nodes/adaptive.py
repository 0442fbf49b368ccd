"""Neurons with a second state variable, or a threshold that follows their input; each is written as one step."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from .base import SpikingNode

__all__ = ["ALIFNode", "CLIFNode", "DynamicThresholdNode"]


class ALIFNode(SpikingNode):
    """LIF neuron whose threshold rises with each of its spikes and falls back: `threshold + beta * a`.

    Args:
        threshold: threshold at rest, dimensionless.
        tau: time constant of the membrane, in steps, at least 1.
        tau_adaptation: time constant of the threshold, in steps, above 0.
        beta: how far a spike raises the threshold, in the end `beta / tau_adaptation` each.
        **kwargs: see `SpikingNode`.

    Source: Bellec et al., Long short-term memory and learning-to-learn in networks of spiking neurons (NeurIPS 2018,
    arXiv 1803.09574), equations 1 to 3, with BrainCog's leak, 1 - 1/tau, in place of exp(-1/tau).
    """

    class State(NamedTuple):
        v: Tensor = 0.0
        a: Tensor = 0.0

    class Parameters(NamedTuple):
        threshold: Tensor
        tau: Tensor
        rho: Tensor
        beta: Tensor

    def __init__(
        self,
        threshold: float = 0.5,
        tau: float = 2.0,
        tau_adaptation: float = 20.0,
        beta: float = 1.8,
        **kwargs: Any,
    ):
        super().__init__(threshold, **kwargs)
        if tau < 1 or tau_adaptation <= 0:
            raise UserError(f"ALIFNode: tau from 1 and tau_adaptation above 0 are steps; got {tau}, {tau_adaptation}")
        self.tau, self.rho, self.beta = float(tau), math.exp(-1 / tau_adaptation), float(beta)

    @staticmethod
    def advance(x, state, p, fire):
        h = state.v + (x - state.v) / p.tau
        threshold = p.threshold + p.beta * state.a
        s = fire(h - threshold)
        return s, ALIFNode.State(v=h - s * threshold, a=p.rho * state.a + (1 - p.rho) * s)


class CLIFNode(SpikingNode):
    """Complementary LIF neuron: `m` remembers spikes for as long as the membrane is high, and deepens the reset.

    Args:
        threshold: firing threshold, dimensionless.
        tau: time constant in steps, at least 1.
        **kwargs: see `SpikingNode`.

    Source: Huang et al., CLIF: Complementary Leaky Integrate-and-Fire Neuron for Spiking Neural Networks (ICML 2024,
    arXiv 2402.04663), equations 8 to 11; the input is not divided by tau.
    """

    class State(NamedTuple):
        v: Tensor = 0.0
        m: Tensor = 0.0

    class Parameters(NamedTuple):
        threshold: Tensor
        tau: Tensor

    def __init__(self, threshold: float = 1.0, tau: float = 2.0, **kwargs: Any):
        super().__init__(threshold, **kwargs)
        if tau < 1:
            raise UserError(f"CLIFNode: tau must be at least 1 step; got {tau}")
        self.tau = float(tau)

    @staticmethod
    def advance(x, state, p, fire):
        k = 1 / p.tau  # of one number: a division of every element costs as much as a sigmoid
        h = state.v * (1 - k) + x
        s = fire(h - p.threshold)
        m = state.m * torch.sigmoid(h * k) + s
        return s, CLIFNode.State(v=h - s * (p.threshold + torch.sigmoid(m)), m=m)


class DynamicThresholdNode(SpikingNode):
    """Leaky neuron whose threshold somebody sets anew for every call, as a tensor; it gets no gradient.

    It fires above the threshold only. For t = 0, 1, ...

        m[t] = decay m[t-1] (1 - s[t-1]) + x[t]
        s[t] = 1 if m[t] > threshold else 0

    from m = s = 0. The reset belongs to the next step, so the potential `mem` is the charged one, and the gradient goes
    through it. The surrogate is a rectangle of height 1, for potentials closer than 1/2 to the threshold.

    Args:
        threshold: the threshold as long as none is set, dimensionless.
        decay: share of the potential that is left after a step, in [0, 1].
        **kwargs: see `SpikingNode`.

    Attributes:
        dynamic: the threshold that was set, a scalar tensor; `n_reset` forgets it.

    Source: Zhang et al., Spiking Transformers for Event-based Single Object Tracking (CVPR 2022), official code.
    """

    dynamic: Tensor | None = None

    class State(NamedTuple):
        m: Tensor = 0.0
        s: Tensor = 0.0

    class Parameters(NamedTuple):
        threshold: Tensor
        decay: Tensor

    def __init__(self, threshold: float = 0.3, decay: float = 0.2, act_fun: str | type = "GateGrad", **kwargs: Any):
        super().__init__(threshold, act_fun, **kwargs)
        if not 0 <= decay <= 1:
            raise UserError(f"DynamicThresholdNode: decay must be a share from 0 to 1; got {decay}")
        self.decay = float(decay)

    def get_thres(self) -> Tensor:
        """Return the threshold that was set, or else the one to begin with."""
        return super().get_thres() if self.dynamic is None else self.dynamic.detach()

    def n_reset(self) -> None:
        """Forget the state, what was recorded and the threshold that was set."""
        super().n_reset()
        self.dynamic = None

    @staticmethod
    def advance(x, state, p, fire):
        m = state.m * p.decay * (1 - state.s) + x
        return (s := fire(m - p.threshold)), DynamicThresholdNode.State(m=m, s=s)
