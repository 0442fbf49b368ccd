"""Convolution and batch normalisation, alone or with a neuron behind or before them, with optional pooling."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from ..nodes.normalisation import repeated, shared_over_steps
from .fire import fire_after
from .folding import folded
from .spike_input import SpikeInput

__all__ = ["ConvBN", "ConvBNNode", "ConvSequence", "NodeConvBN"]


def _pool(applies: bool) -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=1) if applies else nn.Identity()


class ConvBN(SpikeInput):
    """Convolution, batch normalisation, optionally a 3x3 max pooling with stride 2.

    Args:
        in_chans, out_chans: channels.
        kernel_size, stride, groups, bias: of the convolution.
        padding: of the convolution; by default half its size, so that stride 1 keeps the sides.
        pool: pool what comes out.
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

    def fuse(self) -> "ConvBN":
        """Fold the normalisation's running statistics into the convolution, if they are `foldable`."""
        self.conv, self.bn = folded(self.conv, self.bn)
        return self


class ConvBNNode(ConvBN):
    """`ConvBN` and a neuron: spikes leave.

    Args:
        in_chans, out_chans, kernel_size: see `ConvBN`.
        node: constructor of the neuron.
        pool: "after" the neuron (on spikes), "before" it (on potentials, as CML places it), or None.
        **conv: stride, padding, groups, bias of `ConvBN`.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 3,
        *,
        node: Callable[[], nn.Module],
        pool: Literal["before", "after"] | None = None,
        **conv: int | bool,
    ):
        super().__init__(in_chans, out_chans, kernel_size, pool=pool == "before", **conv)
        self.node = node()
        self.pool_after = _pool(pool == "after")

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to spikes `(T*B, C', H', W')`; `copies` as in `ConvBN`."""
        x = self._multiply(self.conv, x)
        if not isinstance(self.pool, nn.Identity):
            return self.node(self._normalise(x, copies))
        return self.pool_after(fire_after(self.node, self.bn, x, copies))


class NodeConvBN(ConvBN):
    """A neuron in front of `ConvBN`: the convolution reads spikes, potentials leave.

    Args:
        in_chans, out_chans, kernel_size: see `ConvBN`.
        node: constructor of the neuron.
        pool: "spikes" between neuron and convolution, "potentials" behind the normalisation, or None.
        **conv: stride, padding, groups, bias of `ConvBN`.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 3,
        *,
        node: Callable[[], nn.Module],
        pool: Literal["spikes", "potentials"] | None = None,
        **conv: int | bool,
    ):
        super().__init__(in_chans, out_chans, kernel_size, pool=pool == "potentials", **conv)
        self.node = node()
        self.pool_spikes = _pool(pool == "spikes")

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, C, H, W)` to potentials `(T*B, C', H', W')`."""
        return super().forward(self.pool_spikes(self.node(x)))


class ConvSequence(nn.Sequential):
    """Convolutions in a row, of which only the first one can meet copies."""

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to `(T*B, C', H', W')`; `copies` as in `ConvBN`."""
        first, *others = self
        x = first(x, copies)
        for layer in others:
            x = layer(x)
        return x
