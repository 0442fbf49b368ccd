"""A batch normalisation and the neuron behind it in one kernel, where neither is changed or watched."""

from types import FunctionType
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..ops.kernels import fused_neuron
from ..ops.kernels.norm_neuron import Normalisation, normalised_spikes
from ..runtime.watching import is_hooked, is_patched
from .base import SpikingNode

__all__ = ["as_written", "fused_spikes", "fuses"]

# What the kernel does the work of: these classes as they were written, and none that derives from them.
_WRITTEN: dict[type, dict[str, Any]] = {}


def as_written(cls: type) -> type:
    """Note the methods that a call of a class may run, those of PyTorch's `nn.Module` left out; as a decorator."""
    ours = cls.__mro__[: cls.__mro__.index(nn.Module)]
    kinds = FunctionType | property | staticmethod
    names = {name for base in ours for name, value in vars(base).items() if isinstance(value, kinds)}
    _WRITTEN[cls] = {name: getattr(cls, name) for name in names}
    return cls


as_written(nn.BatchNorm1d)
as_written(nn.BatchNorm2d)


def fuses(node: SpikingNode, bn: nn.Module, x: Tensor, copies: int = 1) -> bool:
    """Tell whether one kernel may take the place of `node(bn(x))`, calling neither of the two.

    So a class of the user's, a method replaced, a hook on one of them or on all modules keeps them apart, and
    everybody runs, and sees what he expects.
    """
    if torch.compiler.is_compiling() or type(node) not in _WRITTEN or type(bn) not in _WRITTEN:
        return False
    if not node.fusable or not _complete(bn):
        return False
    if x.shape[0] % node.step if copies == 1 else copies != node.step:
        return False
    # of a single value there is no variance: batch norm says so
    many = x.numel() > x.shape[1 if x.dim() == 4 else -1]
    steps = x.unflatten(0, (node.step, -1)) if copies == 1 else x.expand(node.step, *x.shape)
    applies = many and fused_neuron.applies(steps, node.leak(), node.dynamics)
    return applies and _is_as_written(bn) and _is_as_written(node)


def fused_spikes(node: SpikingNode, bn: nn.Module, x: Tensor, copies: int = 1) -> Tensor:
    """Return `node(bn(x))` from the kernel; see `SpikingNode.after`."""
    if bn.training:
        bn.num_batches_tracked.add_(1)
    norm = Normalisation(bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum, bn.eps, bn.training)
    numbers = node.leak(), node.get_thres(), node.act_fun.alpha
    last = rearrange(x, "b c h w -> b h w c") if x.dim() == 4 else x
    spikes = normalised_spikes(last, norm, node.step, *numbers, node.dynamics, copies=copies > 1)
    return rearrange(spikes, "b h w c -> b c h w") if x.dim() == 4 else spikes


def _is_as_written(module: nn.Module) -> bool:
    """Tell whether a call of `module` runs what its class was written with and nothing else."""
    cls = type(module)
    written = all(getattr(cls, name) is value for name, value in _WRITTEN[cls].items())
    return written and not is_patched(module) and not is_hooked(module)


def _complete(bn: nn.Module) -> bool:
    """Tell whether a batch normalisation has all that the kernel reads and brings up to date."""
    parts = (bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.num_batches_tracked, bn.momentum)
    return bn.track_running_stats and all(part is not None for part in parts)
