"""Kernels for any neuron, made from one step of it in plain PyTorch.

The forward kernel is `ops.neuron.run`, compiled. The backward kernel is its adjoint, which autograd writes once, while
both are traced: it starts from the input again, so the input is all that is kept.
A step that can't be traced (a condition on values), or that draws random numbers, runs as it is.
"""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from ...runtime import packing
from ...runtime.compiler import compiled_graph
from ..neuron import Neuron, membrane_dtype, run
from ..surrogate import spike
from . import fused_neuron
from .spikes import derivative_for, fire_by

__all__ = ["spikes"]

# Elements of the input that a step is traced with: a size of its own, so that the tracer takes it for no other.
_TRACED = 97


class _Setting(NamedTuple):
    """What a kernel is made for: the neuron, its parameters that are no tensors, how it fires, T, types and places."""

    neuron: Neuron
    parameters: NamedTuple
    surrogate: str
    strict: bool
    steps: int
    dtype: torch.dtype
    device: str
    places: tuple[str, ...]


def _filled(parameters: NamedTuple, values: tuple[Tensor, ...]) -> NamedTuple:
    """Put tensors where `parameters` has `Tensor`."""
    found = iter(values)
    return parameters._make(next(found) if part is Tensor else part for part in parameters)


def _forward(setting: _Setting, packed: bool) -> Callable:
    def forward(x, alpha, *values):
        fire = lambda over: fire_by(over, alpha, None, setting.strict)  # noqa: E731
        fired, _ = run(setting.neuron, x, _filled(setting.parameters, values), fire)
        return fired, fused_neuron.bits(list(fired.to(membrane_dtype(x.dtype)).unbind(0))) if packed else None

    return forward


def _backward(setting: _Setting, wants: tuple[bool, ...]) -> Callable:
    derivative = derivative_for(setting.surrogate, setting.dtype, setting.device)

    @torch.enable_grad()
    def backward(x, alpha, grad, *values):
        inputs = [part.detach().requires_grad_(want) for part, want in zip((x, *values), wants, strict=True)]
        fire = lambda over: fire_by(over, alpha, derivative, setting.strict)  # noqa: E731
        fired, _ = run(setting.neuron, inputs[0], _filled(setting.parameters, inputs[1:]), fire)
        wanted = [part for part in inputs if part.requires_grad]
        with saved_tensors_hooks(lambda part: part, lambda part: part):
            return torch.autograd.grad(fired, wanted, grad.to(fired.dtype), materialize_grads=True)

    return backward


@functools.cache
def _kernel(setting: _Setting, packed: bool = False, wants: tuple[bool, ...] = ()) -> Callable | None:
    """Return the forward kernel, or with `wants` the backward one; None where there is none."""
    like = functools.partial(torch.zeros, dtype=setting.dtype, device=setting.device)
    wide = membrane_dtype(setting.dtype)
    numbers = [torch.ones((), dtype=wide, device=place) for place in setting.places]
    x, grad = like(setting.steps, _TRACED), like(setting.steps, _TRACED)  # one tensor given twice would be one input
    alpha = torch.ones((), device=setting.device)
    function, inputs = _forward(setting, packed), (x, alpha, *numbers)
    if wants:
        function, inputs = _backward(setting, wants), (x, alpha, grad, *numbers)
    try:
        with saved_tensors_hooks(lambda part: part, lambda part: part):
            graph = make_fx(function, tracing_mode="symbolic")(*inputs)
    except Exception as error:  # whatever a step holds that can't be traced
        _say(setting.neuron.advance.__qualname__, f"{type(error).__name__}: {error}".splitlines()[0][:200])
        return None
    return None if _draws(graph) else compiled_graph(graph)


def _draws(graph: GraphModule) -> bool:
    """Tell whether a graph draws random numbers, which a second run would not repeat."""
    return any(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in graph.graph.nodes)


@functools.cache
def _say(name: str, reason: str) -> None:
    warnings.warn(f"{name} can't be traced ({reason}); it runs step by step, slower.", RuntimeWarning, stacklevel=2)


def spikes(
    x: Tensor, parameters: NamedTuple, alpha: Tensor, neuron: Neuron, surrogate: str, strict: bool, binary: bool = True
) -> Tensor:
    """Return the spikes `(T, ...)` for input that `fused_neuron.takes`.

    Args:
        x: input `(T, ...)`.
        parameters: what `advance` reads; tensors are scalars in `membrane_dtype`.
        alpha: steepness of the surrogate.
        neuron: what it is.
        surrogate, strict: see `ops.surrogate.spike`.
        binary: whether the spikes are 0 or 1, so that bits can hold them.
    """
    values = [part for part in parameters if isinstance(part, Tensor)]
    constants = parameters._make(Tensor if isinstance(part, Tensor) else part for part in parameters)
    places = tuple(value.device.type for value in values)
    setting = _Setting(neuron, constants, surrogate, strict, x.shape[0], x.dtype, x.device.type, places)
    forward = _kernel(setting, binary and packing.active())
    fire = functools.partial(spike, alpha=alpha, surrogate=surrogate, strict=strict)
    if forward is None:
        return run(neuron, x, parameters, fire)[0]

    def backward(wants, grad, x, alpha, *values):
        wants = wants[0], *wants[2:]
        kernel = _kernel(setting, wants=wants)
        if kernel is None:
            return None
        found = iter(kernel(x, alpha, grad.to(x.dtype), *values))
        g_x, *others = [next(found) if want else None for want in wants]
        return g_x, None, *others

    def definition(x, alpha, *values):
        return run(neuron, x, _filled(constants, values), fire)[0]

    kernels = fused_neuron.Kernels(forward, backward, definition)
    return fused_neuron.in_memory_order(x, lambda rows: fused_neuron.RunKernels.apply(kernels, rows, alpha, *values))
