"""OST: a one-step spiking transformer.

X. Song, A. Song, Xiao, Sun: One-step Spiking Transformer with a Linear Complexity. IJCAI 2024, doi
10.24963/ijcai.2024/348. Official code: songxt3/OST at 49108bb, no licence stated. New: only the stem runs T steps; its
maps are summed, and blocks and head run a single one (time domain compression). Sums of neurons with different
thresholds make up for the lost steps (compensation). Attention is linear in the number of tokens: keys gate values,
their sum over tokens is gated by queries. Spikes gate the MLP, too.

Since the maps are summed and not averaged, the blocks read larger numbers where T is larger: a network can run with
another T than it was trained with, but does not see the same input then. The number of parameters does not depend on T.

Deviations of the official code from the paper, kept here:
- The thresholds are parameters, and the forward pass uses those of a checkpoint; but the GPU code that trained the
  networks never changes them. They don't learn here either; `requires_thres_grad` lets those of all neurons learn.
- Values and the larger half of the MLP are real numbers, and average pooling (Gesture) makes real numbers of spikes, so
  that layers behind them multiply; the supplement counts additions.
- The MLP has batch normalisations that the paper's formula lacks, one on the half that fires and one behind the output.
- For Gesture the code has one block and one threshold, where the supplement speaks of two blocks.
- Position tables and a layer norm that the official event classes never use are left out. `drop_path_rate` works here.
"""

import copy
import functools
import re
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_weights

from ..errors import UserError
from ..layers import (
    Block,
    ConvBNNode,
    ConvSequence,
    GatedSum,
    LinearBNNode,
    MakeNode,
    SpikeInput,
    SpikingPatchSplitting,
    baked,
    fire_after,
    foldable,
)
from .flat import FlatTransformer
from .official import BLOCKS, POSITION, OfficialNames
from .registry import Paper, Variant, cfg, imagenet, register

__all__ = ["OST"]


