"""Batch normalisation and a neuron in one kernel, where nothing looks in between."""

from torch import Tensor, nn

from ..nodes import FusableNode
from ..ops.fused_neuron import applies
from ..ops.norm_neuron import Normalisation, normalised_spikes

__all__ = ["fire_normalised", "joins"]


def joins(bn: nn.Module, node: nn.Module, x: Tensor, copies: int = 1) -> bool:
    """Tell whether `fire_normalised` may take the place of `node(bn(x))`.

    Hooks keep the two apart, so that whoever watches one of them sees what he expects.

    Args:
        x: `(T*B, ...)`; with `copies`, one step for all.
    """
    if type(bn) not in (nn.BatchNorm1d, nn.BatchNorm2d) or not isinstance(node, FusableNode):
        return False
    hooked = any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in (bn, node))
    if hooked or not node.fusable or not (bn.affine and bn.track_running_stats and bn.momentum is not None):
        return False
    if x.shape[0] % node.step if copies == 1 else copies != node.step:
        return False
    many = x.numel() > x.shape[1 if x.dim() == 4 else -1]  # of a single value there is no variance: batch norm says so
    steps = x.unflatten(0, (node.step, -1)) if copies == 1 else x.expand(node.step, *x.shape)
    return many and applies(steps, node.leak(), node.dynamics)


def fire_normalised(bn: nn.Module, node: nn.Module, x: Tensor, copies: int = 1) -> Tensor:
    """Return `node(bn(x))` for x `(T*B, ..., C)`, channels last, or with `copies=T` for `(B, ..., C)`."""
    if bn.training:
        bn.num_batches_tracked.add_(1)
    norm = Normalisation(bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum, bn.eps, bn.training)
    return normalised_spikes(
        x, norm, node.step, node.leak(), node.get_thres(), node.act_fun.alpha, node.dynamics, copies=copies > 1
    )
