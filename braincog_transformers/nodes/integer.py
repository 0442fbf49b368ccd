"""The neuron that fires whole numbers in training, each of which stands for so many spikes at inference."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..ops import planes
from ..ops.levels import Rounding, fire_levels
from ..ops.neuron import membrane_dtype, run
from .valued import ValuedNode

__all__ = ["ILIFNode"]

_SURROGATE = ("act_fun", "alpha", "requires_alpha_grad", "strict")
MOST_LEVELS = 255


class ILIFNode(ValuedNode):
    """Integer LIF neuron (I-LIF): a step fires a whole number n from 0 to D, and the membrane loses what it fired.

    With the leak `1 - 1/tau`, for t = 0 .. T-1

        h[t] = (1 - 1/tau) v[t-1] + x[t]
        n[t] = clip(round(h[t] / threshold), 0, D)
        v[t] = h[t] - n[t] threshold

    and `n / norm` leaves. `tau=1` forgets everything: no step depends on another one. The gradient goes straight
    through the rounding, `1 / (norm threshold)` within the range, see `ops.levels`; so there is no surrogate to choose.

    Args:
        threshold: what one more spike costs, dimensionless.
        tau: time constant in steps, at least 1.
        levels: D, the largest number of a step, from 1 to 255.
        norm: divisor of what is fired; None for D, so that at most 1 leaves; 1 for the whole numbers.
        rounding: "even" rounds halves to the even number, with the gradient at both ends of the range; "up" rounds them
            up, without it there.
        **kwargs: see `SpikingNode`; a surrogate, its steepness and `strict` are refused.

    Attributes:
        spiking_inference: what reads the whole numbers must do so in binary planes, see `ops.planes`; for networks,
            whose `set_spiking_inference` sets it.

    Source: Luo et al. (ECCV 2024, arXiv 2407.20708), equations 8 to 10; Yao et al. (TPAMI 2025, arXiv 2411.16061).
    """

    spiking_inference = False

    class State(NamedTuple):
        v: Tensor = 0.0

    class Parameters(NamedTuple):
        threshold: Tensor
        tau: Tensor
        levels: int
        divisor: Tensor
        rounding: Rounding

    def __init__(
        self,
        threshold: float = 1.0,
        tau: float = 2.0,
        *,
        levels: int = 4,
        norm: float | None = None,
        rounding: Rounding = "even",
        **kwargs: Any,
    ):
        name = type(self).__name__
        if refused := [option for option in _SURROGATE if kwargs.get(option) is not None]:
            raise UserError(
                f"{name}: {', '.join(refused)} belong to a surrogate gradient, and the gradient of this neuron goes "
                "straight through its rounding; leave them out"
            )
        super().__init__(threshold, **{option: kwargs[option] for option in kwargs.keys() - set(_SURROGATE)})
        if tau < 1:
            raise UserError(f"{name}: tau must be at least 1 step; got {tau}")
        if rounding not in ("even", "up"):
            raise UserError(f"{name}: rounding must be 'even' or 'up'; got {rounding!r}")
        self.tau, self.rounding = float(tau), rounding
        self.levels, self.norm = levels, norm

    @property
    def levels(self) -> int:
        """D, the largest number that a step fires."""
        return self._levels

    @levels.setter
    def levels(self, value: int) -> None:
        if value != int(value) or not 1 <= value <= MOST_LEVELS:
            raise UserError(
                f"{type(self).__name__}: levels must be a whole number from 1 to {MOST_LEVELS}; got {value}"
            )
        self._levels = int(value)

    @property
    def norm(self) -> float | None:
        """Divisor of what is fired; None for D."""
        return self._norm

    @norm.setter
    def norm(self, value: float | None) -> None:
        if value is not None and not value > 0:
            raise UserError(f"{type(self).__name__}: norm must be above 0; got {value}")
        self._norm = value

    @property
    def divisor(self) -> float:
        """What the whole numbers are divided by before they leave."""
        return float(self.levels if self.norm is None else self.norm)

    @property
    def unit(self) -> float:
        """What one spike is worth: the divisor's inverse."""
        return 1 / self.divisor

    def counts(self, fired: Tensor) -> Tensor:
        """Return the whole numbers of what it fired."""
        return (fired * self.divisor).round()

    @staticmethod
    def advance(x, state, p, fire):
        h = (1 - 1 / p.tau) * state.v + x
        n = fire_levels(h / p.threshold, p.levels, p.rounding)
        return n / p.divisor, state._replace(v=h - n * p.threshold)

    def _over(self, x: Tensor) -> Tensor:
        parameters = self._read(membrane_dtype(x.dtype))
        fired, potentials = run(self._neuron(), x, parameters, self._fire)
        return potentials + (fired * self.divisor - 1) * parameters.threshold  # what was fired is put back

    def _noted(self, fired: Tensor) -> Tensor:
        fired, mode = super()._noted(fired), None if torch.compiler.is_compiling() else planes.active()
        if self.spiking_inference and (mode is None or not mode.unrolls):
            raise UserError(
                f"{type(self).__name__}: in spiking inference only the whole network can be called, and not compiled; "
                "call set_spiking_inference(False) for anything else"
            )
        return fired

    def extra_repr(self) -> str:
        return f"levels={self.levels}, norm={self.divisor:g}, rounding={self.rounding}, " + super().extra_repr()
