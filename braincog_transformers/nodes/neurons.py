"""The neurons of the papers, LIF, PLIF and IF. What they compute is `ops.neuron`; they have kernels of their own."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..ops.kernels import fused_neuron
from ..ops.neuron import Dynamics, Membrane, Numbers, advance
from .base import SpikingNode, fill, is_scalar
from .fused import as_written, fused_spikes, fuses
from .surrogates import is_known

__all__ = ["FusableNode", "IFNode", "LIFNode", "PLIFNode"]


class FusableNode(SpikingNode):
    """What the three share: the dynamics of `ops.neuron`. A subclass names its charge and holds its leak.

    Args:
        threshold, act_fun: see `SpikingNode`.
        decay_input: divide the input by tau too (not for IF).
        soft_reset: subtract the threshold instead of going back to rest.
        detach_reset: no gradient through the spike in the reset.
        **kwargs: see `SpikingNode`.

    Attributes:
        v_reset: resting potential, where every sequence begins.
    """

    charge: str
    State, Parameters = Membrane, Numbers
    advance = staticmethod(advance)

    def __init__(
        self,
        threshold: float = 0.5,
        act_fun: str | type = "AtanGrad",
        *,
        decay_input: bool = True,
        soft_reset: bool = False,
        detach_reset: bool = True,
        **kwargs: Any,
    ):
        super().__init__(threshold, act_fun, **kwargs)
        self.decay_input = decay_input
        self.soft_reset = soft_reset
        self.detach_reset = detach_reset

    def leak(self) -> Tensor | None:
        """Return tau, k or nothing, as the charge wants it."""
        return None

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(
            charge=self.charge,
            surrogate=type(self.act_fun).__name__ if is_known(self.act_fun) else repr(type(self.act_fun)),
            decay_input=self.decay_input,
            soft_reset=self.soft_reset,
            detach_reset=self.detach_reset,
            detach_mem=self.mem_detach,
            strict=self.strict,
            v_reset=float(self.v_reset),
        )

    def rest(self) -> Membrane:
        """Return the resting potential."""
        return Membrane(self.v_reset)

    def _read(self, dtype: torch.dtype) -> Numbers:
        return Numbers(self.leak(), self.get_thres(), self.dynamics)

    def _run(self, x: Tensor, parameters: Numbers, with_potentials: bool) -> tuple[Tensor, Tensor | None]:
        if self.advance is not advance:  # a step of the user's
            return super()._run(x, parameters, with_potentials)
        leak, threshold, dynamics = parameters
        options = {} if is_scalar(leak) and is_scalar(threshold) else {"backend": "reference"}
        options["fire"] = self._own_fire and self._fire
        alpha = self.act_fun.alpha
        return fused_neuron.multi_step(x, leak, threshold, alpha, dynamics, with_potentials=with_potentials, **options)

    @property
    def fusable(self) -> bool:
        """Whether the node does nothing but fire, so that a kernel may do it together with what is in front."""
        recorded = self.requires_fp or self.requires_mem
        simple = self._own_fire is None and is_scalar(self.leak()) and is_scalar(self.get_thres())
        return self.layer_by_layer and simple and not recorded

    def fuses(self, bn: nn.Module, x: Tensor, copies: int = 1) -> bool:
        """Tell whether one kernel may take the place of `self(bn(x))`."""
        return fuses(self, bn, x, copies)

    def after(self, bn: nn.Module, x: Tensor, copies: int = 1) -> Tensor:
        """Return the spikes behind a normalisation, see `SpikingNode.after`: in one kernel where it `fuses`."""
        return fused_spikes(self, bn, x, copies) if self.fuses(bn, x, copies) else super().after(bn, x, copies)


@as_written
class IFNode(FusableNode):
    """Integrate-and-fire neuron: the membrane adds up its input.

    Args:
        *args, **kwargs: see `FusableNode` and `SpikingNode`; a time constant is left alone.
    """

    charge = "if"


@as_written
class LIFNode(FusableNode):
    """Leaky integrate-and-fire neuron with a fixed time constant.

    Args:
        threshold: firing threshold, dimensionless.
        tau: time constant in steps, at least 1.
        act_fun: surrogate gradient, a BrainCog class or its name.
        **kwargs: see `FusableNode` and `SpikingNode`.
    """

    charge = "lif"

    def __init__(self, threshold: float = 0.5, tau: float = 2.0, act_fun: str | type = "QGateGrad", **kwargs: Any):
        super().__init__(threshold, act_fun, **kwargs)
        self.tau = 2.0
        self.set_n_tau(tau)

    def set_n_tau(self, tau: float) -> None:
        """Set the time constant, in steps."""
        if tau < 1:
            raise UserError(f"LIFNode: tau must be at least 1 step; got {tau}")
        if isinstance(self.tau, Tensor):
            fill(self, "tau", tau)
        else:
            self.tau = float(tau)

    def leak(self) -> Tensor:
        if isinstance(self.tau, Tensor):  # a parameter, as BrainCog's set_n_tau makes one
            return self.tau
        # A scalar on the CPU mixes with tensors of any device and type, like a Python number, and is exact.
        return torch.tensor(self.tau, dtype=torch.float64)

    def extra_repr(self) -> str:
        shown = f"tau={self.tau:g}, " if isinstance(self.tau, float) else ""
        return shown + super().extra_repr()


@as_written
class PLIFNode(FusableNode):
    """Leaky integrate-and-fire neuron that learns its time constant: 1/tau is the sigmoid of the parameter `w`.

    Args:
        threshold: firing threshold, dimensionless.
        tau: time constant to start from, in steps, above 1.
        act_fun: surrogate gradient, a BrainCog class or its name.
        requires_alpha_grad: learn the surrogate's steepness.
        **kwargs: see `FusableNode` and `SpikingNode`.

    Source: Fang et al., ICCV 2021, arXiv 2007.05785, equation 8.
    """

    charge = "plif"

    def __init__(
        self,
        threshold: float = 1.0,
        tau: float = 2.0,
        act_fun: str | type = "AtanGrad",
        *,
        requires_alpha_grad: bool = True,
        **kwargs: Any,
    ):
        super().__init__(threshold, act_fun, requires_alpha_grad=requires_alpha_grad, **kwargs)
        self.w = nn.Parameter(torch.zeros(()))
        self.set_n_tau(tau)

    def set_n_tau(self, tau: float) -> None:
        """Set the time constant, in steps; it goes on learning from there."""
        if tau <= 1:
            raise UserError(f"PLIFNode: tau must be above 1 step; got {tau}")
        fill(self, "w", -math.log(tau - 1))

    def leak(self) -> Tensor:
        return self.w.sigmoid()
