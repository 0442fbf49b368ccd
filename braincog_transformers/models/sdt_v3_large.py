"""Spike-driven Transformer V3 (E-SpikeFormer): the networks of 83 and 173 million parameters.

The paper is that of `sdt_v3`; official code: BICLab/Spike-Driven-Transformer-V3 at 00fcd1f, no licence stated,
`Classification/Model_Large/spikformer.py`. New over the smaller ones: masked pre-training, then fine-tuning with layer
scale, drop path and a teacher. Spiking convolutions reduce the image to tokens of 16 x 16 pixels, 12 transformer blocks
of one width follow; a projection of the attention is a stack for training, which folds into one linear layer.

Deviations of the official code from the paper, and from its smaller networks, kept here:
- The neurons round half up instead of to the even number, and have no gradient at 0 and D (`rounding`).
- The attention scale is the constant 0.125 for every width of the heads.
- The first classifier reads averages of potentials. Only the second, which learns from a teacher, reads spikes.
- 173M begins 98 and 196 channels wide, its pre-training network 96 and 192: 171M here. The weights of one don't fit
  the other. Which of the two has the released files could not be looked up.

The class of 83M declares one more branch in each block (`rep_conv`, 6.3 million of its 83 million parameters). As it is
in the released weights it can't run, and in the published class its call fails; so it is left out, and its weights are
dropped when a file is loaded. The class of the masked pre-training computes it: `rep_branch=True` builds it, for
networks without layer scale, which that class has not either.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from ..errors import UserError
from ..layers import (
    Block,
    ConvBN,
    ConvMLP,
    ConvSequence,
    LayerScale,
    LinearBN,
    MakeNode,
    MembraneAttention,
    MembraneMLP,
    NodeConvBN,
    SpikeInput,
    baked,
    foldable,
)
from ..nodes.normalisation import normalised
from .base import Masking
from .distilled import Distilled
from .flat import FlatTransformer
from .official import BN, LINEAR, OfficialNames
from .registry import Variant, cfg, flat, imagenet, register
from .sdt_v3 import PAPER

__all__ = ["ESpikeformerLarge"]


class RepLinear(SpikeInput):
    """Linear layer, for training a stack: a layer 1.5 times as wide, normalisation, a layer, two normalisations."""

    def __init__(self, dim: int):
        super().__init__()
        hidden = int(1.5 * dim)
        self.body = nn.Sequential(LinearBN(dim, hidden, bias=False), LinearBN(hidden, dim, bias=False))
        self.bn = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to the same shape."""
        return normalised(self.bn, self._multiply(self.body, x) if isinstance(self.body, nn.Linear) else self.body(x))

    @torch.no_grad()
    def fuse(self) -> "RepLinear":
        """Fold the stack into the layer that it stands for, all of whose inputs are spikes, if its layers are
        `foldable`."""
        if isinstance(self.body, nn.Linear):
            return self
        first, second = self.body
        if not foldable(first.linear, first.bn, second.linear, second.bn, self.bn):
            return self
        into = fuse_linear_bn_eval(baked(first.linear), first.bn)
        out = fuse_linear_bn_eval(fuse_linear_bn_eval(baked(second.linear), second.bn), self.bn)
        weight = out.weight @ into.weight
        self.body = nn.Linear(*weight.T.shape, device=weight.device, dtype=weight.dtype).eval()
        self.body.weight.copy_(weight)
        self.body.bias.copy_(out.weight @ into.bias + out.bias)
        self.bn = nn.Identity()
        return self


