"""Branches of a stream of potentials, which later papers share: self-attention and MLP behind neurons."""

from einops import rearrange
from torch import Tensor, nn

from .linear import MakeNode, NodeConvBN
from .products import SpikingProduct

__all__ = ["ConvMLP", "MembraneAttention"]


class MembraneAttention(nn.Module):
    """Spiking self-attention between a neuron and a projection, with any projections: potentials enter and leave.

    Args:
        num_heads: heads h; each has an h-th of the channels.
        q, k, v: projections of spikes to spikes; v may be wider than q and k.
        proj: projection of spikes, as wide as v, to potentials.
        scale: constant factor of the product.
        node: constructor of the neuron in front.
        attn_node: constructor of the neuron behind the product.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        q: nn.Module,
        k: nn.Module,
        v: nn.Module,
        proj: nn.Module,
        scale: float = 0.125,
        node: MakeNode,
        attn_node: MakeNode,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.node = node()
        self.q, self.k, self.v = q, k, v
        self.product = SpikingProduct(scale)
        self.attn_node = attn_node()
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials, tokens `(T*B, N, C)` or maps `(T*B, C, H, W)`, to potentials of the same shape."""
        maps, x = x.dim() == 4, self.node(x)
        split = "b (h d) y x -> b h (y x) d" if maps else "b n (h d) -> b h n d"
        attended = self.product(*(rearrange(p(x), split, h=self.num_heads) for p in (self.q, self.k, self.v)))
        if maps:
            attended = rearrange(attended, "b h (y x) d -> b (h d) y x", y=x.shape[2])
        else:
            attended = rearrange(attended, "b h n d -> b n (h d)")
        return self.proj(self.attn_node(attended))


class ConvMLP(nn.Module):
    """Two convolutions, the first one wider by `ratio`, a neuron in front of each: potentials in and out.

    Args:
        dim: width C.
        ratio: width in between over C.
        kernel_size: side of the kernels.
        bias: whether the convolutions have a bias.
        node: constructor of the neurons.
    """

    def __init__(self, dim: int, ratio: float, kernel_size: int, *, bias: bool, node: MakeNode):
        super().__init__()
        hidden = int(dim * ratio)
        self.fc1 = NodeConvBN(dim, hidden, kernel_size, node=node, bias=bias)
        self.fc2 = NodeConvBN(hidden, dim, kernel_size, node=node, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, C, H, W)` to potentials of the same shape."""
        return self.fc2(self.fc1(x))
