"""A base for flat networks: a stem, L blocks of one width on a map of tokens, a head. A paper's file fills it in."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from torch import nn

from ..errors import UserError
from .base import SpikingTransformer, init_linear

__all__ = ["FlatTransformer"]


class FlatTransformer(SpikingTransformer):
    """Stem, L blocks, mean over tokens and steps, one linear classifier.

    A subclass builds its stem in `_stem` and each block in `_block`. The constructor here calls them, so a subclass
    sets its own arguments, which they read, before it calls this one.

    Args:
        patch_size: side of a token, pixels; height and width of the input are multiples.
        embed_dim: width C of the tokens, a multiple of the heads.
        depth: number L of blocks.
        num_heads: attention heads.
        mlp_ratio: width of the MLP over C.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        **common: see `SpikingTransformer`.
    """

    def __init__(
        self,
        *,
        patch_size: int = 16,
        embed_dim: int = 512,
        depth: int = 8,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        **common: Any,
    ):
        super().__init__(embed_dim=embed_dim, **common)
        self._require_heads(embed_dim, num_heads)
        self._require_width(8)  # the narrowest convolution of most stems has an eighth of it
        self.patch_size, self.num_heads, self.mlp_ratio = patch_size, num_heads, mlp_ratio
        self.patch_embed = self._stem()
        drop_paths = self._drop_paths(drop_path_rate, depth)
        self.blocks = nn.Sequential(*(self._block(i, drop_path) for i, drop_path in enumerate(drop_paths)))
        self.feature_info = self._units_info([embed_dim] * depth, [self._reduction()] * depth)
        self._build_head()

    @abstractmethod
    def _stem(self) -> nn.Module:
        """Build the stem: `forward(x, copies=1)` maps `(T*B, C_in, H, W)` to tokens `(T*B, N, C)`, and an image `(B,
        C_in, H, W)` with `copies=T` to the tokens of T equal steps. Its `grid_size` is `_layout()`."""

    @abstractmethod
    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        """Build a block, which maps tokens `(T*B, N, C)` to tokens.

        Args:
            index: number of the block, from 0.
            drop_path: its stochastic depth.
        """

    def _build_head(self) -> None:
        """Build what follows the blocks, and initialise the network; for subclasses."""
        self.head = self._new_head(self.num_classes)
        self.apply(init_linear)

    @property
    def multiple(self) -> int:
        """What height and width of the input must be multiples of: the side of a token."""
        return self.patch_size

    def _layout(self) -> tuple[int, int]:
        """Return height and width of the map of tokens; raise `UserError` unless the patches fill the input."""
        self._require_sides(self.multiple)
        return self.img_size[0] // self.patch_size, self.img_size[1] // self.patch_size

    def _build_stem(self, stem: Callable[..., nn.Module], in_chans: int | None = None, **options: Any) -> nn.Module:
        """Build a stem of four convolutions like `layers.SpikingPatchSplitting`.

        Args:
            stem: its class.
            in_chans: channels that it reads; the network's if left out.
            **options: arguments beside grid_size, pooled, in_chans, embed_dim and node.
        """
        pooled = self._pooled()  # patches that no stem makes are refused before sides that they don't fill
        chans = self.in_chans if in_chans is None else in_chans
        return stem(self._layout(), pooled, chans, self.embed_dim, node=self._neuron(), **options)

    def _pooled(self) -> list[bool]:
        """Return which of a stem's four convolutions are pooled: the last log2(patch_size)."""
        pooled = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4}.get(self.patch_size)
        if pooled is None:
            raise UserError(f"{type(self).__name__}: patch_size must be 1, 2, 4, 8 or 16; got {self.patch_size}")
        return [i >= 4 - pooled for i in range(4)]

    def _reduction(self) -> int:
        """Return the side of the input over that of the map of tokens."""
        return self.patch_size
