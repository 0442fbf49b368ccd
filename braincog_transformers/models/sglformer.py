"""SGLFormer.

H. Zhang, C. Zhou, Yu, Huang, Ma, Fan, H. Zhou, Tian: SGLFormer: Spiking Global-Local-Fusion Transformer with high
performance. Frontiers in Neuroscience 18, 2024, doi 10.3389/fnins.2024.1371290. Official code: ZhangHanN1/SGLFormer at
4821b13, MIT. New: depthwise convolutions and attention inside interleaved sub-grids in front of global attention; for
CIFAR and events a head that weighs every token of every step.

The ImageNet network differs in figure and head, so it is a class of its own. Its 8 layers count the local block twice.
"ima2" pools late and has the name without a star, here as in the paper; "ima" pools early and has the star. Both have
the same weights by name and shape, so a file may belong to either.

Deviations of the official code:
- ImageNet: the neurons behind the projections of the global attention, and with late pooling the first one of the stem,
  run over time x batch, so that a sample's logits depend on its neighbours. Corrected here; `as_released` brings it
  back.
- The published event networks (2.48 M parameters for CIFAR10-DVS, 2.08 M for Gesture, T=10) are smaller than those of
  the released files (4.07 M), which are the ones here; the smaller ones were not released.
- The attention scale is 0.125 for every width. Kept.
- Layer norms and drop path that the official classes declare and never use are left out. `drop_path_rate` works here.
"""

import re
from typing import Any

from einops import rearrange
from timm.models import register_notrace_module
from torch import Tensor, nn

from ..errors import UserError
from ..layers import Block, ConvBNNode, ConvSequence, Foldable, MakeNode, SpikingMLP, SpikingSelfAttention
from .flat import FlatTransformer
from .official import OfficialNames
from .registry import Paper, Variant, cfg, cifar, events, flat, imagenet, register
from .released import BatchMixingFault

__all__ = ["SGLFormer", "SGLFormerImageNet"]


