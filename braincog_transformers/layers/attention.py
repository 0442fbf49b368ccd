"""Spikformer's spiking self-attention, which later papers build upon."""

from collections.abc import Callable

from einops import rearrange
from torch import Tensor, nn

from .linear import LinearBNNode
from .products import SpikingProduct

__all__ = ["SpikingSelfAttention"]


class SpikingSelfAttention(nn.Module):
    """Spiking self-attention: `proj(attn_node(scale * Q K^T V))` with binary Q, K, V.

    Source: Zhou et al., Spikformer (ICLR 2023, arXiv 2209.15425), equation 6.

    Args:
        dim: width C of the tokens.
        num_heads: heads h; each is C/h wide.
        scale: constant factor of the product.
        qkv_bias: whether the projections to q, k and v have a bias.
        proj_bias: whether the projection behind the product has one.
        node: constructor of the neurons.
        attn_node: constructor of the neuron behind the product, which has a lower threshold.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        scale: float = 0.125,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        node: Callable[[], nn.Module],
        attn_node: Callable[[], nn.Module],
    ):
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v = (LinearBNNode(dim, dim, node=node, bias=qkv_bias) for _ in range(3))
        self.product = SpikingProduct(scale)
        self.attn_node = attn_node()
        self.proj = LinearBNNode(dim, dim, node=node, bias=proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to spikes of the same shape."""
        q, k, v = (rearrange(p(x), "b n (h d) -> b h n d", h=self.num_heads) for p in (self.q, self.k, self.v))
        x = rearrange(self.product(self._query(q), k, v), "b h n d -> b n (h d)")
        return self.proj(self.attn_node(x))

    def _query(self, q: Tensor) -> Tensor:
        """Return what takes the query's place, `(T*B, h, N, d)`; for subclasses."""
        return q
