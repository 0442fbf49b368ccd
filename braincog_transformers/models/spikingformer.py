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

import re
from typing import Any, Literal

from torch import Tensor, nn

from ..layers import Block, ConvBN, MakeNode, MembraneMLP, MembraneSelfAttention, NodeConvBN
from .flat import FlatTransformer
from .official import BLOCKS, BN, LINEAR, MLP, NORM, OfficialNames
from .registry import Paper, Variant, cfg, cifar, events, flat, imagenet, register

__all__ = ["Spikingformer"]


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
        node: MakeNode,
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


def _name_as_later(match: re.Match) -> str:
    """Bring the names of the first release to those of the later ones: `proj_conv3` to `proj3_conv`."""
    return f"patch_embed.proj{match[2]}_{match[1]}."


def _number_stage(match: re.Match) -> str:
    """Number the stem's convolutions: `proj_conv` and `block0_conv` are the first, `proj4_conv` the last."""
    number = int(match[1] or match[2] or 0)
    return f"patch_embed.{f'stages.{number - 1}' if number else 'first'}.{match[3]}."


class Spikingformer(FlatTransformer):
    """Spikingformer: stem, L encoder blocks on a stream of potentials, their mean over tokens and steps, one linear
    classifier. Figure 3 of the paper.

    Args:
        pool: pooling in the stem of "spikes", or of "potentials" (CML).
        **flat: patch_size (4 for CIFAR, 16 for ImageNet and events), embed_dim, depth, num_heads, mlp_ratio,
            drop_path_rate, see `FlatTransformer`, and those of `SpikingTransformer`; the neuron behind the attention
            product has half the threshold.
    """

    official_names = OfficialNames(
        rename=(
            (r"^patch_embed\.proj_(conv|bn)(\d)\.", _name_as_later),
            (r"^patch_embed\.rpe_(conv|bn)\.", r"patch_embed.proj4_\1."),
            (r"^patch_embed\.(?:proj(\d?)|block(\d))_(conv|bn)\.", _number_stage),
            BLOCKS,
            MLP,
            LINEAR,
            BN,
        ),
        dead=(NORM,),
    )

    def __init__(self, *, pool: Literal["spikes", "potentials"] = "spikes", **flat: Any):
        self.pool_what = pool
        super().__init__(**flat)

    def _stem(self) -> nn.Module:
        return self._build_stem(SpikingTokenizer, pool=self.pool_what)

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        nodes = self._attention_nodes()
        attn = MembraneSelfAttention(self.embed_dim, self.num_heads, **nodes)
        return Block(attn, MembraneMLP(self.embed_dim, self.mlp_ratio, node=nodes["node"]), drop_path)


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
