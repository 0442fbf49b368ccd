"""Count the operations of a network on real data: every layer with weights and every product of attention.

Hooks on layers and on the modules of `layers.products` see what enters; nothing is assumed of the network. Whether an
input is binary, whole numbers or real is observed call by call, and what is said of a layer holds over all its calls:
so it does not matter how the data were batched.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from braincog.base.node.node import BaseNode
from torch import Tensor, nn

from ..errors import UserError
from ..layers.products import SpikeMatmul, SpikeSum, SpikingProduct
from .recorder import outputs, refuse_streaming, unwrap

__all__ = ["Kind", "Operation", "Operations", "Seen", "count_operations", "counting", "observe"]

Kind = Literal["binary", "integer", "real"]
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
_UNCOUNTED = (nn.modules.conv._ConvNd, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
_PRODUCTS = (SpikingProduct, SpikeMatmul, SpikeSum)


@dataclass(frozen=True)
class Values:
    """What a tensor holds.

    Args:
        kind: "binary" for zeros and ones, "integer" for whole numbers from 0 on, else "real".
        rate: share of entries that are not 0.
        mean: mean entry: the rate, where a 2 counts as two spikes.
        largest: largest entry.
    """

    kind: Kind
    rate: float
    mean: float
    largest: float


@dataclass(frozen=True)
class Seen:
    """One call of a layer, for a whole batch and all steps in it.

    Args:
        rows: length of the first axis: samples times the steps that this call holds.
        macs: multiply-accumulates of the dense layer, biases not counted.
        biases: additions of biases.
        operands: what came in; several for a product.
        before_pooling: mean of the map that was pooled to become the input, where there was a pooling.
        query_macs: of a "product", those of Q (K^T V); the rest are K^T V's.
    """

    rows: int
    macs: float
    biases: float
    operands: tuple[Values, ...]
    before_pooling: float | None = None
    query_macs: float = 0.0


@dataclass
class Operation:
    """One layer or product.

    Args:
        name: in `model.named_modules()`.
        type: "conv", "linear", "product" (Q K^T V, by the association that is linear in tokens), "matmul" or "sum".
        parameters: weights and biases.
        folded: it feeds another layer without a neuron in between, which then counts for both.
        calls: what it saw.
    """

    name: str
    type: str
    parameters: int = 0
    folded: bool = False
    calls: list[Seen] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        """What its inputs were over all calls; of a product, the least spike-like one."""
        kinds = {operand.kind for call in self.calls for operand in call.operands}
        return next(kind for kind in ("real", "integer", "binary") if kind in kinds)

    @property
    def largest(self) -> float:
        """Return the largest entry of any input."""
        return max(operand.largest for call in self.calls for operand in call.operands)

    def total(self, attribute: str) -> float:
        """Return the sum of "rows", "macs", "biases" or "query_macs" over all calls."""
        return sum(getattr(call, attribute) for call in self.calls)

    def average(self, attribute: str, operand: int = 0) -> float:
        """Return the mean of "rate" or "mean" over all calls, weighted by their operations."""
        return self._weighted(lambda call: getattr(call.operands[operand], attribute))

    def average_before_pooling(self) -> float:
        """Return the mean of the maps that were pooled to become the input, or of the input where none was."""
        return self._weighted(
            lambda call: call.operands[0].mean if call.before_pooling is None else call.before_pooling
        )

    def _weighted(self, value: Callable[[Seen], float]) -> float:
        return sum(call.macs * value(call) for call in self.calls) / self.total("macs")


@dataclass
class Operations:
    """All that a network did.

    Args:
        rows: in the order of execution.
        first: the first layer with weights.
        samples: how many samples went through.
        steps: T.
        events: whether the input was frames or sequences of events, `(B, T, ...)`.
        first_calls: how many of the T equal steps of a repeated image the first layer computed: 1 or T; 0 where its
            steps are not equal.
        classifier: names of the last layers.
    """

    rows: list[Operation]
    first: Operation
    samples: int
    steps: int
    events: bool
    first_calls: int = 0
    classifier: tuple[str, ...] = ()


def observe(x: Tensor) -> Values:
    """Say what a tensor holds."""
    x = x.float() if x.dtype is torch.bool else x
    entries, (low, high) = x.numel(), (float(end) for end in torch.aminmax(x))
    mean = _sum(x) / entries
    # between 0 and 1, x - x^2 is never negative, and 0 for zeros and ones only
    if low >= 0 and high <= 1 and not torch.addcmul(x, x, x, value=-1).any():
        return Values("binary", mean, mean, high)
    whole = low >= 0 and bool((x == x.round()).all())
    return Values("integer" if whole else "real", int(torch.count_nonzero(x)) / entries, mean, high)


def _sum(x: Tensor) -> float:
    # by sample in single precision, which is exact for spikes, as a sum in double precision throughout is slow
    by_sample = x.sum(dim=tuple(range(1, x.dim())), dtype=torch.promote_types(x.dtype, torch.float32))
    return float(by_sample.sum(dtype=torch.float64))


class _Same:
    """A tensor as it was: one that was changed in place since is another."""

    def __init__(self, x: Tensor | None = None) -> None:
        self.x, self.version = x, _version(x)

    def holds(self, x: Tensor) -> bool:
        return self.x is x and self.version == _version(x)


def _version(x: Tensor | None) -> int | None:
    return None if x is None or x.is_inference() else x._version


class _Counter:
    """The hooks' memory while one network is watched."""

    def __init__(self, model: nn.Module, fold: bool) -> None:
        self.model, self.fold = model, fold
        self.samples, self.events = 0, None
        self._modules = dict(model.named_modules())
        self.rows: dict[str, Operation] = {}
        self._looked, self._values = _Same(), None
        self._pooled, self._before_pooling = _Same(), 0.0
        self._produced, self._producer = _Same(), ""

    def _look(self, x: Tensor) -> Values:
        # q, k and v read one tensor: it is looked at once
        if not self._looked.holds(x):
            self._looked, self._values = _Same(x), observe(x)
        return self._values

    def pooled(self, _name: str, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._pooled, self._before_pooling = _Same(output), _sum(inputs[0]) / inputs[0].numel()

    def weighted(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        row = self.rows.setdefault(name, Operation(name, _type(module), sum(p.numel() for p in module.parameters())))
        macs, values = output.numel() * _fan_in(module), self._look(x)
        if self.fold and self._produced.holds(x):  # nothing in between: two layers that are one
            before = self.rows[self._producer]
            before.folded = True
            values = before.calls[-1].operands[0]
            macs = output.numel() * _joint_fan_in(self._modules[before.name], module)
        biases = output.numel() if module.bias is not None else 0
        before_pooling = self._before_pooling if self._pooled.holds(x) else None
        row.calls.append(Seen(x.shape[0], macs, biases, (values,), before_pooling))
        self._produced, self._producer = _Same(output), name

    def product(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        row = self.rows.setdefault(name, Operation(name, _type(module)))
        operands = inputs[1:] if isinstance(module, SpikeMatmul) else inputs
        macs, query_macs = _product_macs(module, inputs, output)
        seen = tuple(observe(operand) for operand in operands)
        row.calls.append(Seen(output.shape[0], macs, 0, seen, query_macs=query_macs))

    def uncounted(self, name: str, module: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        raise UserError(
            f"count_operations: {name} is a {type(module).__name__}, whose operations are not counted here; those of "
            "Conv1d, Conv2d and Linear are"
        )

    def entered(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        refuse_streaming("count_operations", module)
        events = inputs[0].dim() != 4
        if self.events not in (None, events):
            raise UserError("count_operations: the data hold both images and frames of events; count each by itself")
        self.samples += len(inputs[0])
        self.events = events

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as hooks:
            hooks.callback(self.model.register_forward_pre_hook(self.entered).remove)
            for name, module in self._modules.items():
                hook = None
                if isinstance(module, _WEIGHTED):
                    hook = self._named(self.weighted, name)
                elif isinstance(module, _PRODUCTS):
                    hook = self._named(self.product, name)
                elif isinstance(module, nn.MaxPool2d):
                    hook = self._named(self.pooled, name)
                elif isinstance(module, _UNCOUNTED):
                    hook = self._named(self.uncounted, name)
                if hook is not None:
                    hooks.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            yield

    @staticmethod
    def _named(method, name: str):
        return lambda module, args, kwargs, output: method(name, module, (*args, *kwargs.values()), output)


def _type(module: nn.Module) -> str:
    names = {nn.Linear: "linear", SpikingProduct: "product", SpikeMatmul: "matmul", SpikeSum: "sum"}
    return next((name for cls, name in names.items() if isinstance(module, cls)), "conv")


def _product_macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[float, float]:
    """Return the operations of a product or sum, and those of Q (K^T V) among them."""
    if isinstance(module, SpikingProduct):
        _, k, v = inputs
        query_macs = output.numel() * k.shape[-1]
        return k.numel() * v.shape[-1] + query_macs, query_macs
    if isinstance(module, SpikeMatmul):
        return output.numel() * inputs[0].shape[-1], 0.0
    return inputs[0].numel(), 0.0


def _fan_in(module: nn.Module) -> int:
    """Return how many numbers meet in one output."""
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.in_channels // module.groups * math.prod(module.kernel_size)


def _joint_fan_in(first: nn.Module, second: nn.Module) -> int:
    """Return the fan-in of the one layer that two layers in a row are."""
    if isinstance(second, nn.Linear):
        return first.in_features if isinstance(first, nn.Linear) else _fan_in(second)
    sides = (a + b - 1 for a, b in zip(first.kernel_size, second.kernel_size, strict=True))
    return first.in_channels // second.groups * math.prod(sides)


@contextmanager
def counting(model: nn.Module, *, fold: bool = False) -> Iterator[Callable[[], Operations]]:
    """Count what a network does while the context lasts; it yields a function that returns what was counted.

    Args:
        model: any network with BrainCog's neurons; its hooks are left as they were.
        fold: count two convolutions with nothing in between as the one dense convolution that they are.

    Raises:
        UserError: if the network has no neuron; by the function, if no batch came, or nothing with weights was called.
    """
    inner = unwrap(model)
    if not any(isinstance(module, BaseNode) for module in inner.modules()):
        raise UserError(
            f"count_operations: {type(inner).__name__} has no neuron of BrainCog's (BaseNode), so nothing in it spikes"
        )
    counter = _Counter(inner, fold)

    def counted() -> Operations:
        if not counter.samples:
            raise UserError("count_operations: the data hold no batch; nothing can be counted")
        steps, rows = getattr(inner, "step", 1), list(counter.rows.values())
        first = next((row for row in rows if row.type in ("conv", "linear")), None)
        if first is None:
            raise UserError(f"count_operations: {type(inner).__name__} has no convolution and no linear layer")
        once = steps > 1 and first.total("rows") == counter.samples
        calls = 1 if once else steps if _repeats(inner, counter.events) else 0
        return Operations(rows, first, counter.samples, steps, counter.events, calls, _classifier(inner))

    with counter.watching():
        yield counted


def count_operations(
    model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], *, fold: bool = False
) -> Operations:
    """Run a network on data, in evaluation mode, and count, see `counting`.

    Args:
        model: any network with BrainCog's neurons; its mode and hooks are left as they were.
        batches: inputs, or `(input, target, ...)` as a loader gives them; moved to the model's device.
        fold: count two convolutions with nothing in between as the one dense convolution that they are.
    """
    with counting(model, fold=fold) as counted:
        for _ in outputs(model, batches):
            pass
    return counted()


def _repeats(model: nn.Module, events: bool) -> bool:
    """Tell whether all steps see one image, as BrainCog's direct encoding has it."""
    return not events and getattr(getattr(model, "encoder", None), "encode_type", "") == "direct"


def _classifier(model: nn.Module) -> tuple[str, ...]:
    """Name the last layers of a network that has timm's `get_classifier`."""
    if not hasattr(model, "get_classifier"):
        return ()
    last = model.get_classifier()
    last = last if isinstance(last, tuple) else (last,)
    return tuple(name for name, module in model.named_modules() if any(module is layer for layer in last))
