"""Spikeformer, which is not Spikformer.

Li, Lei, Yang: Spikeformer: Training high-performance spiking neural network with transformer. Neurocomputing 2024, doi
10.1016/j.neucom.2024.127279, arXiv 2211.10686. Official code: Loydian/Spikeformer at cacc58d, no licence stated. New:
a tokenizer of spiking residual (SEW) blocks; attention over the steps of each place, then over the places of each step;
learnt positions in space and time; a head that weighs every token. The attention is ordinary softmax attention on real
numbers behind layer norms: neurons fire in the tokenizer and inside the MLPs only. The ImageNet network has neurons
that put out their potential (`PLIAFNode`), so nothing in it spikes.

Deviations of the official code, kept here:
- Drop path drops places of a sample in the temporal branch, steps of a sample in the spatial one, and in the MLP's one
  whole steps of the batch.
- The temporal branch's last layer begins with zeros, in the first block too.
- Tables of positions are resized by the nearest entry.
Corrected here:
- A table is resized whenever the map of tokens has other sides; there, not if the number of tokens is the same.
- A new network is new: there, its normalisations have seen a batch of zeros.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any, ClassVar

import torch
from einops import rearrange
from timm.layers import drop_path as drop_rows
from timm.models import register_notrace_module
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError
from ..layers import ConvBNNode, ConvSequence, MakeNode, SoftmaxProduct, SpikeInput, StepDropPath
from .flat import FlatTransformer
from .official import OfficialNames
from .registry import Paper, Variant, cfg, flat, imagenet, register

__all__ = ["Spikeformer"]


class SEWBlock(nn.Module):
    """Two convolutions, whose spikes are added to those of the shortcut: small whole numbers leave.

    Args:
        in_chans, out_chans: channels.
        kernel_size: of both convolutions.
        stride: of the first one; the shortcut averages as many positions.
        node: constructor of the neurons.

    Source: Fang et al., Deep Residual Learning in Spiking Neural Networks (NeurIPS 2021, arXiv 2102.04159).
    """

    def __init__(self, in_chans: int, out_chans: int, kernel_size: int, stride: int, *, node: MakeNode):
        super().__init__()
        self.conv1 = ConvBNNode(in_chans, out_chans, kernel_size, stride=stride, node=node)
        self.conv2 = ConvBNNode(out_chans, out_chans, kernel_size, node=node)
        changes = stride > 1 or in_chans != out_chans
        self.pool = nn.AvgPool2d(stride) if changes else nn.Identity()
        self.match = ConvBNNode(in_chans, out_chans, 1, node=node) if changes else None

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to `(T*B, C', H', W')`; `copies` as in `ConvBN`, for a block with another size."""
        spikes = self.conv2(self.conv1(x, copies))
        return spikes + (x if self.match is None else self.match(self.pool(x), copies))


