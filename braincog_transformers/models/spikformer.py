"""Spikformer and CML-Spikformer.

Zhou, Zhu, He, Wang, Yan, Tian, Yuan: Spikformer: When Spiking Neural Network Meets Transformer. ICLR 2023, arXiv
2209.15425. Official code: ZK-Zhou/spikformer at 6212689, MIT. New: spiking self-attention, the product of
binary Q, K and V with a neuron behind it instead of a softmax; a convolutional stem whose last convolution serves as
position embedding.

C. Zhou, Zhang, Z. Zhou, Yu, Ma, H. Zhou, Fan, Tian: Enhancing the Performance of Transformer-based Spiking Neural
Networks by SNN-optimized Downsampling with Precise Gradient Backpropagation. arXiv 2305.05954. Official code:
zhouchenlin2096/Spikingformer-CML at 8e51213, Apache-2.0. New: the stem's pooling moves in front of the neuron
(`pool="before"`).

Deviations of the official code from the papers, kept here:
- The attention scale is a constant: 0.125, for events 0.25 (the paper speaks of a learned one).
- q, k and v have a bias in the CIFAR networks only.
- Layer norms, drop path, position tables that the official classes declare and never use are left out.
  `drop_path_rate` works here.
- CML-Spikformer's code exists for CIFAR only; the ImageNet and event networks make the same exchange in Spikformer's.
"""

import re
from typing import Any, Literal

from torch import nn

from ..layers import Block, SpikingMLP, SpikingPatchSplitting, SpikingSelfAttention
from .flat import FlatTransformer
from .official import BLOCKS, BN, NORM, POSITION, OfficialNames, number_stage
from .registry import Paper, Variant, cfg, cifar, events, flat, imagenet, register

__all__ = ["Spikformer"]


def _number_cml_stage(match: re.Match) -> str:
    """Number CML-Spikformer's first four convolutions: `block1_conv` is 0."""
    return f"patch_embed.stages.{int(match[1]) - 1}.{match[2]}."


class Spikformer(FlatTransformer):
    """Spikformer: stem, L encoder blocks, mean over tokens and steps, one linear classifier. Figure 2 of the paper.

    Args:
        qkv_bias: whether q, k and v have a bias (CIFAR).
        attn_scale: constant factor of the attention product.
        pool: pooling in the stem "after" the neuron, or "before" it (CML).
        **flat: patch_size (4 for CIFAR, 16 for ImageNet and events), embed_dim, depth, num_heads, mlp_ratio,
            drop_path_rate, see `FlatTransformer`, and those of `SpikingTransformer`; the neuron behind the attention
            product has half the threshold.
    """

    official_names = OfficialNames(
        rename=(
            (r"^patch_embed\.proj_(conv|bn)(\d?)\.", number_stage),
            (r"^patch_embed\.block(\d)_(conv|bn)\.", _number_cml_stage),
            POSITION,
            BLOCKS,
            (r"\.(q|k|v|proj|fc1|fc2)_(?:linear|conv)\.", r".\1.linear."),
            BN,
        ),
        dead=(
            NORM,
            (r"^norm\.(weight|bias)$", "layer norm that the network never calls"),
            (r"^pos_embed$", "position table that is never added"),
        ),
    )

    def __init__(
        self,
        *,
        qkv_bias: bool = False,
        attn_scale: float = 0.125,
        pool: Literal["before", "after"] = "after",
        **flat: Any,
    ):
        self.qkv_bias, self.attn_scale, self.pool_at = qkv_bias, attn_scale, pool
        super().__init__(**flat)

    def _stem(self) -> nn.Module:
        return self._build_stem(SpikingPatchSplitting, pool=self.pool_at)

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        return Block(self._attention(), SpikingMLP(self.embed_dim, self.mlp_ratio, node=self._neuron()), drop_path)

    def _attention(self) -> nn.Module:
        """Build a block's attention, which maps tokens `(T*B, N, C)` to spikes of the same shape; for subclasses."""
        scale, bias = self.attn_scale, self.qkv_bias
        return SpikingSelfAttention(
            self.embed_dim, self.num_heads, scale=scale, qkv_bias=bias, **self._attention_nodes()
        )


_PAPER = Paper("Spikformer", "ICLR 2023", "arXiv:2209.15425", "ZK-Zhou/spikformer")
_CML = Paper("CML-Spikformer", "arXiv 2023", "arXiv:2305.05954", "zhouchenlin2096/Spikingformer-CML")
_CIFAR = {"patch_size": 4, "qkv_bias": True}
_DVS = flat(2, 256, 16, attn_scale=0.25, step=16)
# Where the paper does not give the heads: 8 divide the width of CIFAR's 4-256, the sister networks for ImageNet have 8.
register(
    Spikformer,
    {
        "spikformer_digits": Variant(flat(2, 64, 4, patch_size=1, qkv_bias=True), {"": cfg(_PAPER, (1, 8, 8), 10)}),
        "spikformer_ndigits": Variant(
            {**_DVS, **flat(2, 64, 4, patch_size=2, step=4)}, {"": cfg(_PAPER, (2, 16, 16), 10)}
        ),
        "spikformer_4_256_cifar": Variant(flat(4, 256, 8, **_CIFAR), cifar(_PAPER, 93.94, 75.96)),
        "spikformer_2_384_cifar": Variant(flat(2, 384, 12, **_CIFAR), cifar(_PAPER, 94.80, 76.95)),
        "spikformer_4_384_cifar": Variant(flat(4, 384, 12, **_CIFAR), cifar(_PAPER, 95.51, 78.21)),
        "spikformer_8_384": Variant(flat(8, 384, 8), imagenet(_PAPER, 70.24)),
        "spikformer_6_512": Variant(flat(6, 512, 8), imagenet(_PAPER, 72.46)),
        "spikformer_8_512": Variant(flat(8, 512, 8), imagenet(_PAPER, 73.38)),
        "spikformer_10_512": Variant(flat(10, 512, 8), imagenet(_PAPER, 73.68)),
        "spikformer_8_768": Variant(flat(8, 768, 8), imagenet(_PAPER, 74.81)),
        "spikformer_2_256_dvs": Variant(_DVS, events(_PAPER, "80.9", "98.3")),
        "spikformer_cml_4_256_cifar": Variant(flat(4, 256, 8, pool="before", **_CIFAR), cifar(_CML, 94.82, 77.64)),
        "spikformer_cml_2_384_cifar": Variant(flat(2, 384, 12, pool="before", **_CIFAR), cifar(_CML, 95.63, 78.75)),
        "spikformer_cml_4_384_cifar": Variant(flat(4, 384, 12, pool="before", **_CIFAR), cifar(_CML, 96.04, 80.02)),
        "spikformer_cml_8_384": Variant(flat(8, 384, 8, pool="before"), imagenet(_CML, 72.73)),
        "spikformer_cml_8_512": Variant(flat(8, 512, 8, pool="before"), imagenet(_CML, 75.61)),
        "spikformer_cml_8_768": Variant(flat(8, 768, 8, pool="before"), imagenet(_CML, 77.34)),
        "spikformer_cml_2_256_dvs": Variant({**_DVS, "pool": "before"}, events(_CML, "80.9", "98.6")),
    },
    first_conv="patch_embed.stages.0.conv",
    aliases={"spikformer": "spikformer_8_512", "spikformer_dvs": "spikformer_2_256_dvs"},
)
