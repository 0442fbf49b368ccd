"""Spikformer's stem, which TIM takes over."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from .conv import ConvBNNode, ConvSequence

__all__ = ["SpikingPatchSplitting"]


class SpikingPatchSplitting(nn.Module):
    """Stem: four convolutions that widen to C and halve the side log2(patch_size) times, then a relative position
    convolution.

    Args:
        grid_size: height and width of the map of tokens.
        pooled: which of the four convolutions are pooled.
        in_chans: channels of the input.
        embed_dim: width C, a multiple of 8.
        pool: pool "after" the neuron (Spikformer) or "before" it (CML).
        node: constructor of the neurons.
    """

    def __init__(
        self,
        grid_size: tuple[int, int],
        pooled: list[bool],
        in_chans: int,
        embed_dim: int,
        *,
        pool: Literal["before", "after"],
        node: Callable[[], nn.Module],
    ):
        super().__init__()
        self.grid_size = grid_size
        widths = [in_chans, embed_dim // 8, embed_dim // 4, embed_dim // 2, embed_dim]
        self.stages = ConvSequence(
            *(ConvBNNode(widths[i], widths[i + 1], node=node, pool=pool if pooled[i] else None) for i in range(4))
        )
        self.rpe = ConvBNNode(embed_dim, embed_dim, node=node)

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C_in, H, W)`, or `(B, C_in, H, W)` standing for `copies=T` steps, to tokens `(T*B, N, C)` in {0,
        1, 2}."""
        x = self.stages(x, copies)
        return (x + self.rpe(x)).flatten(2).transpose(1, 2)
