"""Batch normalisation and a neuron in one kernel, where nothing looks in between."""

from torch import Tensor, nn

from ..nodes import FusableNode, IFNode, LIFNode, PLIFNode
from ..ops.fused_neuron import applies
from ..ops.norm_neuron import Normalisation, normalised_spikes
from ..ops.watching import is_hooked, is_patched

__all__ = ["fire_normalised", "joins"]

# What a kernel does the work of: these classes as they were written, and none that derives from them.
_FORWARDS = {cls: cls.forward for cls in (nn.BatchNorm1d, nn.BatchNorm2d, IFNode, LIFNode, PLIFNode)}


def _as_written(module: nn.Module) -> bool:
    """Tell whether a call of `module` runs the forward of one of those classes and nothing else."""
    written = _FORWARDS.get(type(module)) is type(module).forward
    return written and not is_patched(module) and not is_hooked(module)


def _complete(bn: nn.Module) -> bool:
    """Tell whether a batch normalisation has all that the kernel reads and brings up to date."""
    parts = (bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.num_batches_tracked, bn.momentum)
    return bn.track_running_stats and all(part is not None for part in parts)


def joins(bn: nn.Module, node: nn.Module, x: Tensor, copies: int = 1) -> bool:
    """Tell whether `fire_normalised` may take the place of `node(bn(x))`.

    It calls neither of the two. So a class of the user's, a method replaced, a hook on one of them or on all modules
    keeps them apart, and everybody runs, and sees what he expects.

    Args:
        x: `(T*B, ...)`; with `copies`, one step for all.
    """
    if type(bn) not in _FORWARDS or not isinstance(node, FusableNode) or not node.fusable or not _complete(bn):
        return False
    if x.shape[0] % node.step if copies == 1 else copies != node.step:
        return False
    many = x.numel() > x.shape[1 if x.dim() == 4 else -1]  # of a single value there is no variance: batch norm says so
    steps = x.unflatten(0, (node.step, -1)) if copies == 1 else x.expand(node.step, *x.shape)
    return many and applies(steps, node.leak(), node.dynamics) and _as_written(bn) and _as_written(node)


def fire_normalised(bn: nn.Module, node: nn.Module, x: Tensor, copies: int = 1) -> Tensor:
    """Return `node(bn(x))` for x `(T*B, ..., C)`, channels last, or with `copies=T` for `(B, ..., C)`."""
    if bn.training:
        bn.num_batches_tracked.add_(1)
    norm = Normalisation(bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum, bn.eps, bn.training)
    return normalised_spikes(
        x, norm, node.step, node.leak(), node.get_thres(), node.act_fun.alpha, node.dynamics, copies=copies > 1
    )
