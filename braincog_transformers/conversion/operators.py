"""Universal group operators: functions of one number as small networks, whose hidden units can become neurons.

A network with one hidden layer of ReLU is piecewise linear with one knot for each unit. So nothing is trained here: the
knots go where the function bends, and least squares give the rest.

Source: Jiang et al., Spatio-Temporal Approximation (ICLR 2024); the way of fitting is ours.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError, listed
from ..nodes import BurstNode
from ..ops.kernels import fused_neuron
from ..runtime.compiler import compiled
from ..runtime.watching import dispatched, is_hooked, is_patched, watched

__all__ = ["GroupOperator", "fit_operator"]

_AT_ONCE = {"cpu": 1 << 18}
"""Hidden units that are computed at once by device: as many as fit the processor's cache, on others 2^26."""
_SAMPLES = 4097
_EVERYWHERE = 0.05
"""Share of the mean density of knots that every part of an interval gets, whether the function bends there or not."""
_NAMES = {"0.weight": (None, 1), "0.bias": (None,), "2.weight": (1, None), "2.bias": (1,)}
"""Tensors of the official files, behind "approximator.", and their sizes; None is the number of units."""


class GroupOperator(nn.Module):
    """`w2 relu(w1 x + b1) + b2`, element by element.

    It holds NaN until it is fitted or loaded, so that one which was forgotten shows.

    Args:
        hidden: number of hidden units.

    Attributes:
        low, high: interval on which it stands for its function.
    """

    _error: float | None = None

    def __init__(self, hidden: int):
        super().__init__()
        self.approximator = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        for parameter in self.parameters():
            nn.init.constant_(parameter, torch.nan)
        self.register_buffer("low", torch.tensor(torch.nan))
        self.register_buffer("high", torch.tensor(torch.nan))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], low: float, high: float) -> "GroupOperator":
        """Build one from a state dict in the layout of the official files.

        Args:
            state: `approximator.0.weight` `(n, 1)`, `approximator.0.bias` `(n,)`, `approximator.2.weight` `(1, n)` and
                `approximator.2.bias` `(1,)`.
            low, high: interval on which it stands for its function.

        Raises:
            UserError: for other names or sizes.
        """
        given = {name.removeprefix("approximator."): value for name, value in state.items()}
        hidden = len(given.get("0.bias", ()))
        sizes = {name: tuple(hidden if size is None else size for size in sizes) for name, sizes in _NAMES.items()}
        if {name: tuple(value.shape) for name, value in given.items()} != sizes or not hidden:
            raise UserError(
                f"an operator is made of {listed([f'approximator.{name}' for name in _NAMES])}, of sizes (n, 1), (n,), "
                f"(1, n) and (1,); got {listed(sorted(state), 6) or 'nothing'}"
            )
        operator = cls(hidden).to(given["0.bias"].dtype)
        operator.approximator.load_state_dict(given)
        operator.low.fill_(low)
        operator.high.fill_(high)
        return operator

    @property
    def error(self) -> float | None:
        """Its largest error on the interval, as `fit_operator` measures it; None for one that was loaded."""
        return self._error

    @property
    def hidden(self) -> int:
        """Number of hidden units."""
        return self.approximator[0].out_features

    def units(self, x: Tensor) -> Tensor:
        """Return the hidden units as the ReLU leaves them, `(..., n)` for input `(...)`."""
        return self.approximator[0](x.unsqueeze(-1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        # an exported network takes any number of samples, so that nothing may depend on it
        whole = torch.compiler.is_compiling() or x.dim() < 2
        if whole or x.numel() * self.hidden <= self._at_once(x) or self._followed(x):
            return self.approximator(x.unsqueeze(-1)).squeeze(-1)
        return self._by_parts(x)

    @staticmethod
    def _at_once(x: Tensor) -> int:
        return _AT_ONCE.get(x.device.type, 1 << 26)

    def _followed(self, x: Tensor) -> bool:
        """Tell whether somebody has to see what the hidden units put out."""
        node = self.approximator[1]
        if (
            watched()
            or dispatched()
            or any(is_hooked(part) or is_patched(part) for part in self.approximator.modules())
        ):
            return True
        if not isinstance(node, BurstNode):
            return False
        graph = torch.is_grad_enabled() and x.requires_grad
        shape = (*x.shape, self.hidden)
        fits = getattr(node.mem, "shape", shape) == shape
        return graph or not fits or node.requires_fp or node.requires_mem or node.layer_by_layer

    def _by_parts(self, x: Tensor) -> Tensor:
        """Compute row by row, so that of all that has the size of the hidden units only the neurons' state is kept."""
        first, node, last = self.approximator
        weights = first.weight[:, 0], first.bias, last.weight[0], last.bias
        rows = x.reshape(-1, x.shape[-1], 1)
        size = max(1, self._at_once(x) // (x.shape[-1] * self.hidden))
        if not isinstance(node, BurstNode):
            return torch.cat([_relu(part, *weights) for part in rows.split(size)]).view_as(x)
        setting = x.dtype, x.device.type, node.burst, node.bipolar
        function = compiled(_burst, *setting) if fused_neuron.takes(x.unsqueeze(0)) else _burst
        state = [v.view(len(rows), -1, self.hidden).split(size) for v in node.kept((*x.shape, self.hidden), x)]
        threshold = node.get_thres().to(state[0][0].dtype)
        threshold = threshold.flatten(0, -3) if threshold.dim() > 3 else threshold  # of all rows, so that one is enough
        parts = zip(rows.split(size), *state, strict=True)
        return torch.cat([function(*part, threshold, node.burst, node.bipolar, *weights) for part in parts]).view_as(x)


def _relu(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return ((x * w1 + b1).relu() * w2).sum(-1) + b2


def _burst(
    x: Tensor,
    u: Tensor,
    memory: Tensor,
    threshold: Tensor,
    burst: int,
    bipolar: bool,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
) -> Tensor:
    """Take one step of an operator whose hidden units are `BurstNode`s; brings their state on, in place."""
    parameters = BurstNode.Parameters(threshold, burst, bipolar)
    s, state = BurstNode.advance((x * w1 + b1).to(u.dtype), BurstNode.State(u, memory), parameters, None)
    u.copy_(state.u)
    memory.copy_(state.memory)
    return (s.to(x.dtype) * w2).sum(-1) + b2


def fit_operator(
    function: Callable[[Tensor], Tensor], low: float, high: float, hidden: int, *, floor: float = 1.0
) -> GroupOperator:
    """Fit a universal group operator to a function of one number, in float64; always with the same result.

    Every hidden unit is at most 1 on the interval. At the end where the function is flatter all units are silent, and
    beyond it the operator is constant; beyond the other end it goes on as a straight line.

    Args:
        function: maps a tensor to its values, element by element.
        low, high: interval. If it is positive, its samples are evenly spaced in the logarithm.
        hidden: number of hidden units.
        floor: errors are measured relative to the function's size, and where that is less, to this.

    Returns:
        The operator. Its `error` is measured at the samples and at seven points between any two of them.

    Raises:
        UserError: for an empty interval, fewer units than one, or a function that is not finite on the interval.
    """
    if not low < high or hidden < 1:
        raise UserError(f"an operator needs low < high and a hidden unit; got [{low:g}, {high:g}] and {hidden}")
    spaced = np.geomspace if low > 0 else np.linspace
    x = torch.from_numpy(spaced(low, high, _SAMPLES))
    y = function(x.clone()).detach()
    if not torch.isfinite(y).all():
        raise UserError(f"an operator can't be fitted on [{low:g}, {high:g}]: the function is not finite there")
    weight = 1 / y.abs().clamp(min=floor)
    slope = y.diff() / x.diff()
    rising = bool(slope[0].abs() <= slope[-1].abs())  # the flat end is the lower one
    far = high if rising else low
    knots = _knots(x, slope, weight, hidden, rising)
    scale = 1 / (far - knots)
    operator = GroupOperator(hidden).to(y.dtype)
    first, _, last = operator.approximator
    first.weight.data, first.bias.data = scale.unsqueeze(1), -scale * knots
    units = torch.cat((first(x.unsqueeze(1)).relu(), torch.ones_like(x).unsqueeze(1)), dim=1).detach()
    solution = torch.linalg.lstsq(units * weight.unsqueeze(1), (y * weight).unsqueeze(1), driver="gelsd").solution
    last.weight.data, last.bias.data = solution[:-1].T.contiguous(), solution[-1]
    x = torch.cat([torch.lerp(x[:-1], x[1:], k / 8) for k in range(9)])
    y = function(x.clone()).detach()
    operator._error = float(((operator(x).detach() - y).abs() / y.abs().clamp(min=floor)).max())
    operator.low.fill_(low)
    operator.high.fill_(high)
    return operator


def _knots(x: Tensor, slope: Tensor, weight: Tensor, hidden: int, rising: bool) -> Tensor:
    """Return the knots, the first at the flat end: as many between two places as the function bends there.

    A chord over a step h misses f by h^2 |f''| / 8, so that equal errors need knots as dense as sqrt(|f''|).
    """
    step = (x[2:] - x[:-2]) / 2
    density = (slope.diff().abs() / step * weight[1:-1]).sqrt() * step
    density = density + _EVERYWHERE * density.mean() + torch.finfo(x.dtype).tiny
    total = torch.cat((torch.zeros(1, dtype=x.dtype), density.cumsum(0)))
    places = (x[1:] + x[:-1]) / 2
    places[0], places[-1] = x[0], x[-1]
    share = torch.arange(hidden, dtype=x.dtype) / hidden
    wanted = total[-1] * (share if rising else 1 - share)
    return torch.from_numpy(np.interp(wanted.numpy(), total.numpy(), places.numpy()))
