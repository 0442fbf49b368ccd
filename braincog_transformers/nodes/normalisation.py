"""Batch normalisation in front of a neuron, for maps and tokens with time folded into the batch."""

import torch
from einops import rearrange, repeat
from torch import Tensor, distributed, nn

__all__ = ["normalised", "repeated", "shared_over_steps"]

# What normalises each sample by itself, or nothing: a copy comes out as its original.
_BY_SAMPLE = (nn.Identity, nn.GroupNorm, nn.InstanceNorm2d)


def normalised(bn: nn.Module, x: Tensor, copies: int = 1) -> Tensor:
    """Return `bn(x)` for maps `(T*B, C, H, W)` or tokens `(T*B, N, C)`.

    With `copies=T`, `(B, C, H, W)` stands for T equal steps, and the result is `(T*B, C, H, W)`.
    """
    if copies > 1:
        return repeated(shared_over_steps(bn, x, copies), copies)
    return bn(x.flatten(0, 1)).view(x.shape) if x.dim() == 3 else bn(x)


def repeated(x: Tensor, copies: int) -> Tensor:
    """Return `copies` times one step `(B, C, H, W)`, channels last in memory: `(T*B, C, H, W)`."""
    return rearrange(repeat(x, "b c h w -> (t b) h w c", t=copies), "b h w c -> b c h w")


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
