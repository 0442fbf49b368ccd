"""Attention within windows that shift from block to block (Swin), on maps of any number of axes. Nothing here spikes.

A map is `(B, *sizes, C)`, sizes being rows and columns, or time, rows and columns; `window` and `shift` have a number
for each axis. timm's blocks know two axes, and roll a map before they pad it; the published networks that use these
pad it first, which makes other windows of a map that they don't fill.

Source: Liu et al., Swin Transformer (ICCV 2021, arXiv 2103.14030), and Video Swin Transformer (CVPR 2022, arXiv
2106.13230) for three axes.
"""

import math
from collections.abc import Sequence

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from .products import SoftmaxProduct

__all__ = ["WindowAttention", "WindowBlock", "different_regions", "join_windows", "relative_positions", "split_windows"]

MASKED = -100.0
"""What is added to a product that doesn't count, as in the published code: its weight is about 1e-44, not 0."""


def split_windows(x: Tensor, window: Sequence[int]) -> Tensor:
    """Map `(B, *sizes, C)`, each size a multiple of the window's, to windows `(B, n, N, C)`.

    The n windows and the N tokens of each are in row-major order.
    """
    axes = len(window)
    parts = [part for size, side in zip(x.shape[1:], window, strict=False) for part in (size // side, side)]
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
    windows = x.reshape(len(x), *parts, x.shape[-1]).permute(order)
    return windows.reshape(len(x), -1, math.prod(window), x.shape[-1])


def join_windows(windows: Tensor, window: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Map windows `(B, n, N, C)` back to `(B, *sizes, C)`; undoes `split_windows`."""
    axes = len(window)
    counts = [size // side for size, side in zip(sizes, window, strict=True)]
    order = [0, *(axis for i in range(1, axes + 1) for axis in (i, i + axes)), 2 * axes + 1]
    x = windows.reshape(len(windows), *counts, *window, windows.shape[-1]).permute(order)
    return x.reshape(len(windows), *sizes, windows.shape[-1])


def relative_positions(window: Sequence[int]) -> Tensor:
    """Return the place of each distance of two tokens in a table of all distances, `(N, N)`, queries first.

    A table has prod(2 w - 1) places, in row-major order of the distances, query minus key, from 1 - w to w - 1.
    """
    places = torch.cartesian_prod(*map(torch.arange, window)).view(-1, len(window))
    found = torch.zeros(len(places), len(places), dtype=torch.long)
    for axis, side in enumerate(window):
        position = places[:, axis]
        found = found * (2 * side - 1) + position[:, None] - position + side - 1
    return found


def different_regions(
    sizes: Sequence[int], window: Sequence[int], shift: Sequence[int], device: torch.device | None = None
) -> Tensor:
    """Return which pairs of tokens of a rolled map's windows were no neighbours before, boolean `(n, N, N)`.

    Along an axis that shifts, the last window consists of two regions, and the windows in front of it are a third one.
    """
    regions = torch.zeros(*sizes, dtype=torch.long, device=device)
    for axis, (size, side, by) in enumerate(zip(sizes, window, shift, strict=True)):
        place = torch.arange(size, device=device)
        region = (place >= size - side).long() + (place >= size - by) if by else torch.zeros_like(place)
        regions = regions * 3 + region.view(-1, *(1,) * (len(sizes) - axis - 1))
    regions = split_windows(regions[None, ..., None], window)[0, ..., 0]
    return regions[:, :, None] != regions[:, None]


class WindowAttention(nn.Module):
    """Self-attention among the tokens of each window, with a learnt bias for each distance of two tokens and head.

    Args:
        dim: width C of the tokens, a multiple of the heads.
        num_heads: heads h.
        window: sides of the window.
    """

    def __init__(self, dim: int, num_heads: int, window: Sequence[int]):
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.empty(math.prod(2 * w - 1 for w in window), num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_positions(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.product = SoftmaxProduct((dim // num_heads) ** -0.5)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map windows `(B, n, N, C)` to the same shape.

        Fewer tokens than the window was built for have the biases of its first N, as in the published code of Video
        Swin.

        Args:
            windows: as `split_windows` returns them.
            mask: pairs that don't see each other, boolean `(n, N, N)`.
        """
        n = windows.shape[2]
        bias = self.relative_position_bias_table[self.relative_position_index[:n, :n]].permute(2, 0, 1)
        if mask is not None:
            bias = bias + mask[:, None] * MASKED
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        return self.proj(self.product(q, k, v, bias).transpose(2, 3).flatten(3))


class WindowBlock(nn.Module):
    """`x = x + attention(LN(x))`, then `x + MLP(LN(x))`, the attention in windows.

    Args:
        dim: width C of the tokens, a multiple of the heads.
        num_heads: heads.
        window: sides of the window.
        shift: by how much the map is rolled, axis by axis; 0 for no shift.
        mlp_ratio: hidden width of the MLP over C.
        drop_path: rate of stochastic depth, of both branches.
        clip: an axis that is no longer than the window's has one window of its own length, and doesn't shift; else it
            is padded.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: Sequence[int],
        shift: Sequence[int],
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        clip: bool = False,
    ):
        super().__init__()
        self.window, self.shift, self.clip = tuple(window), tuple(shift), clip
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, *sizes, C)` to the same shape."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        sizes, axes = x.shape[1:-1], tuple(range(1, x.dim() - 1))
        window, shift = self._layout(sizes)
        missing = [-size % side for size, side in zip(sizes, window, strict=True)]
        if any(missing):
            x = F.pad(x, [0, 0, *(amount for more in reversed(missing) for amount in (0, more))])
        mask, padded = None, x.shape[1:-1]
        if any(shift):
            x = x.roll([-by for by in shift], axes)
            mask = different_regions(padded, window, shift, x.device)
        x = join_windows(self.attn(split_windows(x, window), mask), window, padded)
        if any(shift):
            x = x.roll(shift, axes)
        for axis, size in zip(axes, sizes, strict=True):
            x = x.narrow(axis, 0, size)
        return x

    def _layout(self, sizes: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the sides of the windows of a map, and its shift."""
        if not self.clip:
            return self.window, self.shift
        window = tuple(map(min, sizes, self.window))
        fits = [size <= side for size, side in zip(sizes, self.window, strict=True)]
        return window, tuple(0 if fit else by for fit, by in zip(fits, self.shift, strict=True))

    def extra_repr(self) -> str:
        return f"window={self.window}, shift={self.shift}" + ", clip" * self.clip
