"""What a forward pass of an ordinary network does on a sample: which modules it calls, and what in it is not linear.

A mode that sees single operations follows what the input and the neurons change, through views and in-place writes, so
that a function is found as well as a module.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["ACTIVATIONS", "MAX_POOLS", "Call", "Trace", "trace"]

ACTIVATIONS = {
    "relu": "ReLU", "threshold": "ReLU", "hardtanh": "ReLU6", "clamp": "clamp", "clamp_min": "clamp", "gelu": "GELU",
    "silu": "SiLU", "leaky_relu": "LeakyReLU", "_prelu_kernel": "PReLU", "rrelu_with_noise": "RReLU", "elu": "ELU",
    "hardswish": "Hardswish", "hardsigmoid": "Hardsigmoid", "softplus": "Softplus", "mish": "Mish", "sigmoid": "sigmoid",
    "log_sigmoid_forward": "LogSigmoid", "tanh": "tanh", "glu": "GLU", "softshrink": "Softshrink",
    "hardshrink": "Hardshrink",
}  # fmt: skip
"""Activation functions by the name of PyTorch's operation, in the words of their users."""

MAX_POOLS = {"max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d"}

_VIEWS = {
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "cat", "clone", "copy", "detach", "diagonal", "expand",
    "flip", "gather", "index", "index_select", "lift_fresh", "permute", "pixel_shuffle", "pixel_unshuffle", "repeat",
    "roll", "select", "slice", "split", "split_with_sizes", "squeeze", "stack", "t", "_to_copy", "transpose", "unbind",
    "unfold", "unsqueeze", "view",
}  # fmt: skip
_LINEAR = _VIEWS | {
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "add",
    "adaptive_avg_pool1d", "avg_pool2d", "avg_pool3d", "col2im", "constant_pad_nd", "cumsum", "im2col", "masked_fill",
    "mean", "neg", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "rsub", "sub",
    "sum", "upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d",
    "upsample_nearest2d", "where",
}  # fmt: skip
_CONSTANT = {"empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like"}
_PRODUCTS = {"addmm", "addmv", "baddbmm", "bmm", "dot", "linear", "mm", "mv"}
_BATCH_NORMS = {
    "_batch_norm_no_update", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "miopen_batch_norm", "native_batch_norm",
}  # fmt: skip
_ATTENTION = {
    "_fused_rms_norm", "_native_multi_head_attention", "_safe_softmax", "_softmax", "native_layer_norm",
    "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
}  # fmt: skip

_KNOWN = {
    *(*ACTIVATIONS, *MAX_POOLS, *_LINEAR, *_CONSTANT, *_PRODUCTS, *_BATCH_NORMS, *_ATTENTION),
    *("convolution", "div", "embedding", "mul"),
}

# How far a value is from the input: the input itself, behind a layer with weights, behind a neuron. Only the last
# differs from step to step.
_INPUT, _LAYER, _SPIKES = range(3)


class Call(NamedTuple):
    """One call of a module.

    Args:
        axis: of the channels in what it reads.
        layer: name of the linear layer or convolution whose output that is, "" for any other source.
    """

    axis: int
    layer: str


@dataclass
class Trace:
    """What was seen.

    Args:
        calls: of each activation and max pooling that was asked for, by the module's name, in the order of the calls.
        foreign: operations that are not linear, by name, with the modules that compute them.
    """

    calls: dict[str, list[Call]] = field(default_factory=dict)
    foreign: dict[str, list[str]] = field(default_factory=dict)


class _Follow(TorchDispatchMode):
    """The mode, whose methods `enter` and `leave` hooks call."""

    def __init__(self, network: nn.Module, neurons: Iterable[str], pools: Iterable[str]):
        super().__init__()
        self.seen = Trace()
        self._network, self._neurons, self._pools = network, {*neurons}, {*pools}
        self._levels: dict[int, tuple[StorageWeakRef, int]] = {}
        self._stack: list[str] = [""]
        self._axis, self._made = -1, ("", None)
        self._replaced = False

    def mark(self, values: Any, level: int) -> None:
        for x in tree_leaves(values):
            if isinstance(x, Tensor) and (level > self._level(x)):
                storage = x.untyped_storage()
                self._levels[storage._cdata] = (StorageWeakRef(storage), level)

    def _level(self, x: Any) -> int:
        """Return how far a value is from the input; -1 for what does not depend on it."""
        if not isinstance(x, Tensor) or x.layout != torch.strided:
            return -1
        reference, level = self._levels.get(x.untyped_storage()._cdata, (None, -1))
        return -1 if reference is None or reference.expired() else level

    def enter(self, path: str, inputs: tuple) -> None:
        self._stack.append(path)
        if path in self._neurons or path in self._pools:
            made_by, made = self._made
            layer = made_by if inputs and inputs[0] is made else ""
            self.seen.calls.setdefault(path, []).append(Call(self._axis, layer))
            self._replaced = True

    def leave(self, path: str, module: nn.Module, inputs: tuple, output: Any) -> None:
        self._stack.pop()
        if path in self._neurons or path in self._pools:
            self._replaced = False
            self.mark(output, _SPIKES if path in self._neurons else max(map(self._level, inputs), default=-1))
        elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            self._made = path, output

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if self._replaced or func.namespace == "prim":
            return func(*args, **kwargs)
        name = func._overloadpacket.__name__
        name = name if name in _KNOWN else name.removesuffix("_")  # in place
        if name not in _KNOWN:
            with self:  # in inference mode operations come here whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        level = max(map(self._level, tree_leaves((args, kwargs))), default=-1)
        if self._is_foreign(name, args, level):
            path = self._stack[-1]
            kind = type(self._network.get_submodule(path)).__name__
            paths = self.seen.foreign.setdefault(name, [])
            paths += [f"{path} ({kind})" if path else kind] if path not in {one.split(" ")[0] for one in paths} else []
        out = func(*args, **kwargs)
        if level >= 0 and name not in _CONSTANT:
            weighted = name in _PRODUCTS or name in _BATCH_NORMS or name in _ATTENTION or name == "convolution"
            if weighted:
                self._axis = 1 if name == "convolution" or name in _BATCH_NORMS else -1
            self.mark(out, max(level, _LAYER) if weighted else level)
        return out

    def _is_foreign(self, name: str, args: tuple, level: int) -> bool:
        """Tell whether an operation is none that adds up over the steps, and none of attention."""
        if name in ACTIVATIONS:
            return level >= _LAYER
        if level < _SPIKES or name in _LINEAR or name in _CONSTANT or name in _PRODUCTS or name in _ATTENTION:
            return False
        if name in _BATCH_NORMS:
            return any(flag is True for flag in args)  # statistics of the batch
        if name == "mul":
            return all(self._level(x) == _SPIKES for x in args[:2])
        return name not in ("div", "convolution") or self._level(args[1]) == _SPIKES


def trace(network: nn.Module, x: Tensor, neurons: Mapping[str, Any], pools: Mapping[str, Any]) -> Trace:
    """Run a network on a sample and return what it did.

    Args:
        network: in evaluation mode.
        x: the sample, as a batch of one.
        neurons: names of the modules that become neurons.
        pools: names of the max poolings that are treated, too.
    """
    mode, hooks = _Follow(network, neurons, pools), []
    for path, module in network.named_modules():
        hooks += [
            module.register_forward_pre_hook(lambda _, inputs, path=path: mode.enter(path, inputs)),
            module.register_forward_hook(lambda m, inputs, out, path=path: mode.leave(path, m, inputs, out)),
        ]
    try:
        mode.mark(x, _INPUT)
        with mode:
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return mode.seen
