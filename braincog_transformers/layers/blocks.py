"""Parts of Spikformer that later papers build upon: stem, self-attention, MLP, block, layer scale, stochastic depth."""

from collections.abc import Iterable
from itertools import zip_longest
from typing import Literal

import torch
from einops import rearrange
from timm.layers import drop_path
from torch import Tensor, nn

from .linear import ConvBN, ConvBNNode, ConvSequence, LinearBN, LinearBNNode, MakeNode, NodeConvBN, NodeLinearBN
from .membrane import MembraneAttention
from .products import SpikingProduct

__all__ = [
    "Block", "LayerScale", "MembraneMLP", "MembranePatchSplitting", "MembraneSelfAttention", "SpikingMLP",
    "SpikingPatchSplitting", "SpikingSelfAttention", "StepDropPath",
]  # fmt: skip


class SpikingPatchSplitting(nn.Module):
    """Stem: four convolutions that widen to C and halve the side log2(patch_size) times, then a relative position
    convolution.

    Args:
        grid_size: height and width of the map of tokens.
        pooled: which of the four convolutions are pooled.
        in_chans: channels of the input.
        embed_dim: width C, a multiple of the divisors.
        pool: pool "after" the neuron (Spikformer) or "before" it (CML).
        divisors: C over the widths of the first three convolutions.
        node: constructor of the neurons.
    """

    def __init__(
        self,
        grid_size: tuple[int, int],
        pooled: list[bool],
        in_chans: int,
        embed_dim: int,
        *,
        pool: Literal["before", "after"],
        divisors: tuple[int, int, int] = (8, 4, 2),
        node: MakeNode,
    ):
        super().__init__()
        self.grid_size = grid_size
        widths = [in_chans, *(embed_dim // divisor for divisor in divisors), embed_dim]
        self.stages = ConvSequence(
            *(ConvBNNode(widths[i], widths[i + 1], node=node, pool=pool if pooled[i] else None) for i in range(4))
        )
        self.rpe = ConvBNNode(embed_dim, embed_dim, node=node)

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C_in, H, W)`, or `(B, C_in, H, W)` standing for `copies=T` steps, to tokens `(T*B, N, C)` in {0,
        1, 2}."""
        x = self.stages(x, copies)
        return (x + self.rpe(x)).flatten(2).transpose(1, 2)


class MembranePatchSplitting(nn.Module):
    """Stem of networks with membrane shortcuts: four convolutions that widen to C and halve the side log2(patch_size)
    times, then a relative position convolution, added to what it reads.

    Source: Yao et al., Spike-driven Transformer (NeurIPS 2023, arXiv 2307.01694), figure 2.

    Args:
        grid_size: height and width of the map of tokens.
        pooled: which of the four convolutions are pooled: the last one's potentials, the others' spikes.
        in_chans: channels of the input.
        embed_dim: width C, a multiple of 8.
        rpe_reads: whether a neuron stands in front of the position convolution, so that it reads "spikes", or none, so
            that it reads "potentials".
        node: constructor of the neurons.
    """

    def __init__(
        self,
        grid_size: tuple[int, int],
        pooled: list[bool],
        in_chans: int,
        embed_dim: int,
        *,
        rpe_reads: Literal["spikes", "potentials"] = "spikes",
        node: MakeNode,
    ):
        super().__init__()
        self.grid_size = grid_size
        widths = [in_chans, embed_dim // 8, embed_dim // 4, embed_dim // 2]
        self.stages = ConvSequence(
            *(ConvBNNode(widths[i], widths[i + 1], node=node, pool="after" if pooled[i] else None) for i in range(3)),
            ConvBN(widths[3], embed_dim, pool=pooled[3]),
        )
        spikes = rpe_reads == "spikes"
        self.rpe = NodeConvBN(embed_dim, embed_dim, node=node) if spikes else ConvBN(embed_dim, embed_dim)

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C_in, H, W)`, or `(B, C_in, H, W)` standing for `copies=T` steps, to potentials `(T*B, N, C)`."""
        x = self.stages(x, copies)
        return (x + self.rpe(x)).flatten(2).transpose(1, 2)


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
        node: MakeNode,
        attn_node: MakeNode,
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


class MembraneSelfAttention(MembraneAttention):
    """Spiking self-attention between a neuron and a linear layer: potentials enter and leave, for a membrane shortcut.

    Source: C. Zhou et al., Spikingformer (AAAI 2026, arXiv 2304.11954), figure 3.

    Args:
        dim: width C of the tokens.
        num_heads: heads h; each is C/h wide.
        qkv_bias: whether the projections to q, k and v have a bias.
        node: constructor of the neurons.
        attn_node: constructor of the neuron behind the product, which has a lower threshold.
    """

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = False, node: MakeNode, attn_node: MakeNode):
        q, k, v = (LinearBNNode(dim, dim, node=node, bias=qkv_bias) for _ in range(3))
        super().__init__(num_heads, q=q, k=k, v=v, proj=LinearBN(dim, dim), node=node, attn_node=attn_node)


class SpikingMLP(nn.Module):
    """Two `LinearBNNode`s, the first one wider by `ratio`, with or without `bias`: spikes leave."""

    unit = LinearBNNode

    def __init__(self, dim: int, ratio: float, *, bias: bool = True, node: MakeNode):
        super().__init__()
        self.fc1 = self.unit(dim, int(dim * ratio), bias=bias, node=node)
        self.fc2 = self.unit(int(dim * ratio), dim, bias=bias, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to tokens of the same shape."""
        return self.fc2(self.fc1(x))


class MembraneMLP(SpikingMLP):
    """Two `NodeLinearBN`s, the first one wider by `ratio`: potentials leave, for a membrane shortcut."""

    unit = NodeLinearBN


class Block(nn.Module):
    """Branches, each added to the stream that it reads: attention and MLP, in some networks a convolution in front.

    Args:
        attn, mlp: the branches.
        drop_path: drops a branch for a whole sample, see `StepDropPath`.
        conv: the branch in front of the two.
        scales: what each branch is multiplied by, one `LayerScale` each; nothing if left out.
    """

    def __init__(
        self,
        attn: nn.Module,
        mlp: nn.Module,
        drop_path: nn.Module,
        *,
        conv: nn.Module | None = None,
        scales: Iterable[nn.Module] = (),
    ):
        super().__init__()
        if conv is not None:
            self.conv = conv
        self.attn, self.mlp, self.drop_path = attn, mlp, drop_path
        self.scales = nn.ModuleList(scales)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, ...)` to the same shape."""
        branches = [getattr(self, name) for name in ("conv", "attn", "mlp") if hasattr(self, name)]
        for branch, scale in zip_longest(branches, self.scales):
            y = branch(x)
            x = x + self.drop_path(y if scale is None else scale(y))
        return x


class LayerScale(nn.Module):
    """Multiply by a learnt factor for each channel.

    Source: Touvron et al., Going deeper with Image Transformers (ICCV 2021, arXiv 2103.17239), equation 4.

    Args:
        dim: width C.
        initial: all factors at first.
    """

    def __init__(self, dim: int, initial: float):
        super().__init__()
        self.factors = nn.Parameter(torch.full((dim,), float(initial)))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` or maps `(T*B, C, H, W)` to the same shape."""
        return x * (self.factors if x.dim() == 3 else self.factors.view(-1, 1, 1))


class StepDropPath(nn.Module):
    """Drop a residual branch for a whole sample, all its steps together.

    Source: Huang et al., Deep Networks with Stochastic Depth (ECCV 2016).

    Args:
        drop_prob: probability that a sample's branch is dropped, 0 to 1.
        step: number of steps T.

    Raises:
        ValueError: for another probability.
    """

    def __init__(self, drop_prob: float, step: int):
        if not 0 <= drop_prob <= 1:
            raise ValueError(f"StepDropPath: drop_prob must be a probability, 0 to 1; got {drop_prob}")
        super().__init__()
        self.drop_prob = drop_prob
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, ...)` to the same shape; what stays is scaled by 1/(1 - drop_prob)."""
        if not self.training or self.drop_prob == 0:
            return x
        by_sample = x.unflatten(0, (self.step, -1)).transpose(0, 1)
        return drop_path(by_sample, self.drop_prob, self.training).transpose(0, 1).flatten(0, 1)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:g}"