class MultiThreshold(nn.ModuleList):
    """Independent neurons with different thresholds that read the same potentials: the sum of their spikes, 0 to n.

    Args:
        nodes: constructors of the n neurons.
    """

    def __init__(self, nodes: Iterable[MakeNode]):
        super().__init__(node() for node in nodes)

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, ...)` to whole numbers of the same shape."""
        return functools.reduce(torch.add, (node(x) for node in self))


class GatedAttention(SpikeInput):
    """Attention without a product of queries and keys (SAF): `proj(Q * sum over tokens of K * V)`.

    K and Q are whole numbers, V is real-valued: it has no normalisation and no neuron.

    Args:
        dim: width C of the tokens.
        width: width of K, V and Q.
        node: constructor of the neurons behind K, Q and the projection.
    """

    def __init__(self, dim: int, width: int = 64, *, node: MakeNode):
        super().__init__()
        self.q, self.k = (LinearBNNode(dim, width, node=node) for _ in range(2))
        self.v = nn.Linear(dim, width)
        self.gather = GatedSum()
        self.proj = LinearBNNode(width, dim, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, N, C)` to whole numbers of the same shape."""
        values, gates = (z.transpose(1, 2) for z in (self._multiply(self.v, x), self.k(x)))
        return self.proj(self.q(x) * self.gather(values, gates).transpose(1, 2))


class GatedMLP(SpikeInput):
    """Spike-gated feed-forward network (SGFF): one half of the widened tokens fires and gates the other, real half.

    Args:
        dim: width C of the tokens.
        ratio: width of each half over C.
        node: constructor of the neurons.
    """

    def __init__(self, dim: int, ratio: float, *, node: MakeNode):
        super().__init__()
        width = int(dim * ratio)
        self.expand = nn.Linear(dim, 2 * width)
        self.bn = nn.BatchNorm1d(width)
        self.node = node()
        self.fc2 = LinearBNNode(width, dim, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, N, C)` to spikes of the same shape."""
        gates, values = self._multiply(self.expand, x).chunk(2, dim=-1)
        return self.fc2(values * fire_after(self.node, self.bn, gates))

    @torch.no_grad()
    def fuse(self) -> "GatedMLP":
        """Fold the normalisation into the half in front of it, if both are `foldable`."""
        if not foldable(self.expand, self.bn):
            return self
        self.expand, bn = copy.deepcopy(baked(self.expand)), self.bn
        weight, bias = (p[: bn.num_features] for p in (self.expand.weight, self.expand.bias))
        folded = fuse_linear_bn_weights(weight, bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
        for part, new in zip((weight, bias), folded, strict=True):
            part.copy_(new)
        self.bn = nn.Identity()
        return self


class DownsamplingStem(SpikingPatchSplitting):
    """Spikformer's stem with convolutions of stride 2, or average pooling, in the place of max pooling.

    Args:
        grid_size, pooled, in_chans, embed_dim: see `SpikingPatchSplitting`.
        downsampling: "conv", or "avg" for the mean of 3x3 spikes, zeros around the map included.
        node: constructor of the neurons.
    """

    def __init__(
        self,
        grid_size: tuple[int, int],
        pooled: list[bool],
        in_chans: int,
        embed_dim: int,
        *,
        downsampling: Literal["conv", "avg"],
        node: MakeNode,
    ):
        super().__init__(grid_size, [False] * 4, in_chans, embed_dim, pool="after", node=node)
        for i, conv in enumerate(self.stages):
            self.stages[i] = ConvSequence(conv)
            if pooled[i] and downsampling == "avg":
                self.stages[i].append(nn.AvgPool2d(3, stride=2, padding=1))
            elif pooled[i]:
                width = conv.conv.out_channels
                self.stages[i].append(ConvBNNode(width, width, stride=2, node=node))


def _number_down(match: re.Match, shift: int) -> str:
    return f"patch_embed.stages.{int(match[2] or 0) + shift}.1.{match[1]}."


def _names(shift: int) -> OfficialNames:
    """Build the official names; `shift` is the stage whose downsampling has, or would have, no number."""
    return OfficialNames(
        rename=(
            (r"^patch_embed\.proj_(conv|bn)\.", r"patch_embed.stages.0.0.\1."),
            (r"^patch_embed\.proj_(conv|bn)(\d)\.", r"patch_embed.stages.\2.0.\1."),
            (r"^patch_embed\.down_sample_(conv|bn)(\d?)\.", functools.partial(_number_down, shift=shift)),
            POSITION,
            BLOCKS,
            (r"\.attn\.to_(q|k|v|project)_fire_block\.fire_block\.(\d+)\.dynamic_", r".attn.\1.node.\2."),
            (r"\.attn\.to_(q|k)_bn\.", r".attn.\1.bn."),
            (r"\.attn\.to_(q|k)\.", r".attn.\1.linear."),
            (r"\.attn\.to_v\.", ".attn.v."),
            (r"\.attn\.project_bn\.", ".attn.proj.bn."),
            (r"\.attn\.project\.(?!node)", ".attn.proj.linear."),
            (r"\.attn\.project\.", ".attn.proj."),
            (r"\.sgfnn\.to_hidden_linear\.", ".mlp.expand."),
            (r"\.sgfnn\.to_hidden_v_bn\.", ".mlp.bn."),
            (r"\.sgfnn\.to_out\.", ".mlp.fc2.linear."),
            (r"\.sgfnn\.to_bn\.", ".mlp.fc2.bn."),
        ),
        dead=(
            (r"^pos_embed$", "position table that is never added"),
            (r"^norm\.(weight|bias)$", "layer norm that the network never calls"),
        ),
    )


_NAMES, _CIFAR_NAMES = _names(0), _names(1)


class OST(FlatTransformer):
    """OST: a stem of T steps, their sum, L blocks of a single step, mean over tokens, one linear classifier.

    Args:
        downsampling: how the stem halves the sides: "conv" for convolutions of stride 2, "avg" for average pooling.
        thresholds: neurons n behind queries, keys and the projection; neuron j of n has (0.5 + j/n) times the
            network's threshold.
        **flat: patch_size (4 for CIFAR, 16 for ImageNet and events), embed_dim, depth, mlp_ratio, drop_path_rate, see
            `FlatTransformer`, and those of `SpikingTransformer`. There are no heads.
    """

    sums_steps = "its blocks read the sum over the steps of the stem"
    mixes_time = sums_steps

    def __init__(self, *, downsampling: Literal["conv", "avg"] = "conv", thresholds: int = 2, **flat: Any):
        if thresholds < 1:
            raise UserError(f"{type(self).__name__}: thresholds must be at least 1; got {thresholds}")
        if "num_heads" in flat:
            raise UserError(f"{type(self).__name__} has no heads; got num_heads={flat['num_heads']} (leave it out)")
        self.downsampling, self.thresholds = downsampling, thresholds
        super().__init__(num_heads=1, **flat)

    @property
    def official_names(self) -> OfficialNames:
        """How official weights name what is here: the downsamplings of CIFAR's file count from 1, behind the third
        convolution."""
        return _CIFAR_NAMES if self.patch_size == 4 else _NAMES

    def _stem(self) -> nn.Module:
        return self._build_stem(DownsamplingStem, downsampling=self.downsampling)

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        ratios = (0.5 + j / self.thresholds for j in range(self.thresholds))
        nodes = [self._neuron(ratio, step=self.unit_steps) for ratio in ratios]
        attn = GatedAttention(self.embed_dim, node=lambda: MultiThreshold(nodes))
        mlp = GatedMLP(self.embed_dim, self.mlp_ratio, node=self._neuron(step=self.unit_steps))
        return Block(attn, mlp, drop_path)


_PAPER = Paper("OST", "IJCAI 2024", "doi:10.24963/ijcai.2024/348", "songxt3/OST")
_CIFAR = {
    "cifar10": ("CIFAR10", 10, {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}),
    "cifar100": ("CIFAR100", 100, {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}),
}


def _args(depth: int, dim: int, **args: Any) -> dict[str, Any]:
    """Build the arguments of a network from depth and width, by which the paper names it, and others."""
    return {"depth": depth, "embed_dim": dim, **args}


def _cifar(depth: int, dim: int, ratio: int, *top1: float) -> Variant:
    """Build a CIFAR variant from depth, width, MLP ratio and the published accuracies on both sets."""
    sets = zip(_CIFAR.items(), top1, strict=True)
    cfgs = {tag: cfg(_PAPER, (3, 32, 32), n, f"{title} {best}", **norm) for (tag, (title, n, norm)), best in sets}
    return Variant(_args(depth, dim, patch_size=4, mlp_ratio=ratio), cfgs)


def _events(depth: int, tag: str, classes: int, published: str, **args: Any) -> Variant:
    return Variant(_args(depth, 256, step=16, **args), {tag: cfg(_PAPER, (2, 128, 128), classes, published)})


register(
    OST,
    {
        "ost_digits": Variant(_args(2, 64, patch_size=2), {"": cfg(_PAPER, (1, 8, 8), 10)}),
        "ost_ndigits": Variant(_args(2, 64, patch_size=4), {"": cfg(_PAPER, (2, 16, 16), 10)}),
        "ost_4_256_cifar": _cifar(4, 256, 4, 95.13, 77.05),
        "ost_4_256_cifar_r3": _cifar(4, 256, 3, 95.16, 76.82),
        "ost_4_256_cifar_r2": _cifar(4, 256, 2, 95.04, 76.59),
        "ost_2_384_cifar": _cifar(2, 384, 4, 95.47, 77.47),
        "ost_2_384_cifar_r3": _cifar(2, 384, 3, 95.44, 77.49),
        "ost_2_384_cifar_r2": _cifar(2, 384, 2, 95.63, 77.11),
        "ost_4_384_cifar": _cifar(4, 384, 4, 95.64, 78.76),
        "ost_4_384_cifar_r3": _cifar(4, 384, 3, 95.51, 78.20),
        "ost_4_384_cifar_r2": _cifar(4, 384, 2, 95.68, 78.25),
        "ost_2_512_cifar": _cifar(2, 512, 4, 95.83, 78.53),
        "ost_2_512_cifar_r3": _cifar(2, 512, 3, 95.63, 78.60),
        "ost_2_512_cifar_r2": _cifar(2, 512, 2, 95.68, 78.47),
        "ost_8_384_imagenet": Variant(_args(8, 384), imagenet(_PAPER, "")),
        # 1.59 above Spikformer's 73.38, as the abstract says
        "ost_8_512_imagenet": Variant(_args(8, 512), imagenet(_PAPER, 74.97)),
        "ost_8_768_imagenet": Variant(_args(8, 768), imagenet(_PAPER, "")),
        "ost_2_256_dvs": _events(2, "cifar10dvs", 10, "CIFAR10-DVS 81.2"),
        "ost_1_256_gesture": _events(
            1, "gesture", 11, "DVS128 Gesture 99.0 (with two blocks)", downsampling="avg", thresholds=1
        ),
    },
    first_conv="patch_embed.stages.0.0.conv",
)
