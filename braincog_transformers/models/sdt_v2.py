"""Spike-driven Transformer V2 (Meta-SpikeFormer).

Yao, J. Hu, T. Hu, Xu, Zhou, Tian, Xu, Li: Spike-driven Transformer V2: Meta Spiking Neural Network Architecture
Inspiring the Design of Next-generation Neuromorphic Chips. ICLR 2024, arXiv 2404.03663. Official code:
BICLab/Spike-Driven-Transformer-V2 at 35f245f, no licence stated; the event networks are in
BICLab/Spike-Driven-Transformer-V3 at 00fcd1f, `SDT_V3/DVS/Hardvs`. New over Spike-driven Transformer: a pyramid, whose
first two stages are spiking convolutions; and projections to q, k, v and behind the attention by stacks of convolutions
that fold into one.

Training begins with one step (`step=1`) and continues with four from the same weights.

Deviations of the official code from the paper, kept here:
- The projections' stacks end with two batch normalisations in a row.
- In training, a stack's border is normalised with running statistics, see `PaddedBatchNorm`.
- The attention scale is the constant 0.125 for every width of the heads.
- Drop path is declared and never called there. `drop_path_rate` works here.
"""

import re
from collections.abc import Iterator
from typing import Any

import torch
from einops import einsum
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import UserError
from ..layers import Block, ConvBN, ConvMLP, MakeNode, MembraneAttention, NodeConvBN, SpikeInput, baked, foldable
from .base import SpikingTransformer
from .distilled import Distilled
from .official import OfficialNames
from .registry import Paper, Variant, cfg, imagenet, register

__all__ = ["PYRAMID", "MetaSpikeformer"]


class PaddedBatchNorm(nn.Module):
    """Batch normalisation and a border of one pixel, which holds what becomes of zero.

    So a bias-free convolution in front, padded with zeros, could stand behind the border just as well. In training that
    is only nearly true: the border has the running statistics, with this batch in them already, the inside the batch's.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, C, H, W)` to `(T*B, C, H+2, W+2)`."""
        y, bn = self.bn(x), self.bn
        with torch.no_grad():
            mean, var = bn.running_mean, bn.running_var
            if mean is None:  # statistics that are not tracked are always the batch's
                var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            of_zero = bn.bias - mean * bn.weight / (var + bn.eps).sqrt()
        frame = functional.pad(y.new_zeros(1, 1, *y.shape[2:]), (1, 1, 1, 1), value=1.0)
        return functional.pad(y, (1, 1, 1, 1)) + frame * of_zero.to(y.dtype).view(-1, 1, 1)