class LocalConvolution(nn.Module):
    """Inverted local unit: a depthwise convolution, then one between a widening by 4 and back, each added.

    Args:
        dim: width C of the tokens.
        grid_size: height and width of the map of tokens.
        node: constructor of the neurons.
    """

    def __init__(self, dim: int, grid_size: tuple[int, int], *, node: MakeNode):
        super().__init__()
        self.grid_size = grid_size
        self.conv = ConvBNNode(dim, dim, groups=dim, node=node)
        self.conv1x1_1 = ConvBNNode(dim, 4 * dim, 1, node=node)
        self.dwconv3x3 = ConvBNNode(4 * dim, 4 * dim, groups=4 * dim, node=node)
        self.conv1x1_2 = ConvBNNode(4 * dim, dim, 1, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to whole numbers of the same shape."""
        x = rearrange(x, "b (h w) c -> b c h w", h=self.grid_size[0])
        x = x + self.conv(x)
        x = x + self.conv1x1_2(self.dwconv3x3(self.conv1x1_1(x)))
        return rearrange(x, "b c h w -> b (h w) c")


class LocalAttention(SpikingSelfAttention):
    """Spiking self-attention inside each of 4 interleaved sub-grids: rows y and columns x of equal parity.

    Args:
        dim, num_heads: see `SpikingSelfAttention`.
        grid_size: height and width of the map of tokens, both even.
        **kwargs: see `SpikingSelfAttention`.
    """

    def __init__(self, dim: int, num_heads: int, grid_size: tuple[int, int], **kwargs: Any):
        super().__init__(dim, num_heads, **kwargs)
        self.grid_size = grid_size

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to spikes of the same shape."""
        grid = {"y": self.grid_size[0] // 2, "x": self.grid_size[1] // 2, "i": 2, "j": 2, "h": self.num_heads}
        q, k, v = (rearrange(p(x), "b (y i x j) (h d) -> b (i j h) (y x) d", **grid) for p in (self.q, self.k, self.v))
        x = self.product(q, k, v)
        return self.proj(self.attn_node(rearrange(x, "b (i j h) (y x) d -> b (y i x j) (h d)", **grid)))


@register_notrace_module
class FusionBlock(nn.Module):
    """Branches in a row, each added to the stream that it reads.

    Args:
        branches: by name, in order.
        drop_path: drops a branch for a whole sample, see `layers.StepDropPath`.
    """

    def __init__(self, branches: dict[str, nn.Module], drop_path: nn.Module):
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to tokens of the same shape."""
        for branch in self.branches.values():
            x = x + self.drop_path(branch(x))
        return x


class ConvolutionalStem(nn.Module):
    """Five convolutions, pooled in front of the neuron.

    Args:
        widths: channels of the input and behind each convolution.
        pooled: which of the five are pooled.
        grid_size: height and width of the map of tokens.
        node: constructor of the neurons.
    """

    def __init__(self, widths: list[int], pooled: list[bool], grid_size: tuple[int, int], *, node: MakeNode):
        super().__init__()
        self.grid_size = grid_size
        self.convs = ConvSequence(
            *(ConvBNNode(widths[i], widths[i + 1], node=node, pool="before" if pooled[i] else None) for i in range(5))
        )

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C_in, H, W)`, or `(B, C_in, H, W)` standing for `copies=T` steps, to tokens `(T*B, N, C)`."""
        return self.convs(x, copies).flatten(2).transpose(1, 2)


@register_notrace_module
class TimeTokenPool(Foldable, nn.Module):
    """Weigh every token of every step, each channel for itself: a depthwise convolution over all of them, normalised.

    Args:
        dim: width C of the tokens.
        tokens: number of tokens N.
        step: number of steps T.
    """

    def __init__(self, dim: int, tokens: int, step: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, (tokens, step), groups=dim)
        self.bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to `(B, C)`."""
        x = rearrange(x, "(t b) n c -> b c n t", t=self.conv.kernel_size[1])
        return self.bn(self.conv(x)).flatten(1)


def _number_convolution(match: re.Match) -> str:
    """Number the stem's convolutions: `stem.conv` and `proj` are the first."""
    return f"patch_embed.convs.{match[1] or 0}."


def _number_block(match: re.Match) -> str:
    """Number the blocks for ImageNet behind the local one."""
    return f"blocks.{int(match[1]) + 1}.{match[2]}."


class LocalGlobalTransformer(FlatTransformer):
    """What both networks share: stem, local branches, official names."""

    official_names = OfficialNames(
        rename=(
            (r"^(?:stem\.conv|tokenizer\.conv(\d))\.", _number_convolution),
            (r"^patch_embed\.proj(\d?)_(?=conv|bn)", _number_convolution),
            (r"^blocks\.(\d+)\.(attn|mlp)\.", _number_block),
            (r"^blocks\.(\d+)\.(?=(?:loc|ssa\d|mlp\d)\.)", r"blocks.\1.branches."),
            (r"^localblock\.0\.local1\.", "blocks.0.branches.loc."),
            (r"^localblock\.0\.local2_SSA\.", "blocks.0.branches.ssa1."),
            (r"^localblock\.0\.local2_MLP\.", "blocks.0.branches.mlp1."),
            (r"\.(q|k|v|proj)_conv\.(?:conv1x1\.)?(?=weight|bias)", r".\1.linear."),
            (r"\.(q|k|v|proj)_(?:conv\.)?bn\.", r".\1.bn."),
            (r"\.(fc1|fc2)_conv\.", r".\1.linear."),
            (r"\.(fc1|fc2)_bn\.", r".\1.bn."),
            (r"\.mlp([12])\.conv1x1\.", r".fc\1.linear."),
            (r"\.mlp([12])\.bn\.", r".fc\1.bn."),
            (r"\.conv[13]x[13]\.weight$", ".conv.weight"),
            (r"^full_size_conv\.", "pool.conv."),
            (r"^bn\.", "pool.bn."),
        ),
        dead=((r"^blocks\.\d+\.norm[12]\.(weight|bias)$", "layer norm that the block never calls"),),
    )

    @property
    def multiple(self) -> int:
        """What height and width of the input must be multiples of: two sub-grids each way."""
        return 2 * self.patch_size

    def _convolutions(self, first_share: int, pooled: list[bool]) -> nn.Module:
        """Build the stem, whose first convolution has the width over `first_share`."""
        widths = [self.in_chans, *(self.embed_dim // share for share in (first_share, 4, 2, 1, 1))]
        return ConvolutionalStem(widths, pooled, self._layout(), node=self._neuron())

    def _local_branches(self) -> dict[str, nn.Module]:
        """Build the local part: convolution, attention inside sub-grids, MLP."""
        dim, grid, nodes = self.embed_dim, self._layout(), self._attention_nodes()
        return {
            "loc": LocalConvolution(dim, grid, node=nodes["node"]),
            "ssa1": LocalAttention(dim, self.num_heads, grid, proj_bias=False, **nodes),
            "mlp1": SpikingMLP(dim, self.mlp_ratio, bias=False, node=nodes["node"]),
        }


class SGLFormer(LocalGlobalTransformer):
    """SGLFormer for CIFAR and events: stem, super blocks of one local and two global parts, a head that weighs all
    tokens and steps, one linear classifier.

    The head's kernel is built for N tokens and T steps: neither can change later, and no step has logits of its own.

    Args:
        patch_size: side of a token, pixels: 4 for CIFAR, 16 for events; height and width are multiples of its double.
        embed_dim: width C of the tokens, a multiple of 8.
        depth: number of super blocks.
        num_heads: attention heads.
        **flat: mlp_ratio, drop_path_rate, see `FlatTransformer`, and those of `SpikingTransformer`; the neurons behind
            the attention products have half the threshold.
    """

    mixes_time = "its head weighs all steps in one convolution"
    joins_steps = "the head is one kernel over all tokens and steps"

    def __init__(self, *, patch_size: int = 4, embed_dim: int = 384, depth: int = 1, num_heads: int = 16, **flat: Any):
        super().__init__(patch_size=patch_size, embed_dim=embed_dim, depth=depth, num_heads=num_heads, **flat)

    def _stem(self) -> nn.Module:
        return self._convolutions(6, [False, *self._pooled()])

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        parts, nodes = self._local_branches(), self._attention_nodes()
        for i in (2, 3):
            parts[f"ssa{i}"] = SpikingSelfAttention(self.embed_dim, self.num_heads, proj_bias=False, **nodes)
            parts[f"mlp{i}"] = SpikingMLP(self.embed_dim, self.mlp_ratio, bias=False, node=nodes["node"])
        return FusionBlock(parts, drop_path)

    def _build_head(self) -> None:
        height, width = self._layout()
        self.pool = TimeTokenPool(self.embed_dim, height * width, self.step)
        super()._build_head()

    def _layout(self) -> tuple[int, int]:
        if hasattr(self, "pool"):
            raise UserError(
                f"SGLFormer: img_size stays as built, because {self.joins_steps}; got {self.img_size} (build the "
                "network with img_size=)"
            )
        return super()._layout()

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map features to logits `(B, K)`, with `pre_logits` to what the classifier reads, see `SpikingTransformer`.

        Raises:
            UserError: with `output_steps`.
        """
        if self.output_steps:
            raise UserError(f"SGLFormer has no logits by step (output_steps, the TET loss): {self.joins_steps}")
        with self._planes(x):
            x = self.head_drop(self.pool(x) if self.global_pool else self._pool(x).mean(dim=0))
            return x if pre_logits else self.head(x)


class SGLFormerImageNet(BatchMixingFault, LocalGlobalTransformer):
    """SGLFormer for ImageNet: stem, a local block, Spikformer's blocks, mean over tokens and steps, one linear
    classifier.

    Args:
        late_pooling: pool the stem's last convolutions (the paper's names without a star), or its first ones (those
            with a star).
        depth: number of blocks, of which the local one counts as two.
        as_released: let neurons mix the samples of a batch as in the released code.
        **flat: patch_size (height and width are multiples of its double), embed_dim, num_heads, mlp_ratio,
            drop_path_rate, see `FlatTransformer`, and those of `SpikingTransformer`; the neurons behind the attention
            products have half the threshold.
    """

    def __init__(self, *, late_pooling: bool = True, depth: int = 8, **flat: Any):
        if depth < 2:
            raise UserError(f"SGLFormerImageNet: depth counts the local block as 2, so it is at least 2; got {depth}")
        self.late_pooling = late_pooling
        super().__init__(depth=depth - 1, **flat)

    def _stem(self) -> nn.Module:
        pooled = self._pooled()
        return self._convolutions(8, [False, *pooled] if self.late_pooling else [*pooled, False])

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        if index == 0:
            return FusionBlock(self._local_branches(), drop_path)
        nodes = self._attention_nodes()
        attn = SpikingSelfAttention(self.embed_dim, self.num_heads, **nodes)
        return Block(attn, SpikingMLP(self.embed_dim, self.mlp_ratio, node=nodes["node"]), drop_path)

    def _nodes_over_batch(self) -> list[nn.Module]:
        first = [self.patch_embed.convs[0].node] if self.late_pooling else []
        return first + [block.attn.proj.node for block in self.blocks[1:]]


_PAPER = Paper("SGLFormer", "Frontiers in Neuroscience 2024", "doi:10.3389/fnins.2024.1371290", "ZhangHanN1/SGLFormer")
_UNRELEASED = "by a smaller network that was not released"
_DVS = flat(1, 256, 16, patch_size=16, step=16)
register(
    SGLFormer,
    {
        "sglformer_digits": Variant(flat(1, 48, 4, patch_size=1), {"": cfg(_PAPER, (1, 8, 8), 10)}),
        "sglformer_4_384_cifar": Variant(flat(1, 384, 16, patch_size=4), cifar(_PAPER, 96.76, 82.26)),
        "sglformer_3_256_dvs": Variant(_DVS, events(_PAPER, f"82.6 ({_UNRELEASED})", f"98.6 ({_UNRELEASED})")),
    },
    first_conv="patch_embed.convs.0.conv",
)


def _imagenet(dim: int, heads: int, top1: float, late_pooling: bool) -> Variant:
    args = flat(8, dim, heads, late_pooling=late_pooling)
    return Variant(args, imagenet(_PAPER, top1, crop_pct=0.875))  # cropped from 256


register(
    SGLFormerImageNet,
    {
        "sglformer_8_384": _imagenet(384, 6, 79.44, late_pooling=True),
        "sglformer_8_512": _imagenet(512, 8, 82.28, late_pooling=True),
        "sglformer_8_512_star": _imagenet(512, 8, 81.93, late_pooling=False),
        "sglformer_8_768_star": _imagenet(768, 12, 83.73, late_pooling=False),
    },
    first_conv="patch_embed.convs.0.conv",
)
