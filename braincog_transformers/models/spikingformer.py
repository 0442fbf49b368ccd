"""Spikingformer and Spikingformer-CML.

C. Zhou, Yu, Z. Zhou, Ma, Zhang, H. Zhou, Tian: Spikingformer: Spike-driven Residual Learning for Transformer-based
Spiking Neural Network. arXiv 2304.11954, AAAI 2026. Official code: zhouchenlin2096/Spikingformer at 4378623,
Apache-2.0. New over Spikformer: membrane shortcuts. The neuron stands in front of each convolution and linear layer,
so that the residual adds potentials and every layer after the first reads binary spikes.

C. Zhou, Zhang, Z. Zhou, Yu, Ma, H. Zhou, Fan, Tian: Enhancing the Performance of Transformer-based Spiking Neural
Networks by SNN-optimized Downsampling with Precise Gradient Backpropagation. arXiv 2305.05954. Official code:
zhouchenlin2096/Spikingformer-CML at 8e51213, Apache-2.0. New: the stem pools potentials, in front of the neuron that
follows, instead of spikes (`pool="potentials"`).

Deviations of the official code from the papers, kept here:
- The attention scale is the constant 0.125 everywhere.
- There is no neuron in front of the classifier, which averages potentials.
- Layer norms and drop path that the official classes declare and never use are left out. `drop_path_rate` works here.

The two networks have the same parameters under the same official names for ImageNet and events: a checkpoint of one
loads into the other without complaint and computes nonsense there.
"""

from collections.abc import Callable
from typing import Any, Literal

from einops import rearrange
from torch import Tensor, nn

from ..layers.block import Block
from ..layers.conv import ConvBN, NodeConvBN
from ..layers.linear import LinearBN, LinearBNNode, MembraneMLP
from ..layers.products import SpikingProduct
from .base import SpikingTransformer, init_linear
from .registry import Paper, Variant, cfg, cifar, events, flat, imagenet, register

__all__ = ["Spikingformer"]


