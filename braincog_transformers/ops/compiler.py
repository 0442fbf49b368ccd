"""torch.compile for small functions on tensors, each compiled once for all sizes."""

import functools
import types
import warnings
from collections.abc import Callable

import torch

__all__ = ["compiled", "compiler_works"]


@functools.cache
def compiler_works(device_type: str) -> bool:
    """Try the compiler once on a trivial function; say so, once, when it fails."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(8, device=device_type))
    except Exception as error:  # whatever is missing (compiler, headers, Triton, a driver) means the same: no kernels
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        warnings.warn(
            f"torch.compile does not work for {device_type} here ({reason}); neurons run in plain PyTorch, slower.",
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
    return torch.compile(own, dynamic=True)
