"""torch.compile for small functions on tensors, each compiled once for all sizes, and for whole networks.

A compiled kernel lives in a library in PyTorch's cache. A process that is killed, a full disk or another machine that
shares the folder can leave one there that nobody can load, or no room for a new one. So what can't be compiled or
loaded is built anew once, and if that fails, too, the plain form runs.
"""

import copy
import functools
import types
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch._dynamo import exc
from torch.fx import GraphModule

from .kernel_cache import elsewhere, remove_named, sweep

__all__ = ["compiled", "compiled_graph", "compiler_works", "inductor"]

# Not failures, but how the compiler asks its caller for another way.
_REQUESTS = (exc.RestartAnalysis, exc.SkipFrame)


@functools.cache
def compiler_works(device_type: str) -> bool:
    """Try the compiler once on a trivial function; say so, once, when it fails."""
    try:
        torch.compile(lambda x: x + 1, backend=_inductor_or_error)(torch.zeros(8, device=device_type))
    except Exception as error:  # whatever is missing (compiler, headers, Triton, a driver) means the same: no kernels
        warnings.warn(
            f"torch.compile does not work for {device_type} here ({_reason(error)}); neurons run in plain PyTorch, "
            "slower.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


@functools.cache
def compiled(function: Callable, *setting) -> Callable:
    """Compile `function` for one setting, under a code object of its own.

    Dynamo counts recompilations by code object and gives up after eight: networks with several kinds of neurons,
    types or T would run into that.
    """
    own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    return torch.compile(own, dynamic=True, backend=inductor)


def compiled_graph(graph: GraphModule) -> Callable:
    """Compile what was traced, for all sizes."""
    return torch.compile(graph, dynamic=True, backend=inductor)


def inductor(graph: GraphModule, inputs: list[Tensor]) -> Callable:
    """Compile a graph: PyTorch's own backend of that name, except that a graph which it can't compile runs as it is.

    A mistake in what is compiled shows when it is traced, before this is called, so none is hidden here.
    """
    return _or_plain(lambda: _inductor_or_error(graph, inputs), graph)


def _inductor_or_error(graph: GraphModule, inputs: list[Tensor]) -> Callable:
    from torch._inductor.codecache import cache_dir  # these take seconds to import
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    def inner(graph: GraphModule, inputs: list[Tensor], **options) -> Callable:
        if not options.get("is_backward"):
            return compile_fx_inner(graph, inputs, **options)
        # a network's backward pass is compiled when it is met for the first time, long after its forward pass
        return _or_plain(lambda: _twice(lambda: compile_fx_inner(graph, inputs, **options)), graph, boxed=True)

    def build() -> Callable:
        sweep(cache_dir())
        return compile_fx(graph, inputs, inner_compile=inner)

    return _twice(build)


def _or_plain(build: Callable[[], Callable], graph: GraphModule, *, boxed: bool = False) -> Callable:
    """Return what `build` gives, or the graph itself, with one line.

    Args:
        build: compiles.
        graph: what it compiles.
        boxed: the graph's arguments come in one list.
    """
    from torch._functorch.aot_autograd import make_boxed_func

    plain = copy.deepcopy(graph.graph)  # a compiler rewrites what it is given
    try:
        return build()
    except _REQUESTS:
        raise
    except Exception as error:  # whatever it is, the plain graph gives the result, or its own error
        _say(_reason(error))
        forward = GraphModule(graph, plain).forward
        return make_boxed_func(forward) if boxed else forward


def _twice(build: Callable[[], Callable]) -> Callable:
    """Build; where that fails, build anew, without the files that may be damaged."""
    try:
        return build()
    except _REQUESTS:
        raise
    except Exception as error:
        if remove_named(error):
            return build()
    with elsewhere():
        return build()


def _reason(error: BaseException) -> str:
    """Return the first line of what lies behind an error."""
    while (cause := getattr(error, "inner_exception", None)) is not None:
        error = cause
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__


@functools.cache
def _say(reason: str) -> None:
    warnings.warn(
        f"a kernel can't be compiled or loaded here ({reason}); it runs in plain PyTorch, slower.",
        RuntimeWarning,
        stacklevel=2,
    )