class Tokenizer(nn.Module):
    """Stem: stages of SEW blocks. Each stage halves the sides, and has twice the width of the one before.

    Args:
        grid_size: height and width of the map of tokens.
        in_chans: channels of the input.
        widths: channels of the stages.
        blocks: blocks in each stage; its first one halves the sides.
        kernel_size: of the convolutions.
        node: constructor of the neurons.
    """

    def __init__(
        self,
        grid_size: tuple[int, int],
        in_chans: int,
        widths: list[int],
        blocks: int,
        kernel_size: int,
        *,
        node: MakeNode,
    ):
        super().__init__()
        self.grid_size = grid_size
        outs = [width for width in widths for _ in range(blocks)]
        ins = [in_chans, *outs]
        strides = [2, *[1] * (blocks - 1)] * len(widths)
        sizes = zip(ins[:-1], outs, strides, strict=True)
        self.blocks = ConvSequence(*(SEWBlock(a, b, kernel_size, stride, node=node) for a, b, stride in sizes))

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C_in, H, W)`, or `(B, C_in, H, W)` standing for `copies=T` steps, to tokens `(T*B, N, C)` of whole
        numbers."""
        return self.blocks(x, copies).flatten(2).transpose(1, 2)


@register_notrace_module
class SpaceTimePositions(nn.Module):
    """Add a learnt table of places, and one of steps. For other places or steps than it has entries, a table is resized
    by the nearest entry.

    Args:
        grid_size: height and width of the map of tokens.
        step: number of steps T.
        dim: width C of the tokens.
    """

    def __init__(self, grid_size: tuple[int, int], step: int, dim: int):
        super().__init__()
        self.grid_size = grid_size
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, *grid_size, dim), std=0.02))
        self.time_embed = nn.Parameter(torch.zeros(1, step, dim))

    def forward(self, x: Tensor, step: int) -> Tensor:
        """Map tokens `(T*B, N, C)` of `step=T` steps to the same shape."""
        places, steps = resized(self.pos_embed, self.grid_size), resized(self.time_embed, (step,))
        x = x.unflatten(0, (step, -1)) + places.flatten(1, 2) + rearrange(steps, "b t c -> t b 1 c")
        return x.flatten(0, 1)


def resized(table: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Return a table `(1, *others, C)` as `(1, *sides, C)`, each entry the nearest."""
    if table.shape[1:-1] == sides:
        return table
    return functional.interpolate(table.movedim(-1, 1), size=sides, mode="nearest").movedim(1, -1)


class RowDropPath(StepDropPath):
    """Drop a residual branch for rows of the first axis, whatever they stand for."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to the same shape; what stays is scaled by 1/(1 - drop_prob)."""
        return drop_rows(x, self.drop_prob, self.training)


class StepProduct(SoftmaxProduct):
    """The product between the steps of a place, which are no places of a map."""


class SoftmaxAttention(nn.Module):
    """Ordinary self-attention on real numbers.

    Args:
        dim: width C of the tokens.
        num_heads: heads h; each is C/h wide.
        product: class of the product.
    """

    def __init__(self, dim: int, num_heads: int, product: type[SoftmaxProduct] = SoftmaxProduct):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.product = product((dim // num_heads) ** -0.5)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, L, C)` to the same shape."""
        q, k, v = rearrange(self.qkv(x), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        return self.proj(rearrange(self.product(q, k, v), "b h l d -> b l (h d)"))


class MLP(SpikeInput):
    """Two linear layers with neurons in between, without normalisation: real numbers in and out, spikes inside.

    Args:
        dim: width C.
        ratio: width in between over C.
        node: constructor of the neurons.
    """

    def __init__(self, dim: int, ratio: float, *, node: MakeNode):
        super().__init__()
        self.fc1 = nn.Linear(dim, int(dim * ratio))
        self.node = node()
        self.fc2 = nn.Linear(int(dim * ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to the same shape."""
        return self._multiply(self.fc2, self.node(self.fc1(x)))


@register_notrace_module
class SpaceTimeBlock(nn.Module):
    """Attention over the steps of each place, over the places of each step, and an MLP, each added to what it reads.

    Args:
        dim: width C of the tokens.
        num_heads: attention heads.
        mlp_ratio: width of the MLP over C.
        drop_path: stochastic depth, see the module's docstring.
        node: constructor of the neurons.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: RowDropPath, *, node: MakeNode):
        super().__init__()
        self.temporal_norm1, self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(3))
        self.temporal_attn = SoftmaxAttention(dim, num_heads, StepProduct)
        self.temporal_fc = nn.Linear(dim, dim)
        self.attn = SoftmaxAttention(dim, num_heads)
        self.mlp = MLP(dim, mlp_ratio, node=node)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to the same shape."""
        axes = {"t": self.drop_path.step, "n": x.shape[1]}
        over_steps = self.temporal_norm1(rearrange(x, "(t b) n c -> (b n) t c", **axes))
        over_steps = self.drop_path(self.temporal_attn(over_steps))
        x = x + self.temporal_fc(rearrange(over_steps, "(b n) t c -> (t b) n c", **axes))
        x = x + self.drop_path(self.attn(self.norm1(x)))
        by_step = self.mlp(self.norm2(x)).unflatten(0, (axes["t"], -1))
        return x + self.drop_path(by_step).flatten(0, 1)


