"""Follow dense products below the modules: what PyTorch multiplies, and the module whose own code asks for it.

A `TorchDispatchMode` sees `@`, `einsum`, functional convolutions and attention as the few operations that they are made
of. While it is on, neurons run eagerly, so it is switched on for as few modules as possible.
"""

import copy
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["DenseProduct", "Follower", "unseen"]

aten = torch.ops.aten
# Products that PyTorch's counter passes over.
_PASSED_OVER: dict[Any, Callable[..., int]] = {
    aten.mv: lambda a, b, **_: 2 * a.numel(),
    aten.addmv: lambda _, a, b, **__: 2 * a.numel(),
    aten.dot: lambda a, b, **_: 2 * a.numel(),
    aten._int_mm: lambda a, b, **_: 2 * a.numel() * b.shape[-1],
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: 2 * sum(_attention_macs(q, k, v)),
}


@dataclass(frozen=True)
class DenseProduct:
    """One product that a module's own code asks for.

    Args:
        type: "conv", "linear" (one factor is a parameter) or "matmul".
        macs: multiply-accumulates.
        operands: what is multiplied, without the weights of a layer.
        biases: additions of biases.
        parameters: weights and biases.
        known: whether PyTorch's `FlopCounterMode` counts it, too.
    """

    type: str
    macs: int
    operands: tuple[Tensor, ...]
    biases: int = 0
    parameters: int = 0
    known: bool = True


@dataclass
class _Frame:
    """A module that runs, its inputs, and how many products of each type it has asked for."""

    name: str
    inputs: tuple
    asked: Counter = field(default_factory=Counter)


class Follower(TorchDispatchMode):
    """The mode; it is on from when the outermost followed module is entered until that is left.

    Args:
        model: whose parameters make a product a layer.
        seen: called with the innermost followed module's name, its inputs, how many products of this type its call
            has asked for before, and the product.
    """

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, seen: Callable[[str, tuple, int, DenseProduct], None]) -> None:
        super().__init__()
        self._seen, self._frames = seen, []
        self._weights = {p.untyped_storage().data_ptr(): p.numel() for p in model.parameters()}

    def follow(self, modules: Iterable[tuple[str, nn.Module]], hooks: ExitStack) -> None:
        """Hook modules, until the stack is closed."""
        for name, module in modules:
            entering = lambda _module, args, kwargs, name=name: self.enter(name, (*args, *kwargs.values()))  # noqa: E731
            hooks.callback(module.register_forward_pre_hook(entering, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(lambda *_: self._leave(), always_call=True).remove)

    def enter(self, name: str, inputs: tuple) -> None:
        """Note that a module begins."""
        if not self._frames:
            self.__enter__()
        self._frames.append(_Frame(name, inputs))

    def _leave(self) -> None:
        self._frames.pop()
        if not self._frames:
            self.__exit__(None, None, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, packet = kwargs or {}, getattr(func, "_overloadpacket", func)
        formula = flop_registry.get(packet)
        if formula is None and packet not in _PASSED_OVER:
            if func is not torch.ops.prim.device.default and hasattr(func, "decompose"):
                with self:  # in inference mode operations come here whole
                    out = func.decompose(*args, **kwargs)
                if out is not NotImplemented:
                    return out
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        flops = formula(*args, **kwargs, out_val=out) if formula else _PASSED_OVER[packet](*args, **kwargs)
        frame = self._frames[-1]
        for product in self._products(packet.__name__, args, out, flops // 2) if flops else ():
            known = replace(product, known=formula is not None)
            self._seen(frame.name, frame.inputs, frame.asked[product.type], known)
            frame.asked[product.type] += 1
        return out

    def _products(self, name: str, args: tuple, out: Any, macs: int) -> list[DenseProduct]:
        """Say what an operation multiplies."""
        factors = [x for x in args if isinstance(x, Tensor)]
        parameters = sum(map(self._size, factors))
        if "attention" in name:
            q, k, v = factors[:3]
            first, second = _attention_macs(q, k, v)
            return [DenseProduct("matmul", first, (q, k)), DenseProduct("matmul", second, (v,))]
        if "conv" in name:
            biases = out.numel() if len(factors) > 2 else 0
            return [DenseProduct("conv", macs, (factors[0],), biases, parameters)]
        added = factors.pop(0) if name.startswith(("add", "badd")) else None
        operands = tuple(x for x in factors[:2] if not self._size(x))
        if len(operands) > 1:
            return [DenseProduct("matmul", macs, operands)]
        biases = out.numel() if added is not None and self._size(added) else 0
        return [DenseProduct("linear", macs, operands or (factors[0],), biases, parameters)]

    def _size(self, x: Tensor) -> int:
        """Return the size of the parameter that a tensor is or shows, 0 for any other tensor."""
        return self._weights.get(x.untyped_storage().data_ptr(), 0)


def _attention_macs(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, int]:
    """Return the operations of Q K^T and of its product with V."""
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    return pairs * q.shape[-1], pairs * v.shape[-1]


@contextmanager
def unseen(model: nn.Module) -> Iterator[None]:
    """Let a network run without the hooks behind its modules, then give it hooks, attributes and buffers back."""
    attributes = {module: dict(vars(module)) for module in model.modules()}
    containers = [(v, copy.copy(v)) for own in attributes.values() for v in own.values() if isinstance(v, dict | list)]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    for module in attributes:
        module._forward_hooks = OrderedDict()
    model._forward_pre_hooks = OrderedDict()
    try:
        yield
    finally:
        for module, own in attributes.items():
            vars(module).clear()
            vars(module).update(own)
        for container, content in containers:
            container.clear()
            (container.update if isinstance(container, dict) else container.extend)(content)
        for buffer, values in buffers:
            if not torch.equal(buffer, values):
                buffer.copy_(values)
