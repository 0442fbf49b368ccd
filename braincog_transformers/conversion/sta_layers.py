"""Layers of STA: operators on running means, and spikes that follow them.

Source: Jiang et al., Spatio-Temporal Approximation (ICLR 2024), section 4; official code at github.com/ViviaHu/STA,
`model.py`.
"""

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..ops.neuron import membrane_dtype
from .converted import Stateful
from .operators import GroupOperator

__all__ = ["CUT", "AtMeans", "Followed", "OfMeans", "OperatorNorm", "OperatorSoftmax", "Signed", "shifted"]

CUT = -20.0
"""Shifted scores below this have no weight."""


def _wide(x: Tensor) -> Tensor:
    return x.to(membrane_dtype(x.dtype))


class AtMeans(Stateful):
    """A function of the means of what entered so far.

    Args:
        function: maps tensors to a tensor.
    """

    operators_note = "of running means"

    def __init__(self, function: nn.Module):
        super().__init__()
        self.function = function
        self.reset()

    def reset(self) -> None:
        self._steps, self._sums = 0, None

    def forward(self, *inputs: Tensor) -> Tensor:
        wide = [_wide(x) for x in inputs]
        self._steps += 1
        self._sums = wide if self._sums is None else [a + x for a, x in zip(self._sums, wide, strict=True)]
        return self.function(*[(a / self._steps).to(x.dtype) for a, x in zip(self._sums, inputs, strict=True)])


class OfMeans(AtMeans):
    """Steps whose mean is a function of the means of what entered: after n of them they add up to n f(means).

    This is the paper's temporal correction. A product of two values that change over time is one such function.
    """

    def reset(self) -> None:
        super().reset()
        self._before = 0.0

    def forward(self, *inputs: Tensor) -> Tensor:
        now = super().forward(*inputs)
        total = _wide(now) * self._steps
        left, self._before = total - self._before, total
        return left.to(now.dtype)


class Followed(Stateful):
    """Spikes that add up to n times what entered last: their mean follows a value that is known better at every step.

    Args:
        node: neurons.

    Raises:
        UserError: on a call, if the neurons have thresholds of their own and there are more or fewer of them.
    """

    def __init__(self, node: nn.Module):
        super().__init__()
        self.node = node
        self.reset()

    def reset(self) -> None:
        self._steps, self._fired = 0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        threshold = self.node.threshold
        if threshold.dim() and threshold.shape[-1] != x.shape[-1]:
            raise UserError(
                f"sta: the thresholds are those of {threshold.shape[-1]} tokens, the input has {x.shape[-1]}; convert "
                "with data of its size, or with per_neuron=False"
            )
        self._steps += 1
        spikes = self.node((self._steps * x - self._fired).to(x.dtype))
        self._fired = self._fired + _wide(spikes)
        return spikes


class Signed(nn.Module):
    """A number with a sign through two neurons, one for each sign; the identity as long as its node is a ReLU."""

    def __init__(self):
        super().__init__()
        self.node: nn.Module = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        fired = self.node(torch.stack((x, -x), dim=-1))
        return fired[..., 0] - fired[..., 1]


class Variance(nn.Module):
    """Mean square over the channels."""

    def forward(self, c: Tensor) -> Tensor:
        return c.square().mean(-1)


class Scaled(nn.Module):
    """All channels of a token times the token's scale."""

    def forward(self, c: Tensor, scale: Tensor) -> Tensor:
        return c * scale.unsqueeze(-1)


class OperatorNorm(nn.Module):
    """Layer normalisation by the operator of `1 / sqrt`; its scale and shift are in the linear layer behind it."""

    def __init__(self, operator: GroupOperator):
        super().__init__()
        self.variance: nn.Module = Variance()
        self.operator = operator
        self.scaled: nn.Module = Scaled()
        self.encoder = Signed()

    def forward(self, x: Tensor) -> Tensor:
        c = x - x.mean(-1, keepdim=True)
        return self.encoder(self.scaled(c, self.operator(self.variance(c))))


class OperatorSoftmax(nn.Module):
    """Softmax by the operators of exp and 1 / x; what they miss is repaired once, where the weights add up to > 1.5."""

    def __init__(self, exp: GroupOperator, inv: GroupOperator, shift: str):
        super().__init__()
        self.exp, self.inv, self.shift = exp, inv, shift

    def forward(self, scores: Tensor) -> Tensor:
        z = shifted(scores, self.shift)
        e = torch.where(z > CUT, self.exp(torch.minimum(z, self.exp.high)), 0.0)
        weights = e * self.inv(e.sum(-1, keepdim=True))
        total = weights.sum(-1, keepdim=True)
        return torch.where(total > 1.5, weights * self.inv(total), weights)


def shifted(scores: Tensor, shift: str) -> Tensor:
    """Return scores, measured from the first key's or the largest, plus 1."""
    return scores - (scores[..., :1] if shift == "first" else scores.amax(-1, keepdim=True)) + 1
