"""Linear layer and batch normalisation on tokens, alone or with a neuron, and the MLPs made of them."""

from collections.abc import Callable

from torch import Tensor, nn

from ..nodes.normalisation import normalised
from .fire import fire_after
from .folding import folded
from .spike_input import SpikeInput

__all__ = ["LinearBN", "LinearBNNode", "MembraneMLP", "NodeLinearBN", "SpikingMLP"]


class LinearBN(SpikeInput):
    """`BatchNorm(W x + b)` on tokens.

    Args:
        in_features, out_features: widths C.
        bias: whether W x has a bias. Batch normalisation takes it away in training; in evaluation it counts.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.bn = nn.BatchNorm1d(out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C_in)` to potentials `(T*B, N, C_out)`."""
        return self._normalise(self._multiply(self.linear, x))

    def _normalise(self, x: Tensor) -> Tensor:
        return normalised(self.bn, x)

    def fuse(self) -> "LinearBN":
        """Fold the normalisation's running statistics into the linear layer, if they are `foldable`."""
        self.linear, self.bn = folded(self.linear, self.bn)
        return self


class LinearBNNode(LinearBN):
    """`LinearBN` and a neuron: spikes leave."""

    def __init__(self, in_features: int, out_features: int, *, node: Callable[[], nn.Module], bias: bool = True):
        super().__init__(in_features, out_features, bias=bias)
        self.node = node()

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C_in)` to spikes `(T*B, N, C_out)`."""
        return fire_after(self.node, self.bn, self._multiply(self.linear, x))


class NodeLinearBN(LinearBN):
    """A neuron in front of `LinearBN`: the product is with spikes, potentials leave."""

    def __init__(self, in_features: int, out_features: int, *, node: Callable[[], nn.Module], bias: bool = True):
        super().__init__(in_features, out_features, bias=bias)
        self.node = node()

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, N, C_in)` to potentials `(T*B, N, C_out)`."""
        return super().forward(self.node(x))


class SpikingMLP(nn.Module):
    """Two `LinearBNNode`s, the first one wider by `ratio`, with or without `bias`: spikes leave."""

    unit = LinearBNNode

    def __init__(self, dim: int, ratio: float, *, bias: bool = True, node: Callable[[], nn.Module]):
        super().__init__()
        self.fc1 = self.unit(dim, int(dim * ratio), bias=bias, node=node)
        self.fc2 = self.unit(int(dim * ratio), dim, bias=bias, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to tokens of the same shape."""
        return self.fc2(self.fc1(x))


class MembraneMLP(SpikingMLP):
    """Two `NodeLinearBN`s, the first one wider by `ratio`: potentials leave, for a membrane shortcut."""

    unit = NodeLinearBN
