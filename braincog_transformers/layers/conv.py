"""Convolution and batch normalisation, alone or with a neuron behind or before them, with optional pooling."""

from collections.abc import Callable
from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor, distributed, nn

from .folding import folded
from .normed import fire_normalised, joins
from .spike_input import SpikeConv2d

__all__ = ["ConvBN", "ConvBNNode", "ConvSequence", "NodeConvBN", "shared_over_steps"]

# What normalises each sample by itself, or nothing: a copy comes out as its original.
_BY_SAMPLE = (nn.Identity, nn.GroupNorm, nn.InstanceNorm2d)


def shared_over_steps(bn: nn.Module, x: Tensor, step: int) -> Tensor:
    """Normalise one copy of an image that stands for `step` equal ones.

    Mean and variance of the copies are those of one. Only the running variance tells them apart, through its n/(n-1):
    it is set to what the copies would have given. A normalisation that is not known gets the copies.

    Args:
        bn: the normalisation.
        x: `(B, C, H, W)`.
        step: number of copies T.

    Returns:
        `(B, C, H, W)`.
    """
    by_batch = type(bn) in (nn.BatchNorm2d, nn.SyncBatchNorm)
    if isinstance(bn, _BY_SAMPLE) or (by_batch and not (bn.training and bn.track_running_stats)):
        return bn(x)
    if not by_batch or bn.momentum is None:  # None: a cumulative average, whose weight is the batch's number
        return bn(repeat(x, "b c h w -> (t b) c h w", t=step))[: x.shape[0]]
    running_var = bn.running_var
    bn.running_var = running_var.clone()  # autograd keeps what the normalisation saw, so that must not change below
    y = bn(x)
    n = _values(bn, x)
    ratio = step * (n - 1) / (step * n - 1)
    with torch.no_grad():
        running_var.mul_((1 - bn.momentum) * (1 - ratio))
        if isinstance(ratio, Tensor):  # a number only the device knows
            running_var.add_(bn.running_var * ratio)
        else:
            running_var.add_(bn.running_var, alpha=ratio)
    bn.running_var = running_var
    return y


def _values(bn: nn.Module, x: Tensor) -> int | Tensor:
    """Return how many values of a channel go into a batch's statistics, those of other processes included."""
    n = x.numel() // x.shape[1]
    if not isinstance(bn, nn.SyncBatchNorm) or not (distributed.is_available() and distributed.is_initialized()):
        return n
    group = bn.process_group or distributed.group.WORLD
    if distributed.get_world_size(group) == 1:
        return n
    count = torch.tensor(float(n), dtype=torch.float64, device=x.device)
    distributed.all_reduce(count, group=group)
    return count


def _pool(applies: bool) -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=1) if applies else nn.Identity()


class ConvBN(nn.Module):
    """Convolution, batch normalisation, optionally a 3x3 max pooling with stride 2.

    Args:
        in_chans, out_chans: channels.
        kernel_size, stride, groups, bias: of the convolution.
        padding: of the convolution; by default half its size, so that stride 1 keeps the sides.
        pool: pool what comes out.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
        pool: bool = False,
    ):
        super().__init__()
        padding = kernel_size // 2 if padding is None else padding
        self.conv = SpikeConv2d(
            in_chans, out_chans, kernel_size, stride=stride, padding=padding, groups=groups, bias=bias
        )
        self.bn = nn.BatchNorm2d(out_chans)
        self.pool = _pool(pool)

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to potentials `(T*B, C', H', W')`; with `copies=T`, one image `(B, C, H, W)` stands
        for T equal ones."""
        return self._normalise(self.conv(x), copies)

    def _normalise(self, x: Tensor, copies: int) -> Tensor:
        if copies == 1:
            return self.pool(self.bn(x))
        x = repeat(self.pool(shared_over_steps(self.bn, x, copies)), "b c h w -> (t b) h w c", t=copies)
        return rearrange(x, "b h w c -> b c h w")  # channels stay last in memory

    def fuse(self) -> "ConvBN":
        """Fold the normalisation's running statistics into the convolution, if they are `foldable`."""
        self.conv, self.bn = folded(self.conv, self.bn)
        return self


class ConvBNNode(ConvBN):
    """`ConvBN` and a neuron: spikes leave.

    Args:
        in_chans, out_chans, kernel_size: see `ConvBN`.
        node: constructor of the neuron.
        pool: "after" the neuron (on spikes), "before" it (on potentials, as CML places it), or None.
        **conv: stride, padding, groups, bias of `ConvBN`.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 3,
        *,
        node: Callable[[], nn.Module],
        pool: Literal["before", "after"] | None = None,
        **conv: int | bool,
    ):
        super().__init__(in_chans, out_chans, kernel_size, pool=pool == "before", **conv)
        self.node = node()
        self.pool_after = _pool(pool == "after")

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to spikes `(T*B, C', H', W')`; `copies` as in `ConvBN`."""
        x = self.conv(x)
        if isinstance(self.pool, nn.Identity) and joins(self.bn, self.node, x, copies):
            spikes = fire_normalised(self.bn, self.node, rearrange(x, "b c h w -> b h w c"), copies)
            return self.pool_after(rearrange(spikes, "b h w c -> b c h w"))
        return self.pool_after(self.node(self._normalise(x, copies)))


class NodeConvBN(ConvBN):
    """A neuron in front of `ConvBN`: the convolution reads spikes, potentials leave.

    Args:
        in_chans, out_chans, kernel_size: see `ConvBN`.
        node: constructor of the neuron.
        pool: "spikes" between neuron and convolution, "potentials" behind the normalisation, or None.
        **conv: stride, padding, groups, bias of `ConvBN`.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 3,
        *,
        node: Callable[[], nn.Module],
        pool: Literal["spikes", "potentials"] | None = None,
        **conv: int | bool,
    ):
        super().__init__(in_chans, out_chans, kernel_size, pool=pool == "potentials", **conv)
        self.node = node()
        self.pool_spikes = _pool(pool == "spikes")

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, C, H, W)` to potentials `(T*B, C', H', W')`."""
        return super().forward(self.pool_spikes(self.node(x)))


class ConvSequence(nn.Sequential):
    """Convolutions in a row, of which only the first one can meet copies."""

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to `(T*B, C', H', W')`; `copies` as in `ConvBN`."""
        first, *others = self
        x = first(x, copies)
        for layer in others:
            x = layer(x)
        return x