class MembraneSelfAttention(nn.Module):
    """Spiking self-attention between a neuron and a linear layer: potentials enter and leave. Figure 3 of the paper.

    Args:
        dim: width C of the tokens.
        num_heads: heads h; each is C/h wide.
        node: constructor of the neurons.
        attn_node: constructor of the neuron behind the product, which has a lower threshold.
    """

    def __init__(self, dim: int, num_heads: int, *, node: Callable[[], nn.Module], attn_node: Callable[[], nn.Module]):
        super().__init__()
        self.num_heads = num_heads
        self.node = node()
        self.q, self.k, self.v = (LinearBNNode(dim, dim, node=node, bias=False) for _ in range(3))
        self.product = SpikingProduct(0.125)
        self.attn_node = attn_node()
        self.proj = LinearBN(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, N, C)` to potentials of the same shape."""
        x = self.node(x)
        q, k, v = (rearrange(p(x), "b n (h d) -> b h n d", h=self.num_heads) for p in (self.q, self.k, self.v))
        x = rearrange(self.product(q, k, v), "b h n d -> b n (h d)")
        return self.proj(self.attn_node(x))


class SpikingTokenizer(nn.Module):
    """Stem: five convolutions, a neuron in front of each but the first, that halve the side log2(patch_size) times.

    Args:
        grid_size: height and width of the map of tokens.
        pooled: whether there is a pooling between a convolution and the next, for the first four.
        in_chans: channels of the input.
        embed_dim: width C, a multiple of 8.
        pool: pool "spikes" of the neuron in between (Spikingformer), or "potentials" in front of it (CML).
        node: constructor of the neurons.
    """

    def __init__(
        self,
        grid_size: tuple[int, int],
        pooled: list[bool],
        in_chans: int,
        embed_dim: int,
        *,
        pool: Literal["spikes", "potentials"],
        node: Callable[[], nn.Module],
    ):
        super().__init__()
        self.grid_size = grid_size
        widths = [embed_dim // 8, embed_dim // 4, embed_dim // 2, embed_dim, embed_dim]
        self.first = ConvBN(in_chans, widths[0], pool=pool == "potentials" and pooled[0])
        here = pooled if pool == "spikes" else [*pooled[1:], False]
        self.stages = nn.Sequential(
            *(NodeConvBN(widths[i], widths[i + 1], node=node, pool=pool if here[i] else None) for i in range(4))
        )

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C_in, H, W)`, or `(B, C_in, H, W)` standing for `copies=T` steps, to potentials `(T*B, N, C)`."""
        return self.stages(self.first(x, copies)).flatten(2).transpose(1, 2)


class Spikingformer(SpikingTransformer):
    """Spikingformer: stem, L encoder blocks on a stream of potentials, their mean over tokens and steps, one linear
    classifier. Figure 3 of the paper.

    Args:
        patch_size: side of a token, pixels: 4 for CIFAR, 16 for ImageNet and events; height and width are multiples.
        embed_dim: width C of the tokens.
        depth: number L of encoder blocks.
        num_heads: attention heads.
        mlp_ratio: width of the MLP over C.
        pool: pooling in the stem of "spikes", or of "potentials" (CML).
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        **common: see `SpikingTransformer`; the neuron behind the attention product has half the threshold.
    """

    def __init__(
        self,
        *,
        patch_size: int = 16,
        embed_dim: int = 512,
        depth: int = 8,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        pool: Literal["spikes", "potentials"] = "spikes",
        drop_path_rate: float = 0.0,
        **common: Any,
    ):
        super().__init__(embed_dim=embed_dim, **common)
        self._require_heads(embed_dim, num_heads)
        self._require_width(8)
        self.patch_size = patch_size
        node, attn_node = self._neuron(), self._neuron(0.5)
        pooled = self._pooled(patch_size)
        self.patch_embed = SpikingTokenizer(self._layout(), pooled, self.in_chans, embed_dim, pool=pool, node=node)
        self.blocks = nn.Sequential(
            *(
                Block(
                    MembraneSelfAttention(embed_dim, num_heads, node=node, attn_node=attn_node),
                    MembraneMLP(embed_dim, mlp_ratio, node=node),
                    drop_path,
                )
                for drop_path in self._drop_paths(drop_path_rate, depth)
            )
        )
        self.feature_info = self._blocks_info(patch_size)
        self.head = self._new_head(self.num_classes)
        self.apply(init_linear)


_PAPER = Paper("Spikingformer", "AAAI 2026", "arXiv:2304.11954", "zhouchenlin2096/Spikingformer")
_CML = Paper("Spikingformer-CML", "arXiv 2023", "arXiv:2305.05954", "zhouchenlin2096/Spikingformer-CML")
_CIFAR, _CML_CIFAR = {"patch_size": 4}, {"patch_size": 4, "pool": "potentials"}
# CIFAR10 has 12 heads and CIFAR100 has 8; for 4-256, which 12 do not divide, and for 8-512 nothing is said: 8.
register(
    Spikingformer,
    {
        "spikingformer_digits": Variant(flat(2, 64, 4, patch_size=1), {"": cfg(_PAPER, (1, 8, 8), 10)}),
        "spikingformer_4_256_cifar": Variant(flat(4, 256, 8, **_CIFAR), cifar(_PAPER, 94.77, 77.43)),
        "spikingformer_2_384_cifar": Variant(flat(2, 384, 12, **_CIFAR), cifar(_PAPER, 95.22, None)),
        "spikingformer_4_384_cifar": Variant(flat(4, 384, 12, **_CIFAR), cifar(_PAPER, 95.81, None)),
        "spikingformer_2_384_cifar100": Variant(flat(2, 384, 8, **_CIFAR), cifar(_PAPER, None, 78.34)),
        "spikingformer_4_384_cifar100": Variant(flat(4, 384, 8, **_CIFAR), cifar(_PAPER, None, 79.21)),
        "spikingformer_8_384": Variant(flat(8, 384, 8), imagenet(_PAPER, 72.45)),
        "spikingformer_8_512": Variant(flat(8, 512, 8), imagenet(_PAPER, 74.79)),
        "spikingformer_8_768": Variant(flat(8, 768, 8), imagenet(_PAPER, 75.85)),
        "spikingformer_2_256_dvs": Variant(flat(2, 256, 16, tau=1.5, step=16), events(_PAPER, "81.3", "98.3")),
        "spikingformer_cml_4_256_cifar": Variant(flat(4, 256, 8, **_CML_CIFAR), cifar(_CML, 94.94, 78.19)),
        "spikingformer_cml_2_384_cifar": Variant(flat(2, 384, 12, **_CML_CIFAR), cifar(_CML, 95.54, None)),
        "spikingformer_cml_4_384_cifar": Variant(flat(4, 384, 12, **_CML_CIFAR), cifar(_CML, 95.95, None)),
        "spikingformer_cml_2_384_cifar100": Variant(flat(2, 384, 8, **_CML_CIFAR), cifar(_CML, None, 78.87)),
        "spikingformer_cml_4_384_cifar100": Variant(flat(4, 384, 8, **_CML_CIFAR), cifar(_CML, None, 80.37)),
        "spikingformer_cml_8_384": Variant(flat(8, 384, 8, pool="potentials"), imagenet(_CML, 74.35)),
        "spikingformer_cml_8_512": Variant(flat(8, 512, 8, pool="potentials"), imagenet(_CML, 76.54)),
        "spikingformer_cml_8_768": Variant(
            flat(8, 768, 8, pool="potentials"),
            {
                **imagenet(_CML, 77.64),
                "in1k_288": cfg(_CML, (3, 288, 288), 1000, "ImageNet 78.46 (fine-tuned)"),
            },
        ),
        "spikingformer_cml_2_256_dvs": Variant(
            flat(2, 256, 16, pool="potentials", tau=1.75, step=16), events(_CML, "81.4", "98.6")
        ),
    },
    first_conv="patch_embed.first.conv",
)
