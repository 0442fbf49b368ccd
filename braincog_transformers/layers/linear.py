"""Convolutions and linear layers with batch normalisation, alone or with a neuron behind or in front of them.

A convolution reads maps `(T*B, C, H, W)`, a linear layer tokens `(T*B, N, C)`.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from ..nodes import SpikingNode
from ..nodes.normalisation import normalised, repeated, shared_over_steps
from ..ops.kernels.integer_products import in_integers
from .folding import Foldable

__all__ = [
    *("ConvBN", "ConvBNNode", "ConvSequence", "LinearBN", "LinearBNNode", "MakeNode", "NodeConvBN", "NodeLinearBN"),
    *("SpikeInput", "fire_after"),
]

MakeNode = Callable[[], nn.Module]
"""Constructor of a neuron."""


class SpikeInput(nn.Module):
    """Base of layers that mostly read spikes. They hold modules of PyTorch and call them by `_multiply`.

    Attributes:
        integer_products: whether products may be computed in integers, see `ops.kernels.integer_products`.
    """

    integer_products = True

    def _multiply(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return `layer(x)`."""
        return in_integers(layer, x) if self.integer_products else layer(x)


def fire_after(node: nn.Module, bn: nn.Module, x: Tensor, copies: int = 1) -> Tensor:
    """Return `node(bn(x))`, by `SpikingNode.after` if the neuron has it."""
    return node.after(bn, x, copies) if isinstance(node, SpikingNode) else node(normalised(bn, x, copies))


def _pool(applies: bool) -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=1) if applies else nn.Identity()


class ConvBN(Foldable, SpikeInput):
    """Convolution, batch normalisation, optionally a 3x3 max pooling with stride 2.

    Args:
        in_chans, out_chans: channels.
        kernel_size, stride, groups, bias: of the convolution.
        padding: of the convolution; by default half its size, so that stride 1 keeps the sides.
        pool: pool the potentials.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
        pool: bool = False,
    ):
        super().__init__()
        padding = kernel_size // 2 if padding is None else padding
        self.conv = nn.Conv2d(in_chans, out_chans, kernel_size, stride, padding, groups=groups, bias=bias)
        self.bn = nn.BatchNorm2d(out_chans)
        self.pool = _pool(pool)

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to potentials `(T*B, C', H', W')`; with `copies=T`, one image `(B, C, H, W)` stands
        for T equal ones."""
        return self._normalise(self._multiply(self.conv, x), copies)

    def _normalise(self, x: Tensor, copies: int) -> Tensor:
        if copies == 1:
            return self.pool(self.bn(x))
        return repeated(self.pool(shared_over_steps(self.bn, x, copies)), copies)


class _ConvWithNode(ConvBN):
    """`ConvBN` and a neuron.

    Args:
        *sizes: in_chans, out_chans, kernel_size of `ConvBN`.
        node: constructor of the neuron.
        pool: what is pooled: potentials ("potentials", or "before" a neuron that stands behind), spikes ("spikes", or
            "after" that neuron), or None.
        **conv: stride, padding, groups, bias of `ConvBN`.
    """

    def __init__(
        self,
        *sizes: int,
        node: MakeNode,
        pool: Literal["before", "after", "potentials", "spikes"] | None = None,
        **conv: int | bool,
    ):
        super().__init__(*sizes, pool=pool in ("before", "potentials"), **conv)
        self.node = node()
        self.pool_spikes = _pool(pool in ("after", "spikes"))


class ConvBNNode(_ConvWithNode):
    """`ConvBN` and a neuron behind it: spikes leave. CML pools "before" the neuron, on potentials."""

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to spikes `(T*B, C', H', W')`; `copies` as in `ConvBN`."""
        x = self._multiply(self.conv, x)
        if not isinstance(self.pool, nn.Identity):
            return self.node(self._normalise(x, copies))
        return self.pool_spikes(fire_after(self.node, self.bn, x, copies))


class NodeConvBN(_ConvWithNode):
    """A neuron in front of `ConvBN`: the convolution reads spikes, potentials leave."""

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, C, H, W)` to potentials `(T*B, C', H', W')`."""
        return super().forward(self.pool_spikes(self.node(x)))


class ConvSequence(nn.Sequential):
    """Convolutions in a row, of which only the first one can read one image for T equal steps."""

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to `(T*B, C', H', W')`; `copies` as in `ConvBN`."""
        first, *others = self
        x = first(x, copies)
        for layer in others:
            x = layer(x)
        return x


class LinearBN(Foldable, SpikeInput):
    """`BatchNorm(W x + b)` on tokens.

    Args:
        in_features, out_features: widths C.
        bias: whether W x has a bias. In training, batch normalisation subtracts it again; in evaluation it counts.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.bn = nn.BatchNorm1d(out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C_in)` to potentials `(T*B, N, C_out)`."""
        return normalised(self.bn, self._multiply(self.linear, x))


class _LinearWithNode(LinearBN):
    def __init__(self, in_features: int, out_features: int, *, node: MakeNode, bias: bool = True):
        super().__init__(in_features, out_features, bias=bias)
        self.node = node()


class LinearBNNode(_LinearWithNode):
    """`LinearBN` and a neuron behind it: spikes leave."""

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C_in)` to spikes `(T*B, N, C_out)`."""
        return fire_after(self.node, self.bn, self._multiply(self.linear, x))


class NodeLinearBN(_LinearWithNode):
    """A neuron in front of `LinearBN`: the product is with spikes, potentials leave."""

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, N, C_in)` to potentials `(T*B, N, C_out)`."""
        return super().forward(self.node(x))