class RepConv(SpikeInput):
    """3x3 convolution, for training a stack: 1x1, normalisation, 3x3 of each channel, 1x1, two normalisations."""

    def __init__(self, dim: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(dim, dim, 1, bias=False),
            PaddedBatchNorm(dim),
            nn.Conv2d(dim, dim, 3, groups=dim, bias=False),
            nn.Conv2d(dim, dim, 1, bias=False),
            nn.BatchNorm2d(dim),
            nn.BatchNorm2d(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, C, H, W)` to the same shape."""
        first, *others = [self.body] if isinstance(self.body, nn.Conv2d) else self.body
        x = self._multiply(first, x)
        for layer in others:
            x = layer(x)
        return x

    @torch.no_grad()
    def fuse(self) -> "RepConv":
        """Fold the stack into the convolution that it stands for, all of whose inputs are spikes, if its layers are
        `foldable`."""
        if isinstance(self.body, nn.Conv2d):
            return self
        first, padded, depthwise, last, inner, outer = self.body
        if not foldable(first, padded.bn, depthwise, last, inner, outer):
            return self
        first, depthwise, last = baked(first), baked(depthwise), baked(last)
        first = fuse_conv_bn_eval(first, padded.bn)
        mix = last.weight[:, :, 0, 0]
        kernel = einsum(mix, depthwise.weight[:, 0], first.weight[:, :, 0, 0], "o m, m y x, m i -> o i y x")
        conv = nn.Conv2d(*kernel.shape[:2], 3, padding=1, device=kernel.device, dtype=kernel.dtype).eval()
        conv.weight.copy_(kernel)
        conv.bias.copy_(mix @ (depthwise.weight.sum(dim=(1, 2, 3)) * first.bias))
        self.body = fuse_conv_bn_eval(fuse_conv_bn_eval(conv, inner), outer)
        return self


class SeparableConv(nn.Module):
    """Inverted separable convolution, the first two stages' mixer of positions: potentials in and out.

    Its last two convolutions have no neuron in between. Fused, they could be one with a dense 7x7 kernel that reads
    spikes only; they stay two, which is the same and much less work.
    """

    def __init__(self, dim: int, *, node: MakeNode):
        super().__init__()
        self.expand = NodeConvBN(dim, 2 * dim, 1, node=node)
        self.node = node()
        self.depthwise = nn.Conv2d(2 * dim, 2 * dim, 7, padding=3, groups=2 * dim, bias=False)
        self.project = ConvBN(2 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, C, H, W)` to potentials of the same shape."""
        return self.project(self.depthwise(self.node(self.expand(x))))


def _number_place(match: re.Match) -> str:
    """Number downsamplings and blocks within their stages."""
    name, number = match[1], int(match[2] or 0)
    if name == "downsample":
        return f"stages.{number - 1}.0."
    return f"stages.{int(name) - 1}.{number + 1}."


# Official names of the stages, which Spike-driven Transformer V3 has too.
PYRAMID = (
    (r"^downsample1_1\.encode_", "patch_embed."),
    (r"^downsample1_2\.encode_", "stages.0.1."),
    (r"^(downsample)(\d)\.encode_", _number_place),
    (r"^ConvBlock1_1\.0\.", "stages.0.0."),
    (r"^ConvBlock1_2\.0\.", "stages.0.2."),
    (r"^ConvBlock2_(\d)\.0\.", r"stages.1.\1."),
    (r"^block([34])\.(\d+)\.", _number_place),
)


class MetaSpikeformer(Distilled, SpikingTransformer):
    """Meta-SpikeFormer: four stages on a stream of potentials, a neuron on their mean over space, one linear
    classifier, with distillation two. Figure 1 of the paper.

    Args:
        embed_dims: width of each of the four stages; the first begins at half its width.
        depths: numbers of blocks in the last two stages, (4, 2) for events; one number if the last stage has none. The
            first two stages have two each.
        num_heads: heads of the attention in the last two stages.
        mlp_ratio: width of the MLPs over that of their stage.
        distilled: see `Distilled`.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        **common: see `SpikingTransformer`, whose `embed_dim` is the last width; the neuron behind the attention product
            has half the threshold. The input may have any size.
    """

    units = "stages"
    official_names = OfficialNames(
        rename=(
            *PYRAMID,
            (r"\.Conv\.(?:pwconv1|(bn)1)\.", lambda match: f".attn.expand.{match[1] or 'conv'}."),
            (r"\.Conv\.(?:pwconv2|(bn)2)\.", lambda match: f".attn.project.{match[1] or 'conv'}."),
            (r"\.Conv\.dwconv\.", ".attn.depthwise."),
            (r"\.(conv|bn)([12])\.", r".mlp.fc\2.\1."),
            (r"\.fc([12])_(conv|bn)\.", r".fc\1.\2."),
            # the last three parts of a projection's stack, which officially has stacks inside
            (r"_conv\.0\.body\.2\.(\d)\.", lambda match: f"_conv.0.body.{int(match[1]) + 2}."),
            (r"_conv\.1\.", "_conv.0.body.5."),
            (r"\.([qkv])_conv\.0\.", r".\1.0."),
            (r"\.proj_conv\.0\.", ".proj."),
            (r"^head_kd\.", "head_dist."),
        ),
    )

    def __init__(
        self,
        *,
        embed_dims: tuple[int, ...] = (128, 256, 512, 640),
        depths: tuple[int, ...] = (6, 2),
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        distilled: bool = False,
        drop_path_rate: float = 0.0,
        **common: Any,
    ):
        name = type(self).__name__
        if len(embed_dims) != 4 or embed_dims[0] % 2:
            raise UserError(f"{name}: embed_dims must be four widths, the first one even; got {embed_dims}")
        if len(depths) > 2:
            raise UserError(f"{name}: depths must be one or two numbers, for the last two stages; got {depths}")
        super().__init__(embed_dim=embed_dims[-1], **common)
        for dim in embed_dims[2:]:
            self._require_heads(dim, num_heads)
        self.num_heads, self.mlp_ratio = num_heads, mlp_ratio
        node, drop_paths = self._neuron(), iter(self._drop_paths(drop_path_rate, 4 + sum(depths)))

        def down(dim: int, new: int, stride: int = 2) -> NodeConvBN:
            return NodeConvBN(dim, new, node=node, stride=stride, bias=True)

        def conv(dim: int) -> nn.Module:
            return self._conv_block(dim, next(drop_paths))

        def attend(dim: int, depth: int) -> Iterator[nn.Module]:
            return (self._attention_block(dim, next(drop_paths)) for _ in range(depth))

        a, b, c, d = embed_dims
        self.patch_embed = ConvBN(self.in_chans, a // 2, 7, stride=2, bias=True)
        self.stages = nn.Sequential(
            nn.Sequential(conv(a // 2), down(a // 2, a), conv(a)),
            nn.Sequential(down(a, b), conv(b), conv(b)),
            nn.Sequential(down(b, c), *attend(c, depths[0])),
            nn.Sequential(down(c, d, stride=1), *attend(d, sum(depths[1:]))),
        )
        self.feature_info = self._units_info(embed_dims, (4, 8, 16, 16))
        self.head_node = self._head_neuron()()
        self._build_heads(distilled)

    # For subclasses: what the pyramid is made of

    def _conv_block(self, dim: int, drop_path: nn.Module) -> nn.Module:
        """Build a block of the first two stages, of width `dim`."""
        node = self._neuron()
        conv = SeparableConv(dim, node=node)
        return Block(conv, ConvMLP(dim, self.mlp_ratio, 3, bias=False, node=node), drop_path)

    def _attention_block(self, dim: int, drop_path: nn.Module) -> nn.Module:
        """Build a block of the last two stages, of width `dim`."""
        node, nodes = self._neuron(), self._attention_nodes()
        mlp = ConvMLP(dim, self.mlp_ratio, 1, bias=True, node=node)
        q, k, v = (nn.Sequential(RepConv(dim), node()) for _ in range(3))
        attn = MembraneAttention(self.num_heads, q=q, k=k, v=v, proj=RepConv(dim), **nodes)
        return Block(attn, mlp, drop_path)

    def _head_neuron(self) -> MakeNode:
        """Return a constructor of the neuron in front of the classifier."""
        return self._neuron()


_PAPER = Paper("Spike-driven Transformer V2", "ICLR 2024", "arXiv:2404.03663", "BICLab/Spike-Driven-Transformer-V2")
_DVS_PAPER = Paper(_PAPER.name, _PAPER.venue, _PAPER.ids, "BICLab/Spike-Driven-Transformer-V3")


def _dvs(*embed_dims: int) -> dict[str, Any]:
    return {"embed_dims": embed_dims, "depths": (4, 2), "step": 8}


_HARDVS = {"hardvs": cfg(_DVS_PAPER, (2, 224, 224), 300)}
register(
    MetaSpikeformer,
    {
        "sdt_v2_digits": Variant(
            {"embed_dims": (32, 48, 64, 96), "depths": (1, 1), "num_heads": 4}, {"": cfg(_PAPER, (1, 32, 32), 10)}
        ),
        "sdt_v2_15m": Variant({"embed_dims": (64, 128, 256, 360)}, imagenet(_PAPER, "74.1 (with distillation)")),
        "sdt_v2_31m": Variant({"embed_dims": (96, 192, 384, 480)}, imagenet(_PAPER, "77.2 (with distillation)")),
        "sdt_v2_55m": Variant(
            {"embed_dims": (128, 256, 512, 640)}, imagenet(_PAPER, "80.0 (with distillation, 79.7 without)")
        ),
        "sdt_v2_124m": Variant({"embed_dims": (192, 384, 768, 960)}, imagenet(_PAPER, "")),
        "sdt_v2_18m_dvs": Variant(
            _dvs(80, 160, 320, 400),
            {
                "cifar10dvs": cfg(_DVS_PAPER, (2, 64, 64), 10),
                "hardvs": cfg(_DVS_PAPER, (2, 224, 224), 300, "HAR-DVS 47.5"),
            },
        ),
        "sdt_v2_26m_dvs": Variant(_dvs(96, 192, 384, 480), _HARDVS),
        "sdt_v2_46m_dvs": Variant(_dvs(128, 256, 512, 640), _HARDVS),
    },
    first_conv="patch_embed.conv",
    reduction=lambda args: 16,
    aliases={"sd_transformer_v2": "sdt_v2_55m", "sd_transformer_v2_dvs": "sdt_v2_18m_dvs"},
)
