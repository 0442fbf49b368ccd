"""Spike-driven Transformer V3 (E-SpikeFormer): the networks up to 61 million parameters, and those of events.

Yao, Qiu, T. Hu, J. Hu, Chou, Tian, Liao, Leng, Xu, Li: Scaling Spike-driven Transformer with Efficient Spike Firing
Approximation Training. IEEE TPAMI 47(4), 2025, arXiv 2411.16061. Official code: BICLab/Spike-Driven-Transformer-V3 at
00fcd1f, no licence stated: `Classification/Model_Base/models.py`, and `DVS/Hardvs/models_Q_scaling_dvs.py` for events.
The networks of 83 and 173 million parameters are in `sdt_v3_large`.

New over V2: integer neurons, which fire 0 to D at once in training and D binary spikes in inference, so that training
needs one step; 1x1 projections in the attention, whose values are four times as wide; a separable convolution in front
of each attention, with a neuron in front of each of its layers.

Deviations of the official code from the paper, kept here:
- The neurons have neither leak nor memory: with several steps each step is computed by itself.
- The attention scale is twice the usual one, 2/sqrt(d) for heads of width d.
- Events: what the neurons fire is divided by a number of each network's own (`norm`), 1 for HAR-DVS and 8 for gestures,
  where D is 4; each of the last two stages' branches has a layer scale.
- Drop path is declared and never called there. `drop_path_rate` works here.

The official classifier of events begins with PyTorch's initial values, the one here as that of images.
"""

import re
from typing import Any, ClassVar

from torch import Tensor, nn

from ..layers import Block, ConvBN, ConvBNNode, ConvMLP, LayerScale, MakeNode, MembraneAttention, NodeConvBN
from .official import OfficialNames
from .registry import Paper, Variant, cfg, imagenet, register
from .sdt_v2 import PYRAMID, MetaSpikeformer

__all__ = ["PAPER", "ESpikeformer"]


