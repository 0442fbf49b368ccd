"""Linear layer, batch normalisation, neuron: the unit of which spiking attention and MLPs are made."""

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["LinearBNNode", "SpikingMLP"]


class LinearBNNode(nn.Module):
    """`node(BatchNorm(W x + b))` on tokens.

    Args:
        in_features, out_features: widths C.
        node: constructor of the neuron.
        bias: whether W x has a bias. Batch normalisation takes it away in training; in evaluation it counts.
    """

    def __init__(self, in_features: int, out_features: int, *, node: Callable[[], nn.Module], bias: bool = True):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.bn = nn.BatchNorm1d(out_features)
        self.node = node()

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C_in)` to spikes `(T*B, N, C_out)`."""
        x = self.linear(x)
        return self.node(self.bn(x.flatten(0, 1)).view(x.shape))


class SpikingMLP(nn.Module):
    """Two `LinearBNNode`s, the first one wider by `ratio`."""

    def __init__(self, dim: int, ratio: float, *, node: Callable[[], nn.Module]):
        super().__init__()
        self.fc1 = LinearBNNode(dim, int(dim * ratio), node=node)
        self.fc2 = LinearBNNode(int(dim * ratio), dim, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to spikes of the same shape."""
        return self.fc2(self.fc1(x))
