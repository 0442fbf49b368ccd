"""Who follows single operations: compilers, traces, transforms. They get the plain forms, which they can follow.

And who watches or changes single modules: those are called, whatever could take their place.
"""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

__all__ = ["batched", "dispatched", "followed", "is_hooked", "is_patched", "transformed", "watched"]


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


def batched(tensor: Tensor) -> bool:
    """Tell whether a tensor stands for many at once, as gradients do with `is_grads_batched`."""
    return torch._C._functorch.is_batchedtensor(tensor) or torch._C._functorch.is_legacy_batchedtensor(tensor)


def dispatched() -> bool:
    """Tell whether a mode sees each operation, such as a counter of operations; it may meet operations of ours."""
    if torch._C._len_torch_dispatch_stack() > 0:
        return True
    # a default device is a mode, too, which only looks at what makes tensors
    return any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack())


def is_hooked(module: nn.Module) -> bool:
    """Tell whether somebody watches what enters or leaves a module, by hooks on it or on all modules."""
    own = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, hooks) or getattr(torch_module, f"_global{hooks}") for hooks in own)


def is_patched(module: nn.Module) -> bool:
    """Tell whether a method of this one module was replaced."""
    return any(callable(getattr(type(module), name, None)) for name in module.__dict__)