@register_notrace_module
class TokenPool(nn.Module):
    """Weigh all tokens of all steps by the softmax of a learnt score, and add them up.

    Args:
        dim: width C of the tokens.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, x: Tensor, step: int) -> Tensor:
        """Map tokens `(T*B, N, C)` of `step=T` steps to T times what each step adds to the sum, `(T, B, C)`; their mean
        is the sum."""
        x = rearrange(x, "(t b) n c -> b t n c", t=step)
        weights = self.score(x).flatten(1).softmax(1).view(*x.shape[:3], 1)
        return step * (weights * x).sum(2).transpose(0, 1)


class Spikeformer(FlatTransformer):
    """Spikeformer: tokenizer, positions in space and time, L blocks, weighted sum of all tokens, one linear classifier.

    T and the size of the input may change, since the tables of positions are resized.

    Args:
        patch_size: side of a token, pixels: a power of 2, from 2 on; the tokenizer has a stage for each halving.
        kernel_size: of the tokenizer's convolutions, an odd number.
        blocks_per_stage: SEW blocks in each of its stages.
        embed_dim: width C of the tokens; the first stage has C over half the patch size.
        mlp_ratio, drop_path_rate: see `FlatTransformer`.
        **flat: depth, num_heads, see `FlatTransformer`, and those of `SpikingTransformer`. With `output_steps`, the
            logits of a step are those of its share in the weighted sum, times T.
    """

    mixes_time = "each block attends to all steps at once"
    neuron_defaults: ClassVar = {"node_type": "PLIFNode"}
    official_names = OfficialNames(
        rename=(
            (r"^model\.", ""),
            (r"^(pos|time)_embed$", r"positions.\1_embed"),
            (r"^patch_embed\.conv_layers\.", "patch_embed.blocks."),
            (r"\.residual_function\.0\.", ".conv1."),
            (r"\.residual_function\.1\.", ".conv2."),
            (r"\.shortcut\.1\.", ".match."),
            (r"^(patch_embed\..*)\.1\.w$", r"\1.node.w"),
            (r"^(patch_embed\..*)\.0\.0\.weight$", r"\1.conv.weight"),
            (r"^(patch_embed\..*)\.0\.1\.", r"\1.bn."),
            (r"\.mlp\.mlp\.0\.0\.", ".mlp.fc1."),
            (r"\.mlp\.mlp\.1\.", ".mlp.node."),
            (r"\.mlp\.mlp\.2\.0\.", ".mlp.fc2."),
            (r"^attention_pool\.", "pool.score."),
        ),
    )

    def __init__(
        self,
        *,
        patch_size: int = 8,
        kernel_size: int = 3,
        blocks_per_stage: int = 2,
        embed_dim: int = 256,
        mlp_ratio: float = 2.0,
        drop_path_rate: float = 0.1,
        **flat: Any,
    ):
        if patch_size < 2 or patch_size & (patch_size - 1):
            raise UserError(f"Spikeformer: patch_size must be a power of 2, from 2 on; got {patch_size}")
        if kernel_size % 2 == 0:
            raise UserError(f"Spikeformer: kernel_size must be odd, so that its middle is a pixel; got {kernel_size}")
        self.kernel_size, self.blocks_per_stage = kernel_size, blocks_per_stage
        rates = {"mlp_ratio": mlp_ratio, "drop_path_rate": drop_path_rate}
        super().__init__(patch_size=patch_size, embed_dim=embed_dim, **rates, **flat)

    def _stem(self) -> nn.Module:
        halvings = self.patch_size.bit_length() - 1
        self._require_width(self.patch_size // 2)
        widths = [self.embed_dim >> i for i in reversed(range(halvings))]
        sizes = self.in_chans, widths, self.blocks_per_stage, self.kernel_size
        return Tokenizer(self._layout(), *sizes, node=self._neuron())

    def _drop_paths(self, rate: float, depth: int) -> list[StepDropPath]:
        return [RowDropPath(linear.drop_prob, linear.step) for linear in super()._drop_paths(rate, depth)]

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        return SpaceTimeBlock(self.embed_dim, self.num_heads, self.mlp_ratio, drop_path, node=self._neuron())

    def _build_head(self) -> None:
        self.norm = nn.LayerNorm(self.embed_dim, eps=1e-6)
        self.pool = TokenPool(self.embed_dim)
        super()._build_head()
        self.positions = SpaceTimePositions(self.patch_embed.grid_size, self.step, self.embed_dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, SpaceTimeBlock):
                nn.init.zeros_(module.temporal_fc.weight)

    def _embed(self, x: Tensor) -> Tensor:
        return self.positions(super()._embed(x), self.step)

    def _pool(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.pool(x, self.step) if self.global_pool else x.unflatten(0, (self.step, -1))

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {**super().group_matcher(coarse), "stem": r"^patch_embed|^positions"}

    def set_attr(self, attr: str, val: Any) -> None:
        if attr == "layer_by_layer" and not val:
            raise UserError(
                f"Spikeformer can't run one step at a time: {self.mixes_time} (leave out --no-layer-by-layer)"
            )
        super().set_attr(attr, val)

    def fit_tables(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring a file's tables of positions to this network's sizes, as `forward` does.

        Args:
            state: tensors by our name; a table of places is `(1, H, W, C)`, or `(1, N, C)` in official files.

        Raises:
            UserError: for an official table that is neither square nor as long as this network's.
        """
        fitted = dict(state)
        own = {"pos_embed": self.positions.pos_embed, "time_embed": self.positions.time_embed}
        for name, table in own.items():
            value = state.get(f"positions.{name}")
            if value is None or value.shape[0] != 1 or value.shape[-1] != self.embed_dim or value.dim() not in (3, 4):
                continue
            if table.dim() == 4 and value.dim() == 3:
                value = value.unflatten(1, self._sides_of(value.shape[1]))
            if value.dim() == table.dim():
                fitted[f"positions.{name}"] = resized(value, tuple(table.shape[1:-1]))
        return fitted

    def _sides_of(self, places: int) -> tuple[int, int]:
        """Return the sides of an official table, which is square."""
        height, width = self.positions.pos_embed.shape[1:3]
        side = isqrt(places)
        if side * side == places:
            return side, side
        if places == height * width:
            return height, width
        raise UserError(
            f"Spikeformer: the file's pos_embed has {places} places, which is no square and not this network's "
            f"{height}x{width} (build the network with the img_size that the file was trained with)"
        )


