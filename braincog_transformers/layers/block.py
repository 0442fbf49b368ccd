"""The encoder block: two residual branches."""

from torch import Tensor, nn

__all__ = ["Block"]


class Block(nn.Module):
    """Attention and MLP, each added to the stream that runs past it.

    Args:
        attn, mlp: the branches.
        drop_path: what drops a branch for a whole sample, see `layers.drop`.
    """

    def __init__(self, attn: nn.Module, mlp: nn.Module, drop_path: nn.Module):
        super().__init__()
        self.attn = attn
        self.mlp = mlp
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, ...)` to the same shape."""
        x = x + self.drop_path(self.attn(x))
        return x + self.drop_path(self.mlp(x))