class SpikingSeparableConv(nn.Module):
    """Inverted separable convolution, a neuron in front of each of its three layers: potentials in and out.

    Args:
        dim: width C.
        kernel_size: side of the convolution of each channel: 7 in the first two stages, 3 in those with attention.
        node: constructor of the neurons.
    """

    def __init__(self, dim: int, kernel_size: int, *, node: MakeNode):
        super().__init__()
        hidden = 2 * dim
        self.expand = NodeConvBN(dim, hidden, 1, node=node)
        self.depthwise = NodeConvBN(hidden, hidden, kernel_size, node=node, groups=hidden)
        self.project = NodeConvBN(hidden, dim, 1, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, C, H, W)` to potentials of the same shape."""
        return self.project(self.depthwise(self.expand(x)))


_SEPARABLE = {"pwconv1": "expand", "dwconv": "depthwise", "pwconv2": "project"}
_PARTS = ("conv", "bn")


def _separable(match: re.Match) -> str:
    """Name a part of a separable convolution, which is a first two stages' mixer or a branch of its own."""
    branch = "attn" if match[1] == "Conv" else "conv"
    return f".{branch}.{_SEPARABLE[match[2]]}.{_PARTS[int(match[3])]}."


class ESpikeformer(MetaSpikeformer):
    """E-SpikeFormer: the pyramid of Meta-SpikeFormer with leaner blocks and integer neurons.

    Args:
        layer_scale: initial factor of each branch in the last two stages, 1e-6 for events; 0 for no such factor.
        **pyramid: embed_dims, depths (of events 3/4 and 1/4 of all), num_heads, mlp_ratio, distilled, drop_path_rate,
            see `MetaSpikeformer`, and those of `SpikingTransformer`; all thresholds are the same. The input may have
            any size.
    """

    neuron_defaults: ClassVar = {"node_type": "ILIFNode", "tau": 1.0}
    official_names = OfficialNames(
        rename=(
            *PYRAMID,
            (r"\.([cC]onv)\.(pwconv[12]|dwconv)\.([01])\.", _separable),
            (r"\.(conv|bn)([12])\.", r".mlp.fc\2.\1."),
            (r"\.fc([12])_(conv|bn)\.", r".fc\1.\2."),
            (r"\.(q|k|v|proj)_conv\.([01])\.", lambda match: f".{match[1]}.{_PARTS[int(match[2])]}."),
            (r"\.layer_scale([123])$", lambda match: f".scales.{int(match[1]) - 1}.factors"),
        ),
    )

    def __init__(self, *, layer_scale: float = 0.0, **pyramid: Any):
        self.layer_scale = layer_scale
        super().__init__(**pyramid)

    def _conv_block(self, dim: int, drop_path: nn.Module) -> nn.Module:
        node = self._neuron()
        conv = SpikingSeparableConv(dim, 7, node=node)
        return Block(conv, ConvMLP(dim, self.mlp_ratio, 3, bias=False, node=node), drop_path)

    def _attention_block(self, dim: int, drop_path: nn.Module) -> nn.Module:
        node, heads, wide = self._neuron(), self.num_heads, 4 * dim
        conv = SpikingSeparableConv(dim, 3, node=node)
        q, k, v = (ConvBNNode(dim, width, 1, node=node) for width in (dim, dim, wide))
        projections = {"q": q, "k": k, "v": v, "proj": ConvBN(wide, dim, 1)}
        scale = 2 * (dim // heads) ** -0.5
        attn = MembraneAttention(heads, **projections, scale=scale, node=node, attn_node=node)
        mlp = ConvMLP(dim, self.mlp_ratio, 1, bias=True, node=node)
        scales = [LayerScale(dim, self.layer_scale) for _ in range(3)] if self.layer_scale else ()
        return Block(attn, mlp, drop_path, conv=conv, scales=scales)

    def _head_neuron(self) -> MakeNode:
        return self._neuron(norm=1)


PAPER = Paper("Spike-driven Transformer V3", "TPAMI 2025", "arXiv:2411.16061", "BICLab/Spike-Driven-Transformer-V3")


def _images(*embed_dims: int, top1: str = "", **args: Any) -> Variant:
    return Variant({"embed_dims": embed_dims, "step": 1, **args}, imagenet(PAPER, top1))


# Those without a published accuracy: the official code names them in a comment or has their builder. 39 and 61 million
# are its event networks for pictures, with layer scale; their builders' names say 30M and 50M.
register(
    ESpikeformer,
    {
        "sdt_v3_digits": Variant(
            {"embed_dims": (16, 32, 64, 96), "depths": (1, 1), "num_heads": 4, "step": 1},
            {"": cfg(PAPER, (1, 32, 32), 10)},
        ),
        "sdt_v3_3m": _images(24, 48, 96, 128),
        "sdt_v3_5m": _images(32, 64, 128, 192),
        "sdt_v3_10m": _images(48, 96, 192, 240, top1="78.5"),
        "sdt_v3_19m": _images(64, 128, 256, 360, top1="79.8"),
        "sdt_v3_30m": _images(80, 160, 320, 440),
        "sdt_v3_53m": _images(112, 224, 448, 560),
        "sdt_v3_39m": _images(96, 192, 384, 480, layer_scale=1e-6),
        "sdt_v3_61m": _images(120, 240, 480, 600, layer_scale=1e-6),
        "sdt_v3_19m_dvs": Variant(
            {"embed_dims": (64, 128, 256, 360), "layer_scale": 1e-6, "norm": 1, "step": 8},
            {"hardvs": cfg(PAPER, (2, 224, 224), 300)},
        ),
        "sdt_v3_6m_dvs": Variant(
            {"embed_dims": (64, 128, 256, 360), "depths": (1,), "layer_scale": 1e-6, "norm": 8, "step": 8},
            {"gesture": cfg(PAPER, (2, 224, 224), 11)},
        ),
    },
    first_conv="patch_embed.conv",
    reduction=lambda args: 16,
)