class ConvBlock(ConvMLP):
    """`ConvMLP` with 3x3 convolutions, added to the potentials that it reads."""

    def __init__(self, dim: int, *, node: MakeNode):
        super().__init__(dim, 4, 3, bias=True, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, C, H, W)` to potentials of the same shape."""
        return x + super().forward(x)


class ConvolutionalStages(nn.Module):
    """Stem: four convolutions that halve the side log2(patch_size) times, blocks of convolutions behind the first
    three.

    Args:
        grid_size: height and width of the map of tokens.
        halved: which of the four convolutions halve the side.
        in_chans: channels of the input.
        embed_dim: width C of the tokens.
        dims: widths of the second and the third convolution; the first has half the second's.
        node: constructor of the neurons.
    """

    def __init__(
        self,
        grid_size: tuple[int, int],
        halved: list[bool],
        in_chans: int,
        embed_dim: int,
        *,
        dims: tuple[int, int],
        node: MakeNode,
    ):
        super().__init__()
        self.grid_size = grid_size
        widths, strides = (dims[0] // 2, *dims, embed_dim), [1 + half for half in halved]

        def down(i: int) -> NodeConvBN:
            return NodeConvBN(widths[i - 1], widths[i], node=node, stride=strides[i], bias=True)

        def conv(i: int) -> ConvBlock:
            return ConvBlock(widths[i], node=node)

        first = ConvBN(in_chans, widths[0], 7, stride=strides[0], bias=True)
        self.stages = ConvSequence(first, conv(0), down(1), conv(1), down(2), conv(2), conv(2), down(3))

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C_in, H, W)`, or `(B, C_in, H, W)` standing for `copies=T` steps, to potentials `(T*B, N, C)`."""
        return self.stages(x, copies).flatten(2).transpose(1, 2)


_STEM = ("downsample1_1", "ConvBlock1_1.0", "downsample1_2", "ConvBlock1_2.0", "downsample2")
_STEM = (*_STEM, "ConvBlock2_1.0", "ConvBlock2_2.0", "downsample3")


class ESpikeformerLarge(Distilled, FlatTransformer):
    """E-SpikeFormer with blocks of one width: stem of convolutions, L blocks on a stream of potentials, their mean over
    tokens and steps, one linear classifier, with distillation two.

    Args:
        stem_dims: widths of the stem's second and third convolution; a quarter and half of C if left out.
        layer_scale: initial factor of each branch of a block; 0 for no such factor.
        rep_branch: a further branch in front of the others, two linear layers with normalisations behind a neuron, as
            in the pre-training of 83M; only without layer scale.
        distilled: see `Distilled`; the second classifier has a neuron in front of it.
        **flat: patch_size, embed_dim, depth, num_heads, mlp_ratio (of the blocks), drop_path_rate, see
            `FlatTransformer`, and those of `SpikingTransformer`; all thresholds are the same.
    """

    neuron_defaults: ClassVar = {"node_type": "ILIFNode", "tau": 1.0, "rounding": "up"}
    official_names = OfficialNames(
        rename=(
            *((rf"^{name}\.(?:encode_)?", f"patch_embed.stages.{i}.") for i, name in enumerate(_STEM)),
            (r"\.conv([12])\.0\.0\.", r".fc\1.conv."),
            (r"\.conv([12])\.0\.1\.", r".fc\1.bn."),
            (r"^block3\.", "blocks."),
            # a projection's stack of convolutions and normalisations, and the normalisation behind it
            (r"\.(q|k|v|proj)_conv\.0\.conv1\.0\.", r".\1_conv.0.body.0.linear."),
            (r"\.(q|k|v|proj)_conv\.0\.conv1\.1\.", r".\1_conv.0.body.0.bn."),
            (r"\.(q|k|v|proj)_conv\.0\.conv2\.0\.", r".\1_conv.0.body.1.linear."),
            (r"\.(q|k|v|proj)_conv\.0\.conv2\.1\.", r".\1_conv.0.body.1.bn."),
            (r"_conv\.1\.", "_conv.0.bn."),
            (r"\.([qkv])_conv\.0\.", r".\1.0."),
            (r"\.proj_conv\.0\.", ".proj."),
            (r"\.layer_scale1$", ".scales.0.factors"),
            (r"\.layer_scale2$", ".scales.1.factors"),
            (r"\.rep_conv\.conv([12])\.0\.", r".conv.\1.linear."),
            (r"\.rep_conv\.conv([12])\.1\.", r".conv.\1.bn."),
            LINEAR,
            BN,
            (r"^head_kd\.", "head_dist."),
        ),
        dead=((r"^block3\.\d+\.rep_conv\.", "branch that no released network computes"),),
    )
    masking = Masking(
        parts=("patch_embed",), arguments={"layer_scale": 0.0}, new=r"\.scales\.\d\.factors$", has_code=True
    )

    def __init__(
        self,
        *,
        stem_dims: tuple[int, int] | None = None,
        layer_scale: float = 1e-6,
        rep_branch: bool = False,
        distilled: bool = False,
        **flat: Any,
    ):
        if rep_branch and layer_scale:
            name = type(self).__name__
            raise UserError(f"{name}: rep_branch is for layer_scale=0.0, as in pre-training; got {layer_scale}")
        if rep_branch:
            self.official_names = replace(self.official_names, dead=())
        self.stem_dims, self.layer_scale, self.rep_branch = stem_dims, layer_scale, rep_branch
        self.distilled = distilled
        super().__init__(**flat)

    def _stem(self) -> nn.Module:
        dims = self.stem_dims or (self.embed_dim // 4, self.embed_dim // 2)
        if dims[0] % 2:
            raise UserError(f"{type(self).__name__}: the first of stem_dims must be even; got {dims}")
        return self._build_stem(ConvolutionalStages, dims=dims)

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        dim, node = self.embed_dim, self._neuron()
        q, k, v = (nn.Sequential(RepLinear(dim), node()) for _ in range(3))
        nodes = {"node": node, "attn_node": node}
        attn = MembraneAttention(self.num_heads, q=q, k=k, v=v, proj=RepLinear(dim), **nodes)
        scales = [LayerScale(dim, self.layer_scale) for _ in range(2)] if self.layer_scale else ()
        layers = (LinearBN(dim, dim, bias=False) for _ in range(2))
        conv = nn.Sequential(node(), *layers) if self.rep_branch else None
        return Block(attn, MembraneMLP(dim, self.mlp_ratio, node=node), drop_path, conv=conv, scales=scales)

    def _build_head(self) -> None:
        self.head_dist_node = self._neuron(norm=1)() if self.distilled else None
        self._build_heads(self.distilled)

    def _init_head(self, head: nn.Linear) -> None:
        nn.init.xavier_uniform_(head.weight)
        nn.init.zeros_(head.bias)

    def _second_input(self, x: Tensor, first: Tensor) -> Tensor:
        x = self._fire(self.head_dist_node, self._pool(x).flatten(0, 1))
        return self.head_drop(x if self.output_steps else x.mean(dim=0))


register(
    ESpikeformerLarge,
    {
        "sdt_v3_83m": Variant(flat(12, 512, 8, step=1), imagenet(PAPER, "84.0 (with distillation)")),
        "sdt_v3_173m": Variant(
            flat(12, 768, 8, stem_dims=(196, 384), step=1),
            {
                **imagenet(PAPER, ""),
                "in1k_384": cfg(PAPER, (3, 384, 384), 1000, "ImageNet 86.2 (levels=8, with distillation)"),
            },
        ),
        "sdt_v3_171m": Variant(flat(12, 768, 8, step=1), imagenet(PAPER, "")),
    },
    first_conv="patch_embed.stages.0.conv",
)