_PAPER = Paper("Spikeformer", "Neurocomputing 2024", "arXiv:2211.10686", "Loydian/Spikeformer")
register(
    Spikeformer,
    {
        "spikeformer_digits": Variant(flat(2, 64, 4, patch_size=2), {"": cfg(_PAPER, (1, 8, 8), 10)}),
        "spikeformer_ndigits": Variant(flat(2, 64, 4, patch_size=4), {"": cfg(_PAPER, (2, 16, 16), 10)}),
        "spikeformer_7_3x2x3": Variant(
            flat(7, 256, 4), {"cifar10dvs": cfg(_PAPER, (2, 128, 128), 10, "CIFAR10-DVS 81.4 (test samples augmented)")}
        ),
        "spikeformer_7_5x3x1": Variant(
            flat(7, 256, 4, kernel_size=5, blocks_per_stage=1, step=16),
            {"gesture": cfg(_PAPER, (2, 128, 128), 11, "DVS128 Gesture 98.96")},
        ),
        "spikeformer_7_3x2x4": Variant(
            flat(7, 512, 8, patch_size=16, mlp_ratio=3.0, node_type="PLIAFNode"),
            imagenet(_PAPER, 78.31, crop_pct=0.875),  # cropped from 256
        ),
    },
    first_conv="patch_embed.blocks.0.conv1.conv",
)
