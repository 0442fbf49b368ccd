"""Stochastic depth for tensors with time folded into the batch."""

from timm.layers import drop_path
from torch import Tensor, nn

__all__ = ["StepDropPath"]


class StepDropPath(nn.Module):
    """Drop a residual branch for a whole sample, all its steps together.

    Source: Huang et al., Deep Networks with Stochastic Depth (ECCV 2016).

    Args:
        drop_prob: probability that a sample's branch is dropped, 0 to 1.
        step: number of steps T.

    Raises:
        ValueError: for another probability.
    """

    def __init__(self, drop_prob: float, step: int):
        if not 0 <= drop_prob <= 1:
            raise ValueError(f"StepDropPath: drop_prob must be a probability, 0 to 1; got {drop_prob}")
        super().__init__()
        self.drop_prob = drop_prob
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, ...)` to the same shape; what stays is scaled by 1/(1 - drop_prob)."""
        if not self.training or self.drop_prob == 0:
            return x
        by_sample = x.unflatten(0, (self.step, -1)).transpose(0, 1)
        return drop_path(by_sample, self.drop_prob, self.training).transpose(0, 1).flatten(0, 1)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:g}"
