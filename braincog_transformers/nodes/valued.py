"""Neurons whose spikes are worth a number: whole numbers of spikes times a unit leave them.

Networks that are made from ordinary ones (`conversion`) consist of these. An analysis counts their spikes, not their
values.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..ops import planes
from ..ops.neuron import Fire, membrane_dtype
from .base import SpikingNode

__all__ = ["BurstNode", "STBIFNode", "SoftResetNode", "ValuedNode"]


class ValuedNode(SpikingNode):
    """A neuron that puts out whole numbers of spikes, each worth `unit`.

    Args:
        **kwargs: see `SpikingNode`.

    Attributes:
        levels: the largest number of spikes of one step, of either sign.
        relative: whether its potential is counted in thresholds.
    """

    binary = False
    relative: ClassVar[bool] = False
    levels = 1

    @property
    def unit(self) -> Tensor:
        """What one spike is worth: a scalar, or a tensor that fits the neurons."""
        return self.get_thres()

    def counts(self, fired: Tensor) -> Tensor:
        """Return the whole numbers of what it fired; they have a sign if its spikes have one."""
        unit = torch.as_tensor(self.unit, dtype=fired.dtype, device=fired.device)
        return torch.where(unit == 0, fired, fired / unit).round()

    def _run(self, x: Tensor, parameters: NamedTuple, with_potentials: bool) -> tuple[Tensor, Tensor | None]:
        fired, potentials = super()._run(x, parameters, with_potentials)
        return self._noted(fired), potentials

    def _move(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        fired, potential = super()._move(inputs)
        return self._noted(fired), potential

    def _noted(self, fired: Tensor) -> Tensor:
        """Tell who follows whole numbers that these are some."""
        mode = None if torch.compiler.is_compiling() else planes.active()
        if mode is not None:
            unit = self.unit
            if isinstance(unit, Tensor) and unit.numel() > 1:
                mode.note_worth(fired, unit)
            elif unit > 0:  # at 0 nothing is ever fired
                mode.note(fired, {float(unit): self.levels})
        return fired


class _Converted(ValuedNode):
    """A neuron for inference only: the spike has no gradient of interest, so there is no surrogate to choose."""

    def __init__(self, threshold: float | Tensor = 1.0, *, strict: bool = False, **kwargs: Any):
        scalar = not isinstance(threshold, Tensor)
        super().__init__(float(threshold) if scalar else 1.0, "SigmoidGrad", alpha=4.0, strict=strict, **kwargs)
        if not scalar:
            self.threshold = nn.Parameter(threshold.detach().clone(), requires_grad=False)

    def extra_repr(self) -> str:
        if self.threshold.dim() == 0:
            return super().extra_repr()
        return f"threshold={tuple(self.threshold.shape)}, step={self.step}"


class SoftResetNode(_Converted):
    """Integrate-and-fire neuron with soft reset, which puts out `threshold` for a spike. For t = 0 .. T-1

        h[t] = v[t-1] + x[t] / threshold
        s[t] = 1 if h[t] >= 1 else 0        (`strict`: if h[t] > 1)
        v[t] = h[t] - s[t]

    Args:
        threshold: what a spike costs and is worth.
        start: v[-1], as a share of the threshold; 0.5 rounds what a step computes as QCFS does.
        strict: fire above the threshold only.
        **kwargs: see `SpikingNode`.

    Source: Wang et al., Masked Spiking Transformer (ICCV 2023, arXiv 2210.01208); Mueller et al., Spiking Transformer
    Networks (ICSAI 2021), which start at 0 and are strict.
    """

    relative = True

    class State(NamedTuple):
        v: Tensor = 0.0

    class Parameters(NamedTuple):
        threshold: Tensor

    def __init__(self, threshold: float | Tensor = 1.0, *, start: float = 0.5, strict: bool = False, **kwargs: Any):
        super().__init__(threshold, strict=strict, **kwargs)
        self.start = float(start)

    def rest(self) -> NamedTuple:
        super().rest()
        return self.State(self.start)

    @staticmethod
    def advance(x: Tensor, state: NamedTuple, p: NamedTuple, fire: Fire) -> tuple[Tensor, NamedTuple]:
        h = state.v + x / p.threshold
        s = fire(h - 1)
        return s * p.threshold, state._replace(v=h - s)


class STBIFNode(_Converted):
    """Bipolar integrate-and-fire neuron with a spike tracer (ST-BIF): its spikes add up to a quantiser's output.

    The tracer a counts the spikes. For t = 0 .. T-1

        h[t] = v[t-1] + x[t] / threshold,  v[-1] = 0.5
        s[t] = 1 if h[t] >= 1 and a[t-1] < high, -1 if h[t] < 0 and a[t-1] > low, else 0
        a[t] = a[t-1] + s[t],  v[t] = h[t] - s[t]

    and `s threshold` leaves. Once nothing is fired any more, `a = clip(floor(sum of x / threshold + 0.5), low, high)`.

    Args:
        threshold: scale of the quantiser.
        low, high: bounds of the tracer, whole numbers.
        **kwargs: see `SpikingNode`.

    Source: You et al., SpikeZIP-TF (ICML 2024, arXiv 2406.03470).
    """

    relative = True

    class State(NamedTuple):
        v: Tensor = 0.5
        tracer: Tensor = 0.0

    class Parameters(NamedTuple):
        threshold: Tensor
        low: int
        high: int

    def __init__(self, threshold: float | Tensor = 1.0, *, low: int = 0, high: int = 15, **kwargs: Any):
        super().__init__(threshold, **kwargs)
        if low > 0 or high < 1:
            raise UserError(f"STBIFNode: low must be at most 0, high above it; got {low}, {high}")
        self.low, self.high = int(low), int(high)

    @property
    def tracer(self) -> Tensor | float:
        """Sum of the spikes since the reset, as whole numbers; 0 at rest."""
        return self._state.tracer if self._state else 0.0

    @staticmethod
    def advance(x: Tensor, state: NamedTuple, p: NamedTuple, fire: Fire) -> tuple[Tensor, NamedTuple]:
        h = state.v + x / p.threshold
        up = fire(h - 1) * (state.tracer < p.high)
        down = (h < 0) & (state.tracer > p.low)
        s = up - down.to(h.dtype)
        return s * p.threshold, state._replace(v=h - s, tracer=state.tracer + s)

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}, " + super().extra_repr()


class BurstNode(_Converted):
    """Integrate-and-fire neuron of STA: soft reset, bursts of half spikes, and negative spikes that it has memory for.

    With the memory m of what was put out, and c the input of a step,

        u = u + c;  s = threshold if u >= threshold;  with `bipolar` -threshold if u <= -threshold and m > 0;  else 0
        u = u - s;  m = m + s
        with `burst` B: r = max(-m, u) (or max(u, 0) without `bipolar`), half = threshold / 2,
            k = clip(sign(r) floor(|r| / (half + 1e-5)), -B, B) (from 0 without `bipolar`)
            u = u - k half;  m = m + k half (with `bipolar`);  s = s + k half

    and s leaves. A neuron whose threshold is 0 never fires.

    Args:
        threshold: for all neurons, or one of each, in a shape that fits the input.
        burst: B, half spikes at most in one step.
        bipolar: negative spikes may take back what was put out.
        **kwargs: see `SpikingNode`.

    Source: Jiang et al., Spatio-Temporal Approximation (ICLR 2024); official code, `SpikeLinear_ReLU`.
    """

    class State(NamedTuple):
        u: Tensor = 0.0
        memory: Tensor = 0.0

    class Parameters(NamedTuple):
        threshold: Tensor
        burst: int
        bipolar: bool

    def __init__(self, threshold: float | Tensor = 1.0, *, burst: int = 2, bipolar: bool = True, **kwargs: Any):
        super().__init__(threshold, **kwargs)
        self.burst, self.bipolar = int(burst), bool(bipolar)
        self.levels = 2 + self.burst

    @property
    def unit(self) -> Tensor:
        """Half the threshold: what one spike of a burst is worth; a full spike counts twice."""
        return self.get_thres() / 2

    def kept(self, shape: tuple[int, ...], like: Tensor) -> "BurstNode.State":
        """Return the state as tensors, for one who takes a step by `advance` and changes them in place.

        Args:
            shape: of the input.
            like: a tensor of the input's type and device.
        """
        state, dtype = self._state or self.rest(), membrane_dtype(like.dtype)
        full = [v if isinstance(v, Tensor) else like.new_full(shape, v, dtype=dtype) for v in state]
        self._state, self._spike = self.State(*full), None  # nobody holds the spikes
        return self._state

    @staticmethod
    def advance(x: Tensor, state: NamedTuple, p: NamedTuple, fire: Fire | None) -> tuple[Tensor, NamedTuple]:
        threshold = p.threshold
        u, memory = state.u + x, state.memory
        sign = ((u >= threshold) & (u < _FAR)).to(u.dtype)
        if p.bipolar:
            sign = sign - ((u <= -threshold) & (u > -_FAR) & (memory > 0)).to(u.dtype)
        s = sign * threshold
        u, memory = u - s, memory + s
        if p.burst:
            half = threshold / 2
            rest = torch.maximum(-memory, u) if p.bipolar else u.clamp(min=0)
            k = (rest / (half + 1e-5)).trunc().clamp(-p.burst if p.bipolar else 0, p.burst)
            extra = k * half
            u, s = u - extra, s + extra
            memory = memory + extra if p.bipolar else memory
        return s, state._replace(u=u, memory=memory)

    def extra_repr(self) -> str:
        return f"burst={self.burst}, bipolar={self.bipolar}, " + super().extra_repr()


_FAR = 1e5
"""Potentials from here on fire nothing in the official code."""
