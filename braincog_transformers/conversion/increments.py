"""Operators that put out by how much their result changed: what left so far is always f(what entered so far).

Source: You et al., SpikeZIP-TF (ICML 2024, arXiv 2406.03470), section 4; ours for pooling, where it is exact, too.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .converted import Stateful

__all__ = ["RUNNING", "AddOnce", "BiasOnceConv2d", "BiasOnceLinear", "Increment", "IncrementalProduct", "OfMean"]
__all__ += ["Once"]

RUNNING = "of running sums"
"""What an audit says of the operators in these modules (`ops.operators`): they stay analog."""


class Increment(Stateful):
    """f of a running sum: a step puts out `f(X[t]) - f(X[t-1])`, and the first `f(X[0])`.

    Args:
        function: a module, or a function of one tensor. A module keeps its parameters under `function`.
    """

    operators_note = RUNNING

    def __init__(self, function: nn.Module | Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function
        self.reset()

    def reset(self) -> None:
        self._sum = self._before = None

    def forward(self, x: Tensor) -> Tensor:
        self._sum = x if self._sum is None else self._sum + x
        now, before = self.function(self._sum), self._before
        self._before = now
        return now if before is None else now - before


class OfMean(Stateful):
    """f of the mean over the steps so far: the mean of what left is always f of the mean of what entered.

    With X the sum of what entered, step t, from 1, puts out `t f(X[t] / t) - (t - 1) f(X[t-1] / (t - 1))`.

    Args:
        function: a module, which keeps its parameters under `function`.

    Source: ours.
    """

    operators_note = "of running means"

    def __init__(self, function: nn.Module):
        super().__init__()
        self.function = function
        self.reset()

    def reset(self) -> None:
        self._sum = self._before = None
        self._step = 0

    def forward(self, x: Tensor) -> Tensor:
        self._step += 1
        self._sum = x if self._sum is None else self._sum + x
        now, before = self._step * self.function(self._sum / self._step), self._before
        self._before = now
        return now if before is None else now - before


class IncrementalProduct(Stateful):
    """A B of two running sums: with `A += a` and `B += b`, a step puts out `A b + a B - a b`."""

    operators_note = RUNNING

    def __init__(self):
        super().__init__()
        self.reset()

    @property
    def sums(self) -> tuple[Tensor | None, Tensor | None]:
        """A and B after the last step; None at rest."""
        return self._a, self._b

    def reset(self) -> None:
        self._a = self._b = None

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if self._a is None:
            self._a, self._b = a, b
            return a @ b
        before, self._a, self._b = self._a, self._a + a, self._b + b
        return before @ b + a @ self._b


class Once(Stateful):
    """What a module gives in the first step, and zeros of that shape afterwards; the later inputs are not read."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.reset()

    def reset(self) -> None:
        self._first = None

    def forward(self, x: Tensor) -> Tensor:
        if self._first is not None:
            return torch.zeros_like(self._first)
        self._first = self.module(x)
        return self._first


class AddOnce(Stateful):
    """A sum whose second summand, a constant such as a mask, counts in the first step only."""

    def __init__(self):
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self._added = False

    def forward(self, x: Tensor, constant: Tensor) -> Tensor:
        added, self._added = self._added, True
        return x if added else x + constant


class _BiasOnce(Stateful):
    biased: bool
    """Whether the next call adds the bias."""

    def reset(self) -> None:
        self.biased = True

    def _bias(self) -> Tensor | None:
        bias, self.biased = self.bias if self.biased else None, False
        return bias


class BiasOnceLinear(nn.Linear, _BiasOnce):
    """A linear layer that adds its bias in the first step only."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.reset()

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self._bias())


class BiasOnceConv2d(nn.Conv2d, _BiasOnce):
    """A convolution that adds its bias in the first step only."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.reset()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight, self._bias())
