"""The neurons of the papers, LIF, PLIF and IF, which have kernels of their own."""

import math
from types import FunctionType
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import UserError
from ..ops.dynamics import Dynamics
from ..ops.kernels import fused_neuron
from ..ops.kernels.norm_neuron import Normalisation, normalised_spikes
from ..ops.neuron import multi_step, step
from ..runtime.watching import is_hooked, is_patched
from .base import SpikingNode, fill, is_scalar
from .surrogates import is_known

__all__ = ["FusableNode", "IFNode", "LIFNode", "PLIFNode"]


class _Membrane(NamedTuple):
    v: Tensor | float


class _Read(NamedTuple):
    leak: Tensor | None
    threshold: Tensor
    dynamics: Dynamics


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
    State = _Membrane

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

    def rest(self) -> _Membrane:
        """Return the resting potential."""
        return _Membrane(self.v_reset)

    def _read(self, dtype: torch.dtype) -> _Read:
        return _Read(self.leak(), self.get_thres(), self.dynamics)

    def _run(self, x: Tensor, parameters: _Read, with_potentials: bool) -> tuple[Tensor, Tensor | None]:
        leak, threshold, dynamics = parameters
        return multi_step(
            x,
            leak,
            threshold,
            self.act_fun.alpha,
            dynamics,
            fire=self._own_fire,
            with_potentials=with_potentials,
            backend=None if is_scalar(leak) and is_scalar(threshold) else "reference",
        )

    def _advance(self, x: Tensor, state: _Membrane, parameters: _Read) -> tuple[Tensor, _Membrane]:
        leak, threshold, dynamics = parameters
        spikes, v = step(x, state.v, leak, threshold, self.act_fun.alpha, dynamics, self._own_fire)
        return spikes, _Membrane(v)

    @property
    def fusable(self) -> bool:
        """Whether the node does nothing but fire, so that a kernel may do it together with what is in front."""
        recorded = self.requires_fp or self.requires_mem
        simple = self._own_fire is None and is_scalar(self.leak()) and is_scalar(self.get_thres())
        return self.layer_by_layer and simple and not recorded

    def joins(self, bn: nn.Module, x: Tensor, copies: int = 1) -> bool:
        """Tell whether one kernel may take the place of `self(bn(x))`, calling neither of the two.

        So a class of the user's, a method replaced, a hook on one of them or on all modules keeps them apart, and
        everybody runs, and sees what he expects.
        """
        if torch.compiler.is_compiling() or type(self) not in _WRITTEN or type(bn) not in _WRITTEN:
            return False
        if not self.fusable or not _complete(bn):
            return False
        if x.shape[0] % self.step if copies == 1 else copies != self.step:
            return False
        # of a single value there is no variance: batch norm says so
        many = x.numel() > x.shape[1 if x.dim() == 4 else -1]
        steps = x.unflatten(0, (self.step, -1)) if copies == 1 else x.expand(self.step, *x.shape)
        applies = many and fused_neuron.applies(steps, self.leak(), self.dynamics)
        return applies and _as_written(bn) and _as_written(self)

    def after(self, bn: nn.Module, x: Tensor, copies: int = 1) -> Tensor:
        """Return the spikes behind a normalisation, see `SpikingNode.after`: in one kernel where that `joins`."""
        if not self.joins(bn, x, copies):
            return super().after(bn, x, copies)
        if bn.training:
            bn.num_batches_tracked.add_(1)
        norm = Normalisation(bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum, bn.eps, bn.training)
        numbers = self.leak(), self.get_thres(), self.act_fun.alpha
        last = rearrange(x, "b c h w -> b h w c") if x.dim() == 4 else x
        spikes = normalised_spikes(last, norm, self.step, *numbers, self.dynamics, copies=copies > 1)
        return rearrange(spikes, "b h w c -> b c h w") if x.dim() == 4 else spikes


class IFNode(FusableNode):
    """Integrate-and-fire neuron: the membrane adds up its input.

    Args:
        *args, **kwargs: see `FusableNode` and `SpikingNode`; a time constant is left alone.
    """

    charge = "if"


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


def _methods(cls: type) -> dict[str, Any]:
    """Return the methods that a call may run, those of PyTorch's `nn.Module` left out."""
    ours = cls.__mro__[: cls.__mro__.index(nn.Module)]
    kinds = FunctionType | property | staticmethod
    return {name: getattr(cls, name) for base in ours for name, value in vars(base).items() if isinstance(value, kinds)}


# What the kernel does the work of: these classes as they were written, and none that derives from them.
_WRITTEN = {cls: _methods(cls) for cls in (nn.BatchNorm1d, nn.BatchNorm2d, IFNode, LIFNode, PLIFNode)}


def _as_written(module: nn.Module) -> bool:
    """Tell whether a call of `module` runs what its class was written with and nothing else."""
    cls = type(module)
    written = all(getattr(cls, name) is value for name, value in _WRITTEN[cls].items())
    return written and not is_patched(module) and not is_hooked(module)


def _complete(bn: nn.Module) -> bool:
    """Tell whether a batch normalisation has all that the kernel reads and brings up to date."""
    parts = (bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.num_batches_tracked, bn.momentum)
    return bn.track_running_stats and all(part is not None for part in parts)
