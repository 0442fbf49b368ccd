"""Kernels for any neuron, made from one step of it in plain PyTorch.

`run` is the definition: the step, T times. The forward kernel is that, compiled. The backward kernel is its adjoint,
which autograd writes once, while both are traced: it starts from the input again, so the input is all that is kept.
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
from ...runtime.watching import batched
from ..dynamics import membrane_dtype
from ..surrogate import derivative_for, fire_by, spike
from . import fused_neuron

__all__ = ["Neuron", "advance_once", "applies", "run", "spikes"]

_Step = Callable[[Tensor, NamedTuple, NamedTuple, Callable[[Tensor], Tensor]], tuple[Tensor, NamedTuple]]
# Elements of the input that a step is traced with: a size of its own, so that the tracer takes it for no other.
_TRACED = 97


class Neuron(NamedTuple):
    """What a neuron is, but for its parameters.

    Args:
        advance: one step, `(x, state, parameters, fire)` to spikes and the next state.
        rest: state with which every sequence begins, in numbers.
        detach: no gradient from one step to the one before.
    """

    advance: _Step
    rest: NamedTuple
    detach: bool


def advance_once(advance: _Step, x: Tensor, state: NamedTuple, parameters: NamedTuple, fire, detach: bool):
    """Take one step; spikes come in the type of x, whatever the state's is."""
    if detach:
        state = state._make(part.detach() for part in state)
    s, state = advance(x.to(membrane_dtype(x.dtype)), state, parameters, fire)
    return s.to(x.dtype), state


def _start(neuron: Neuron, x: Tensor) -> NamedTuple:
    wide = membrane_dtype(x.dtype)
    return neuron.rest._make(torch.full_like(x[0], number, dtype=wide) for number in neuron.rest)


def run(neuron: Neuron, x: Tensor, parameters: NamedTuple, fire: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Take all steps from rest.

    Args:
        neuron: what it is.
        x: input `(T, ...)`.
        parameters: what `advance` reads.
        fire: maps the potential minus the threshold to spikes.

    Returns:
        Spikes, in the type of x, and the first part of the state after each step, both `(T, ...)`.
    """
    state, fired, potentials = _start(neuron, x), [], []
    for x_t in x.unbind(0):
        s, state = advance_once(neuron.advance, x_t, state, parameters, fire, neuron.detach)
        fired.append(s)
        potentials.append(state[0])
    return torch.stack(fired), torch.stack(potentials)


def applies(x: Tensor) -> bool:
    """Tell whether kernels take this input, and pay."""
    pays = x.numel() >= fused_neuron.MIN_ELEMENTS
    return fused_neuron.takes(x) and pays and fused_neuron.compiler_works(x.device.type)


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


class _StepNeuron(torch.autograd.Function):
    """Spikes `(T, M)` of contiguous input `(T, M)`."""

    @staticmethod
    def forward(ctx, x, alpha, setting, kernel, packed, *values):
        ctx.save_for_backward(x, alpha, *values)
        ctx.setting = setting
        out, bits = kernel(x.detach(), alpha.detach(), *(value.detach() for value in values))
        if packed:
            packing.note(out, bits)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, alpha, *values = ctx.saved_tensors
        setting, wants = ctx.setting, (ctx.needs_input_grad[0], *ctx.needs_input_grad[5:])
        kernel = None
        if not torch.is_grad_enabled() and not batched(grad):
            kernel = _kernel(setting, wants=wants)
        if kernel is None:
            fire = functools.partial(spike, alpha=alpha, surrogate=setting.surrogate, strict=setting.strict)

            def definition(x, *values):
                return run(setting.neuron, x, _filled(setting.parameters, values), fire)[0]

            g_x, *others = fused_neuron.differentiable_gradients(definition, (x, *values), grad)
            return g_x, None, None, None, None, *others
        parts = (part.detach() for part in (x, alpha, grad.to(x.dtype).contiguous(), *values))
        found = iter(kernel(*parts))
        g_x, *others = [next(found) if want else None for want in wants]
        return g_x, None, None, None, None, *others


def spikes(x: Tensor, parameters: NamedTuple, alpha: Tensor, neuron: Neuron, surrogate: str, strict: bool) -> Tensor:
    """Return the spikes `(T, ...)` for input that `applies`.

    Args:
        x: input `(T, ...)`.
        parameters: what `advance` reads; tensors are scalars in `membrane_dtype`.
        alpha: steepness of the surrogate.
        neuron: what it is.
        surrogate, strict: see `ops.surrogate.spike`.
    """
    values = [part for part in parameters if isinstance(part, Tensor)]
    constants = parameters._make(Tensor if isinstance(part, Tensor) else part for part in parameters)
    places = tuple(value.device.type for value in values)
    setting = _Setting(neuron, constants, surrogate, strict, x.shape[0], x.dtype, x.device.type, places)
    packed = packing.active()
    kernel = _kernel(setting, packed)
    if kernel is None:
        fire = functools.partial(spike, alpha=alpha, surrogate=surrogate, strict=strict)
        return run(neuron, x, parameters, fire)[0]
    rest = alpha, setting, kernel, packed, *values
    return fused_neuron.in_memory_order(x, lambda rows: _StepNeuron.apply(rows, *rest))
