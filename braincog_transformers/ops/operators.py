"""List the operators of a network that are not linear in its activations, with the module whose own code asks for each.

An activation is what depends on the input: the mode follows it from storage to storage. So a product with a parameter
is linear, and so is all that is computed from parameters alone. Sums, scalings, permutations, mean pooling and a batch
normalisation in evaluation are linear. An operator that is not known here is listed under PyTorch's name for it.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .kernels import integer_products as integer_products  # registers an operation that is named below

__all__ = ["ATTENTION", "CONTROL", "MATRIX_PRODUCT", "PRODUCT", "SHAPED_BY_DATA", "Operator", "Operators"]

PRODUCT, MATRIX_PRODUCT = "product of two activations", "matrix product of two activations"
ATTENTION, CONTROL = "fused attention", "data-dependent control"
_DIVISION, _SELECTION = "division by an activation", "data-dependent selection"
SHAPED_BY_DATA = frozenset({"nonzero", "torchvision.nms"})
"""Operators whose values decide how many entries the output has."""
_NORM_OF_BATCH = "batch norm with the batch's statistics"
_COMPARISON, _ROUNDING, _EXTREME, _POOLING = "comparison", "rounding", "maximum", "max pooling"


@dataclass(frozen=True)
class Operator:
    """One kind of operator that a module's own code asks for.

    Args:
        path: the module, in `network.named_modules()`; "" for the network's own forward.
        name: what it is, such as "softmax"; PyTorch's name of an operator that is not known.
        count: how often a call of the module asks for it, at most.
        note: what the module says about all that it computes, such as "of running sums".
    """

    path: str
    name: str
    count: int = 1
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.note}".strip()


_NONLINEAR = {
    **{name: name.replace("_", " ") for name in (
        "relu", "leaky_relu", "elu", "gelu", "silu", "mish", "sigmoid", "tanh", "hardswish", "hardsigmoid", "softplus",
        "glu", "clamp", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "logsumexp", "sqrt", "rsqrt",
        "reciprocal", "abs", "sign", "norm", "erf", "sin", "cos", "atan2", "prod", "cumprod", "topk", "sort", "argmax",
        "argmin", "argsort", "nonzero", "celu", "threshold", "softshrink", "hardshrink",
    )},
    **dict.fromkeys(("hardtanh", "clamp_min", "clamp_max"), "clamp"),
    **dict.fromkeys(("_softmax", "_safe_softmax"), "softmax"),
    **dict.fromkeys(("pow", "square"), "power"),
    **dict.fromkeys(("std", "var", "std_mean", "var_mean"), "variance"),
    **dict.fromkeys((
        "_thnn_fused_gru_cell", "_thnn_fused_lstm_cell", "_cudnn_rnn", "mkldnn_rnn_layer", "miopen_rnn",
    ), "recurrent layer"),
    **dict.fromkeys((
        "max", "min", "amax", "amin", "aminmax", "maximum", "minimum", "fmax", "fmin", "cummax", "cummin",
    ), _EXTREME),
    **dict.fromkeys((
        "max_pool2d_with_indices", "max_pool3d_with_indices", "mkldnn_max_pool2d", "mkldnn_max_pool3d",
        "adaptive_max_pool2d", "adaptive_max_pool3d", "fractional_max_pool2d",
    ), _POOLING),
    **dict.fromkeys((
        "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "logical_not", "logical_and", "logical_or", "logical_xor",
        "bitwise_not", "bitwise_and", "bitwise_or", "bitwise_xor",
    ), _COMPARISON),
    **dict.fromkeys(("round", "floor", "ceil", "trunc", "frac", "floor_divide", "fmod", "remainder"), _ROUNDING),
    "linalg_cross": "cross product",
    "native_layer_norm": "layer norm", "native_group_norm": "group norm", "_fused_rms_norm": "rms norm",
    "_prelu_kernel": "prelu", "rrelu_with_noise": "rrelu", "_log_softmax": "log softmax",
    "log_sigmoid_forward": "log sigmoid", "linalg_vector_norm": "norm", "sgn": "sign",
    "_native_multi_head_attention": ATTENTION,
    **dict.fromkeys(("any", "all", "equal", "is_nonzero", "_local_scalar_dense"), CONTROL),
}  # fmt: skip
# Places of the factors. If more than one depends on the input, the operator is a product of activations.
_PRODUCTS = {
    **dict.fromkeys((
        "mul", "mm", "bmm", "mv", "dot", "vdot", "convolution", "_convolution", "cudnn_convolution",
        "mkldnn_convolution", "_int_mm", "grid_sampler_2d", "product",
    ), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addr", "addcmul", "addbmm"), (1, 2)),
    "_trilinear": (0, 1, 2),
}  # fmt: skip
_BY_ELEMENT = {"mul", "addcmul"}
_DIVISORS = {"div": 1, "addcdiv": 2}
_BATCH_NORMS = {
    "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_with_update",
}  # fmt: skip
_LINEAR = {
    "add", "sub", "rsub", "neg", "clone", "copy", "_to_copy", "cat", "stack", "mean", "sum", "cumsum", "flip", "roll",
    "repeat", "index", "_unsafe_index", "index_select", "gather", "take", "index_put", "_index_put_impl", "index_add",
    "index_copy", "scatter", "scatter_add", "slice_scatter", "select_scatter", "constant_pad_nd", "reflection_pad1d",
    "reflection_pad2d", "replication_pad1d", "replication_pad2d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "mkldnn_adaptive_avg_pool2d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa", "pixel_shuffle", "pixel_unshuffle", "native_channel_shuffle", "im2col", "col2im", "tril",
    "triu", "diag_embed", "_fft_r2c", "_fft_c2r", "_fft_c2c", "complex", "masked_fill", "masked_select", "where",
    "lerp", "embedding", "_unsafe_view", "_reshape_alias", "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update", "_conj_physical", "fill", "zero", "as_strided", "squeeze", "unsqueeze", "transpose", "t",
    "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk",
}  # fmt: skip
_CHOOSING = {"index", "indices", "mask", "condition"}
"""Arguments that choose what an operator of `_LINEAR` reads; `embedding` chooses by the input itself, as tokens do."""
# What they return depends on the shape alone.
_SHAPES = {
    "empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_empty", "new_zeros",
    "new_ones", "new_full", "new_empty_strided", "sym_size", "sym_stride", "sym_numel", "device", "is_same_size",
}  # fmt: skip
_KNOWN = {*_NONLINEAR, *_PRODUCTS, *_DIVISORS, *_BATCH_NORMS, *_LINEAR, *_SHAPES}


@dataclass
class _Frame:
    """A module that runs, and how often this call has asked for what."""

    path: str
    note: str
    hidden: bool
    asked: Counter = field(default_factory=Counter)


class Operators(TorchDispatchMode):
    """The mode, for calls of one network.

    A module with the attribute `operators_note` has its operators listed with that note.

    Args:
        hides: classes of modules in which nothing is listed, whatever they compute; what leaves them is an activation.
        spikes: tells whether a tensor holds spikes. A product with one is a sum of the other factor, and the maximum
            of spikes is their "or", so neither is listed.
    """

    supports_higher_order_operators = True

    def __init__(self, hides: tuple[type, ...] = (), spikes: Callable[[Tensor], bool] | None = None) -> None:
        super().__init__()
        self._hides, self._spikes = hides, spikes
        self._frames = [_Frame("", "", False)]
        self._found: dict[tuple[str, str, str], int] = {}
        # by storage; while the weak reference is held, no other storage takes its address
        self._active: dict[int, StorageWeakRef] = {}
        self._most = 1 << 10

    @property
    def found(self) -> tuple[Operator, ...]:
        """What was found, in the order of the first calls."""
        return tuple(Operator(path, name, count, note) for (path, name, note), count in self._found.items())

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator["Operators"]:
        """List what a network's calls ask for while the context lasts. Its fused encoder layers run as their parts."""
        fast = torch.backends.mha.get_fastpath_enabled()
        with ExitStack() as stack:
            torch.backends.mha.set_fastpath_enabled(False)
            stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
            for path, module in network.named_modules():
                enter = lambda module, args, kwargs, path=path: self._enter(path, module, args, kwargs)  # noqa: E731
                leave = lambda module, _inputs, out: self._leave(out)  # noqa: E731
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave, always_call=True).remove)
            stack.enter_context(self)
            yield self

    def _enter(self, path: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not path:
            self._activate((args, kwargs))
        outer = self._frames[-1]
        note = getattr(module, "operators_note", "") or outer.note
        self._frames.append(_Frame(path, note, outer.hidden or isinstance(module, self._hides)))

    def _leave(self, out: Any) -> None:
        frame = self._frames.pop()
        if frame.hidden:
            self._activate(out)
        for name, count in frame.asked.items():
            key = (frame.path, name, frame.note)
            self._found[key] = max(count, self._found[key])

    def _activate(self, values: Any) -> None:
        for x in filter(_has_memory, tree_leaves(values)):
            storage = x.untyped_storage()
            self._active[storage._cdata] = StorageWeakRef(storage)
        if len(self._active) > self._most:
            self._active = {key: one for key, one in self._active.items() if not one.expired()}
            self._most = max(1 << 10, 2 * len(self._active))

    def _depends(self, value: Any) -> bool:
        """Tell whether a value depends on the input."""
        return any(x.untyped_storage()._cdata in self._active for x in tree_leaves(value) if _has_memory(x))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name, hidden = _name(func), self._frames[-1].hidden
        if not hidden and name not in _KNOWN and hasattr(func, "decompose"):
            with self:  # in inference mode operations come here whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        depends = self._depends((args, kwargs))
        named = depends and not hidden and self._named(name, func, args, kwargs)
        out = func(*args, **kwargs)
        if depends and name not in _SHAPES:
            self._activate(out)
            self._activate(_written(func, args, kwargs))
            if not named and not hidden and name in ("_to_copy", "copy") and _rounds(args, out):
                named = _ROUNDING
        if named:
            frame = self._frames[-1]
            frame.asked[named] += 1
            self._found.setdefault((frame.path, named, frame.note), 0)
        return out

    def _named(self, name: str, func: Any, args: tuple, kwargs: dict) -> str:
        """Return what an operator of activations is called; "" for a linear one."""
        if name in _SHAPES or getattr(func, "is_view", False):
            return ""
        if name in _PRODUCTS:
            factors = [args[place] for place in _PRODUCTS[name] if len(args) > place and self._depends(args[place])]
            if len(factors) < 2 or self._any_spikes(factors):
                return ""
            return PRODUCT if name in _BY_ELEMENT else MATRIX_PRODUCT
        if name in _DIVISORS:
            rounded = kwargs.get("rounding_mode") is not None
            return _DIVISION if self._depends(args[_DIVISORS[name]]) else _ROUNDING if rounded else ""
        given = _arguments(func, args, kwargs)
        if name in _BATCH_NORMS:
            return _NORM_OF_BATCH if given.get("training", True) else ""
        if name in _LINEAR:
            if name in ("lerp", "_native_batch_norm_legit_no_training") and self._depends(given.get("weight")):
                return PRODUCT
            chosen = name != "embedding" and any(self._depends(given.get(key)) for key in _CHOOSING)
            return _SELECTION if chosen else ""
        if "attention" in name:
            return ATTENTION
        if name == "gelu" and given.get("approximate", "none") != "none":
            return "gelu (tanh)"
        found = _NONLINEAR.get(name) or f"{getattr(func, 'namespace', 'python')}.{name}"
        return "" if found in (_POOLING, _EXTREME) and self._any_spikes([x for x in args if _has_memory(x)]) else found

    def _any_spikes(self, values: list[Any]) -> bool:
        """Tell whether there are spikes among tensors; what reads running sums is listed in any case."""
        return self._spikes is not None and not self._frames[-1].note and any(map(self._spikes, values))


def _name(func: Any) -> str:
    """Return an operator's name, that of its form which is not in place."""
    name = getattr(func, "_overloadpacket", func).__name__
    return name if name.startswith("__") else name.removesuffix("_")


def _arguments(func: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """Return what an operator was given, by the names of its schema."""
    schema = getattr(func, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else map(str, range(len(args)))
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _written(func: Any, args: tuple, kwargs: dict) -> list[Any]:
    """Return the arguments that an operator writes to."""
    arguments = func._schema.arguments if hasattr(func, "_schema") else ()
    written = {argument.name for argument in arguments if argument.alias_info and argument.alias_info.is_write}
    return [value for name, value in _arguments(func, args, kwargs).items() if name in written] if written else []


def _rounds(args: tuple, out: Any) -> bool:
    """Tell whether a copy turned numbers into whole ones."""
    source = args[-1] if isinstance(args[-1], Tensor) else args[0]
    return not (out.is_floating_point() or out.is_complex()) and (source.is_floating_point() or source.is_complex())


def _has_memory(x: Any) -> bool:
    return isinstance(x, Tensor) and x.layout == torch.strided
