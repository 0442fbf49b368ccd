"""Who follows single operations: compilers, traces, transforms. They get the plain forms, which they can follow."""

import torch
from torch.autograd import forward_ad

__all__ = ["dispatched", "followed", "transformed", "watched"]


_TRACERS = (torch._C._TorchDispatchModeKey.PROXY, torch._C._TorchDispatchModeKey.FAKE)


def watched() -> bool:
    """Tell whether something follows single operations, so that no kernel, hook or operation of ours may hide them.

    That is `torch.compile` and `torch.export`, `make_fx`, `torch.jit.trace`, ONNX's exporters, the transforms of
    `torch.func` (`grad`, `vmap`, `jvp` and what is made of them) and forward-mode differentiation.
    """
    if torch.compiler.is_compiling():  # asked first: a compiler that traces this sees no more of it
        return True
    return (
        torch.jit.is_tracing()
        or torch.onnx.is_in_onnx_export()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or any(torch._C._get_dispatch_mode(mode) is not None for mode in _TRACERS)
    )


def followed() -> bool:
    """Tell whether it is another one than a compiler, which takes a function with a gradient of its own as it is."""
    return not torch.compiler.is_compiling() and watched()


def transformed() -> bool:
    """Tell whether a transform of `torch.func` runs, whose tensors know no memory format."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def dispatched() -> bool:
    """Tell whether a mode sees each operation, such as a counter of operations; it may meet operations of ours."""
    return torch._C._len_torch_dispatch_stack() > 0
