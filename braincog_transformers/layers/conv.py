"""Convolution, batch normalisation, neuron, with an optional pooling before or after the neuron."""

from collections.abc import Callable
from typing import Literal

import torch
from einops import repeat
from torch import Tensor, nn

__all__ = ["ConvBNNode", "shared_over_steps"]


def shared_over_steps(bn: nn.BatchNorm2d, x: Tensor, step: int) -> Tensor:
    """Normalise one copy of an image that stands for `step` equal ones, and repeat the result.

    Mean and variance of the copies are those of one. Only the running variance tells them apart, through its n/(n-1):
    it is set to what the copies would have given.

    Args:
        bn: the normalisation.
        x: `(B, C, H, W)`.
        step: number of copies T.

    Returns:
        `(T*B, C, H, W)`, T outermost.
    """
    if bn.training and bn.momentum is None:  # a cumulative average: its weight is the batch's number, take the long way
        return bn(repeat(x, "b c h w -> (t b) c h w", t=step))
    running_var = bn.running_var
    if bn.training:
        bn.running_var = running_var.clone()  # autograd keeps what the normalisation saw, so that must not change below
    y = bn(x)
    if bn.training:
        n = x.numel() // x.shape[1]
        ratio = step * (n - 1) / (step * n - 1)
        with torch.no_grad():
            running_var.mul_((1 - bn.momentum) * (1 - ratio)).add_(bn.running_var, alpha=ratio)
        bn.running_var = running_var
    return repeat(y, "b c h w -> (t b) c h w", t=step)


class ConvBNNode(nn.Module):
    """3x3 convolution without bias, batch normalisation, neuron; optionally a 3x3 max pooling with stride 2.

    Args:
        in_chans, out_chans: channels.
        node: constructor of the neuron.
        pool: "after" the neuron (on spikes), "before" it (on potentials, as CML places it), or None.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        *,
        node: Callable[[], nn.Module],
        pool: Literal["before", "after"] | None = None,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, out_chans, kernel_size=3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_chans)
        self.node = node()
        self.pool_before = nn.MaxPool2d(3, stride=2, padding=1) if pool == "before" else nn.Identity()
        self.pool_after = nn.MaxPool2d(3, stride=2, padding=1) if pool == "after" else nn.Identity()

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to spikes `(T*B, C', H', W')`; with `copies=T`, one image `(B, C, H, W)` stands for T
        equal ones."""
        x = self.conv(x)
        x = self.bn(x) if copies == 1 else shared_over_steps(self.bn, x, copies)
        return self.pool_after(self.node(self.pool_before(x)))
