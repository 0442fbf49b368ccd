"""Count the operations of a network on real data: every layer with weights and every product of attention.

Hooks on layers and on the modules of `layers.products` and `layers.transforms` see what enters. Two samples of the
first batch first pass through a copy, where every product is followed below the modules: a layer whose products are not
those of its class, and a product that a module's own code asks for, get rows of their own. What all rows add up to is
compared with PyTorch's `FlopCounterMode`, which knows no transform. Whether an input is binary, ternary, whole numbers
or real is observed call by call, and what is said of a layer holds over all its calls: so it does not matter how the
data were batched.

What a neuron fires whose spikes are worth a number is counted in spikes, whatever they are worth. In spiking inference
a product is computed in binary planes; it has one row, whose operations are those of one plane.

A converted network steps by itself: each call belongs to a step, and all T of them run, even if it could stop early.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from braincog.base.node.node import BaseNode
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..conversion.converted import Converted
from ..errors import UserError
from ..layers.products import SpikeMatmul, SpikeSum, SpikingProduct
from ..layers.transforms import FixedTransform
from ..nodes import ValuedNode
from ..ops import planes
from ..ops.operators import CONTROL, SHAPED_BY_DATA, Operator, Operators
from ..runtime.batch import Batch, tensors_of
from .dispatch import DenseProduct, Follower, unseen
from .recorder import all_steps, frozen_inference, is_spiking, outputs, refuse_streaming, steps_of, unwrap

__all__ = ["KINDS", "Kind", "Operation", "Operations", "Seen", "count_operations", "counting", "observe"]

Kind = Literal["binary", "ternary", "integer", "real"]
KINDS: tuple[Kind, ...] = ("binary", "ternary", "integer", "real")
_TRANSPOSED = nn.modules.conv._ConvTransposeNd
_LAYERS = {nn.modules.conv._ConvNd: "conv", nn.Linear: "linear"}
_PRODUCTS = {SpikingProduct: "product", SpikeMatmul: "matmul", SpikeSum: "sum", FixedTransform: "transform"}
_UNSEEN = ("sum", "transform")  # PyTorch's counter knows no operation in them
_UNCOUNTED = (nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
_SURVEYED = 2  # samples: a network that drops axes of length 1 would stumble over a single one
TOLERANCE = 1e-3
"""Share of all operations by which two counts may differ without a warning."""


@dataclass(frozen=True)
class Values:
    """What a tensor holds.

    Args:
        kind: "binary" for zeros and ones, "ternary" for -1, 0 and 1, "integer" for whole numbers from 0 on, and for
            those with a sign that neurons fired, else "real".
        rate: share of entries that are not 0; in binary planes, the sum of their rates.
        mean: mean entry, of spikes without their signs: the rate, where a 2 counts as two spikes.
        largest: largest entry, of spikes without their signs.
        planes: how many binary planes hold it, in spiking inference.
    """

    kind: Kind
    rate: float
    mean: float
    largest: float
    planes: int = 1


@dataclass(frozen=True)
class Seen:
    """One call of a layer, for a whole batch and all steps in it.

    Args:
        rows: length of the first axis: samples times the steps that this call holds.
        macs: multiply-accumulates of the dense layer, biases not counted.
        biases: additions of biases.
        operands: what came in; several for a product; of a transform that multiplies also what came out, which its
            later stages read.
        before_pooling: mean of the map that was pooled to become the input, or of the input where there was no pooling.
        query_macs: of a "product", those of Q (K^T V); the rest are K^T V's.
        step: of a network that steps by itself the step that it belongs to, from 0; None for what runs once.
    """

    rows: int
    macs: float
    biases: float
    operands: tuple[Values, ...]
    before_pooling: float = 0.0
    query_macs: float = 0.0
    step: int | None = None


@dataclass
class Operation:
    """One layer or product.

    Args:
        name: in `model.named_modules()`; of a product that a module's own code asks for, the module's and its type.
        type: "conv", "linear", "product" (Q K^T V, by the association that is linear in tokens), "matmul", "sum" or
            "transform" (by a fast algorithm).
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
    def driving(self) -> int:
        """Which operand decides what it costs: of a "matmul" the most spike-like one, which saves multiplications."""
        if self.type != "matmul":
            return 0
        operands = range(len(self.calls[0].operands))
        return min(operands, key=lambda i: (KINDS.index(self._kind_of(i)), self.average("mean", i)))

    @property
    def kind(self) -> Kind:
        """What its inputs were over all calls; of a product, the least spike-like one."""
        if self.type == "matmul":
            return self._kind_of(self.driving)
        return max(map(self._kind_of, range(len(self.calls[0].operands))), key=KINDS.index)

    def _kind_of(self, operand: int) -> Kind:
        return max((call.operands[operand].kind for call in self.calls), key=KINDS.index)

    @property
    def largest(self) -> float:
        """Return the largest entry of any input that decides."""
        operands = [self.driving] if self.type == "matmul" else range(len(self.calls[0].operands))
        return max(call.operands[i].largest for call in self.calls for i in operands)

    @property
    def planes(self) -> int:
        """Return how many binary planes its inputs had at most, 1 outside spiking inference."""
        return max(values.planes for call in self.calls for values in call.operands)

    def total(self, attribute: str) -> float:
        """Return the sum of "rows", "macs", "biases" or "query_macs" over all calls."""
        return sum(getattr(call, attribute) for call in self.calls)

    def average(self, attribute: str, operand: int | None = None) -> float:
        """Return the mean of "rate" or "mean" over all calls, weighted by their operations."""
        operand = self.driving if operand is None else operand
        return self._weighted(lambda call: getattr(call.operands[operand], attribute))

    def average_before_pooling(self) -> float:
        """Return the mean of the maps that were pooled to become the input, or of the input where none was."""
        return self._weighted(lambda call: call.before_pooling)

    def _weighted(self, value: Callable[[Seen], float]) -> float:
        total = self.total("macs")  # 0 for the transform of a single token
        return sum(call.macs * value(call) for call in self.calls) / total if total else 0.0


@dataclass
class Operations:
    """All that a network did.

    Args:
        rows: in the order of execution.
        first: the first layer with weights.
        samples: how many samples went through.
        steps: T.
        events: whether the input was frames or sequences of events, `(B, T, ...)`.
        by_steps: whether each call belongs to a step, as in a converted network.
        first_calls: how many of the T equal steps of a repeated image the first layer computed: 1 or T; 0 where its
            steps are not equal.
        classifier: names of the last layers.
        analog: operators outside of neurons that are not linear, and read something else than spikes.
        spiking: whether the network has a neuron of BrainCog's.
        apart: names of rows in parts without neurons that stand beside spiking ones, and see a sample once.
    """

    rows: list[Operation]
    first: Operation
    samples: int
    steps: int
    events: bool
    first_calls: int = 0
    classifier: tuple[str, ...] = ()
    by_steps: bool = False
    analog: tuple[Operator, ...] = ()
    spiking: bool = True
    apart: frozenset[str] = frozenset()

    def until(self, steps: int) -> "Operations":
        """Return what was done in the first steps, and once, of a network whose calls belong to steps."""
        kept = [replace(row, calls=[call for call in row.calls if (call.step or 0) < steps]) for row in self.rows]
        rows = [row for row in kept if row.calls]
        first = next(row for row in rows if row.name == self.first.name)
        calls = steps if self.first_calls == self.steps else self.first_calls
        return replace(self, rows=rows, first=first, steps=steps, first_calls=calls)


def observe(x: Tensor) -> Values:
    """Say what a tensor holds; what neurons fired is counted in spikes, whatever one is worth."""
    mode = planes.active()
    spikes = None if mode is None else mode.unrolled(x)
    if spikes is not None:
        x = spikes.counts
        if mode.unrolls:
            mean = _sum(x) / x.numel()
            return Values("binary", mean, mean, float(mean > 0), spikes.planes)
    x = x.float() if x.dtype is torch.bool else x
    entries, (low, high) = x.numel(), (float(end) for end in torch.aminmax(x))
    # between 0 and 1, x - x^2 is never negative, and 0 for zeros and ones only; without their sign likewise
    if low >= -1 and high <= 1 and not torch.addcmul(x.abs() if low < 0 else x, x, x, value=-1).any():
        mean = _sum(x.abs() if low < 0 else x) / entries
        return Values("ternary" if low < 0 else "binary", mean, mean, max(high, -low))
    if spikes is not None or (low >= 0 and bool((x == x.round()).all())):
        x, high, kind = x.abs() if low < 0 else x, max(high, -low), "integer"
    else:
        kind = "real"
    return Values(kind, int(torch.count_nonzero(x)) / entries, _sum(x) / entries, high)


def _not_seen(_x: Tensor) -> Values:
    """Say nothing: for a count alone nobody looks."""
    return Values("real", 0.0, 0.0, 0.0)


def _spikes(x: Tensor) -> bool:
    """Tell whether a tensor is made of whole numbers of spikes, or is a choice between yes and no."""
    return not x.is_floating_point() or not x.numel() or observe(x).kind != "real"


def _sum(x: Tensor) -> float:
    # by sample in single precision, which is exact for spikes, as a sum in double precision throughout is slow
    by_sample = x.sum(dim=tuple(range(1, x.dim())), dtype=torch.promote_types(x.dtype, torch.float32))
    return float(by_sample.sum(dtype=torch.float64))


class _Known:
    """A tensor as it was, and what is known of it: one that was changed in place since is another."""

    def __init__(self, x: Tensor | None = None, value: Any = None) -> None:
        self.x, self.version, self.value = x, _version(x), value

    def holds(self, x: Tensor) -> bool:
        return self.x is x and self.version == _version(x)


def _version(x: Tensor | None) -> int | None:
    return None if x is None or x.is_inference() else x._version


class _Counter:
    """The hooks' memory while one network is watched.

    Args:
        model: the network.
        fold: see `counting`.
        look: says what a tensor holds.
    """

    def __init__(self, model: nn.Module, fold: bool, look: Callable[[Tensor], Values] = observe) -> None:
        self.model, self.fold, self._look = model, fold, look
        self.samples, self.events = 0, None
        self.stepping = model if isinstance(model, Converted) else None
        # for a network that steps by itself: at how many steps something enters, and the layers that this call was in
        self._entered, self._called = math.inf, set()
        self.rows: dict[str, Operation] = {}
        self._modules = dict(model.named_modules())
        # tensors with what they hold, with the mean in front of their pooling, and with the name of their layer
        self._observed = self._pooled = self._produced = _Known()
        self._hooks = ExitStack()
        # by shape of a sample, what two samples showed: multiply-accumulates of one, by layer or module
        self._surveys: dict[tuple[tuple[int, ...], ...], dict[str, float]] = {}
        self._depends = False  # whether the number of rows somewhere follows from the data, as that of boxes does
        self._expected, self._counted = Counter(), Counter()
        self._differing: dict[str, tuple[float, float]] = {}
        self._other, self._asking = set(), set()
        self.analog: dict[tuple[str, str], Operator] = {}
        self._follower = Follower(model, self._asked)

    def _observe(self, x: Tensor) -> Values:
        # q, k and v read one tensor, which is examined once
        if not self._observed.holds(x):
            self._observed = _Known(x, self._look(x))
        return self._observed.value

    def _pool(self, _name: str, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._pooled = _Known(output, self._look(inputs[0]).mean)

    def _row(self, name: str, type: str, parameters: int) -> Operation:
        return self.rows.setdefault(name, Operation(name, type, parameters))

    def _layer(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        if name in self._other or not (isinstance(x, Tensor) and isinstance(output, Tensor)):
            return
        macs = _layer_macs(module, x, output)
        row, values = self._row(name, _type(module), sum(p.numel() for p in module.parameters())), self._observe(x)
        self._counted[name] += macs
        if self.fold and self._produced.holds(x) and not isinstance(module, _TRANSPOSED):
            # nothing in between: two layers that are one
            before = self.rows[self._produced.value]
            before.folded = True
            values = before.calls[-1].operands[0]
            macs = output.numel() * _joint_fan_in(self._modules[before.name], module)
        biases = output.numel() if module.bias is not None and not self._had_its_bias(name, module) else 0
        before_pooling = self._pooled.value if self._pooled.holds(x) else values.mean
        self._note(row, Seen(self._length(x), macs, biases, (values,), before_pooling))
        self._produced = _Known() if isinstance(module, _TRANSPOSED) else _Known(output, name)

    def _had_its_bias(self, name: str, module: nn.Module) -> bool:
        """Tell whether a layer added its bias in an earlier step, if it does so once."""
        again = name in self._called and hasattr(module, "biased")
        self._called.add(name)
        return again

    def _note(self, row: Operation, seen: Seen) -> None:
        """Add a call to a row, with the step that it belongs to. A first layer that nothing enters costs nothing."""
        row.calls.append(seen)
        if self.stepping is not None:
            step = self.stepping.current
            nothing = step is not None and step >= self._entered and row is _first(self.rows.values())
            row.calls[-1] = replace(seen, step=step, macs=0.0 if nothing else seen.macs)

    def _product(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if name in self._other:
            return
        operands = inputs[1:] if isinstance(module, SpikeMatmul) else inputs
        if isinstance(module, FixedTransform) and module.multiplies:
            operands = (*inputs, output)
        macs, query_macs = _product_macs(module, inputs, output)
        self._counted[name] += macs
        seen = Seen(self._length(output), macs, 0, tuple(map(self._look, operands)), query_macs=query_macs)
        self._note(self._row(name, _type(module), 0), seen)

    def _asked(self, name: str, inputs: tuple, number: int, product: DenseProduct) -> None:
        """Count a product that a module's own code asks for."""
        if name not in self._asking:
            return
        self._counted[name] += product.macs
        row = f"{name}.{product.type}{number or ''}".lstrip(".")
        row += "_" * (row in self._modules)
        length = next((self._length(x) for x in inputs if isinstance(x, Tensor)), 1)
        seen = Seen(length, product.macs, product.biases, tuple(map(self._look, product.operands)))
        self._note(self._row(row, product.type, product.parameters), seen)

    def _length(self, x: Tensor) -> int:
        """Return how many samples times steps a tensor holds, `(T*B, ...)`, `(T, B, ...)` or `(B, ...)`."""
        if self.stepping is not None:
            return len(x)
        steps = steps_of(self.model)
        return len(x) * x.shape[1] if x.dim() > 2 and x.shape[:2] == (steps, self._batch) else len(x)

    def _uncounted(self, name: str, module: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        raise UserError(
            f"count_operations: {name} is a {type(module).__name__}, whose operations are not counted here; those of "
            "convolutions and Linear are"
        )

    def _begin(self, inputs: tuple) -> None:
        refuse_streaming("count_operations", self.model)
        x, tensors = inputs[0], tensors_of(inputs[0])
        if not tensors:
            raise UserError(f"count_operations: an input is a tensor or a Batch; got {type(x).__name__}")
        events = tensors[0].dim() != (4 if self.stepping is None else self.stepping.input_dims)
        if self.events not in (None, events):
            raise UserError("count_operations: the data hold both images and frames of events; count each by itself")
        self.samples, self.events, self._batch = self.samples + len(x), events, len(x)
        self._called, self._entered = set(), _entered(self.stepping, events)
        shapes = tuple(tuple(one.shape[1:]) for one in tensors)
        if shapes not in self._surveys:
            self._surveys[shapes] = self._survey(inputs)
        for name, macs in self._surveys[shapes].items():
            self._expected[name] += macs * len(x)

    def _survey(self, inputs: tuple) -> dict[str, float]:
        """Run two samples eagerly and find the products that no layer's class explains."""
        found, known = Counter(), Counter()

        def note(name: str, _inputs: tuple, _number: int, product: DenseProduct) -> None:
            found[name] += product.macs
            known[name] += product.macs * product.known

        def run(x: Tensor | Batch) -> None:
            trial._batch = len(x)
            operators = Operators(hides=(BaseNode,), spikes=_spikes)
            # modes end in the opposite order
            with unseen(self.model), frozen_inference(self.model), counter, ExitStack() as hooks:
                trial._hook_layers(hooks)
                hooks.enter_context(operators.watching(self.model))
                Follower(self.model, note).follow(self._modules.items(), hooks)
                self.model(x, *inputs[1:])
            kept = (operator for operator in operators.found if operator.name != CONTROL)  # when to stop, for example
            self._depends |= any(operator.name in SHAPED_BY_DATA for operator in operators.found)
            self.analog |= {(operator.path, str(operator)): operator for operator in kept}

        trial, counter = _Counter(self.model, fold=False, look=_not_seen), FlopCounterMode(display=False)
        try:
            run(inputs[0][:_SURVEYED])
        except RuntimeError:  # its state is that of a whole batch
            trial, found, known = _Counter(self.model, fold=False, look=_not_seen), Counter(), Counter()
            run(inputs[0])
        expected, ours = {}, Counter()
        for name, row in sorted(trial.rows.items(), key=lambda item: -item[0].count(".")):  # innermost first
            inside = _within(name, found)
            inside_macs, inside_known = sum(found[n] for n in inside), sum(known[n] for n in inside)
            if not inside_macs or _explains(row, inside_macs):
                expected[name] = row.total("macs")
                rule = inside_macs if row.type in ("product", *_UNSEEN) else row.total("macs")
                ours[name] = rule - inside_macs + inside_known
                found = Counter({owner: macs for owner, macs in found.items() if owner not in inside})
            else:
                self._other.add(name)
        ours.update({name: known[name] for name in found})
        self._differing |= _differing(self.model, counter.get_flop_counts(), ours, trial._batch)
        self._follow(set(found) - self._asking, inputs)
        return {name: macs / trial._batch for name, macs in {**expected, **found}.items()}

    def _follow(self, names: set[str], inputs: tuple[Tensor, ...]) -> None:
        """Count the products that these modules' own code asks for, from now on."""
        self._asking |= names
        followed = {name for asking in names for name in _within(asking, self._modules)}
        self._follower.follow(((name, self._modules[name]) for name in followed), self._hooks)
        if "" in names:  # it is under way already
            self._follower.enter("", inputs)

    def _hook_layers(self, hooks: ExitStack) -> None:
        methods = {
            tuple(_LAYERS): self._layer,
            tuple(_PRODUCTS): self._product,
            nn.MaxPool2d: self._pool,
            _UNCOUNTED: self._uncounted,
        }
        for name, module in self._modules.items():
            method = next((method for classes, method in methods.items() if isinstance(module, classes)), None)
            if method is not None and not _overridden(module):
                hooks.callback(module.register_forward_hook(_hook(method, name), with_kwargs=True).remove)

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self._hooks:
            begin = self.model.register_forward_pre_hook(lambda _module, inputs: self._begin(inputs))
            self._hooks.callback(begin.remove)
            self._hook_layers(self._hooks)
            yield

    def warn(self) -> None:
        """Say where the count and PyTorch's differ, if they do."""
        total, differing = sum(self._expected.values()), dict(self._differing)
        if not self._depends and abs(sum(self._counted.values()) - total) > TOLERANCE * total:
            for name in self._expected.keys() | self._counted.keys():
                ours, theirs = self._counted[name] / self.samples, self._expected[name] / self.samples
                if abs(ours - theirs) * self.samples > TOLERANCE * total:
                    differing[name] = (ours, theirs)
        if differing:
            parts = (f"{name or 'the network'} {a / 1e6:.2f} M, not {b / 1e6:.2f} M" for name, (a, b) in
                     sorted(differing.items()))  # fmt: skip
            warnings.warn(
                "count_operations: multiply-accumulates of a sample differ from those that PyTorch's counter found in "
                f"two samples: {'; '.join(parts)}; the total is not to be trusted",
                stacklevel=3,
            )


def _hook(method: Callable, name: str) -> Callable:
    return lambda module, args, kwargs, output: method(name, module, (*args, *kwargs.values()), output)


def _overridden(module: nn.Module) -> bool:
    """Tell whether a product is not the published one: a mask, for example, may come between its two halves."""
    own = getattr(module.forward, "__func__", None)
    return isinstance(module, SpikingProduct) and own is not SpikingProduct.forward


def _type(module: nn.Module) -> str:
    return next(name for cls, name in (_LAYERS | _PRODUCTS).items() if isinstance(module, cls))


def _within(name: str, names: Iterable[str]) -> list[str]:
    """Return the names of a module and of those inside."""
    return [other for other in names if not name or other == name or other.startswith(f"{name}.")]


def _explains(row: Operation, found: float) -> bool:
    """Tell whether a module's class explains the multiply-accumulates that were found in it.

    `SpikingProduct` multiplies in the cheaper order, and costs what its paper says.
    """
    return row.type == "product" or (row.type not in _UNSEEN and found == row.total("macs"))


def _differing(
    model: nn.Module, by_torch: Mapping[str, Mapping], found: Mapping[str, float], samples: int
) -> dict[str, tuple[float, float]]:
    """Return the innermost modules where PyTorch's count of some samples differs, with both counts for one."""
    flops = {name.partition(".")[2]: sum(counts.values()) for name, counts in by_torch.items() if name != "Global"}
    flops[""] = sum(by_torch.get("Global", {}).values())
    pairs = {}
    for name, _ in model.named_modules():
        ours, theirs = sum(found[inner] for inner in _within(name, found)), flops.get(name, 0) / 2
        if abs(ours - theirs) > TOLERANCE * flops[""] / 2:
            pairs[name] = (ours / samples, theirs / samples)
    inner = {name for name in pairs if len(_within(name, pairs)) == 1}
    return {name: pairs[name] for name in inner} if "" in pairs else {}


def _product_macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[float, float]:
    """Return the operations of a product or sum, and those of Q (K^T V) among them."""
    if isinstance(module, SpikingProduct):
        _, k, v = inputs
        query_macs = output.numel() * k.shape[-1]
        return k.numel() * v.shape[-1] + query_macs, query_macs
    if isinstance(module, SpikeMatmul):
        return output.numel() * inputs[0].shape[-1], 0.0
    if isinstance(module, FixedTransform):
        return module.macs(inputs[0]), 0.0
    return inputs[0].numel(), 0.0


def _layer_macs(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """Return the multiply-accumulates of a layer with weights."""
    if isinstance(module, _TRANSPOSED):  # each input goes to so many outputs
        return x.numel() * (module.out_channels // module.groups) * math.prod(module.kernel_size)
    return output.numel() * _fan_in(module)


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
        model: any network; without BrainCog's neurons, nothing in it spikes. Its hooks are left as they were.
        fold: count two convolutions with nothing in between as the one dense convolution that they are.

    Raises:
        UserError: by the function, if no batch came, or nothing with weights was called.
    """
    inner = unwrap(model)
    counter = _Counter(inner, fold)

    def counted() -> Operations:
        if not counter.samples:
            raise UserError("count_operations: the data hold no batch; nothing can be counted")
        steps, rows = steps_of(inner), list(counter.rows.values())
        counter.warn()
        first = _first(rows)
        if first is None:
            raise UserError(f"count_operations: {type(inner).__name__} has no convolution and no linear layer")
        once, repeats = steps > 1 and first.total("rows") == counter.samples, _repeats(inner, counter.events)
        calls = 1 if once else steps if repeats else 0
        if counter.stepping is not None and not repeats:
            calls = 0
        return Operations(
            rows, first, counter.samples, steps, counter.events, calls, _classifier(inner),
            counter.stepping is not None, tuple(counter.analog.values()), is_spiking(inner),
            _apart(inner, rows),
        )  # fmt: skip

    follows = any(isinstance(module, ValuedNode) for module in inner.modules())
    mode = planes.Planes(unrolls=getattr(inner, "spiking_inference", False)) if follows else nullcontext()
    # the mode outside of those that follow products, which see each product once
    with all_steps(inner), mode, counter.watching():
        yield counted


def count_operations(
    model: nn.Module, batches: Iterable[Tensor | Batch | Sequence[Any]], *, fold: bool = False
) -> Operations:
    """Run a network on data, in evaluation mode, and count, see `counting`.

    Args:
        model: any network; its mode and hooks are left as they were.
        batches: inputs, or `(input, target, ...)` as a loader gives them; moved to the model's device.
        fold: count two convolutions with nothing in between as the one dense convolution that they are.
    """
    with counting(model, fold=fold) as counted:
        for _ in outputs(model, batches):
            pass
    return counted()


def _first(rows: Iterable[Operation]) -> Operation | None:
    """Return the first layer with weights."""
    return next((row for row in rows if row.type in _LAYERS.values()), None)


def _entered(model: Converted | None, events: bool) -> float:
    """Return at how many steps something enters a network: at the first ones, or at all."""
    if model is None or events or model.coding == "constant":
        return math.inf
    return model.spread if model.coding == "spread" else 1


def _repeats(model: nn.Module, events: bool) -> bool:
    """Tell whether all steps see one image, as BrainCog's direct encoding has it."""
    if isinstance(model, Converted):
        return not events and model.coding == "constant"
    encoders = (getattr(module, "encoder", None) for module in model.modules())  # in a detector, its backbone has one
    return not events and any(getattr(encoder, "encode_type", "") == "direct" for encoder in encoders)


def _apart(model: nn.Module, rows: Iterable[Operation]) -> frozenset[str]:
    """Name the rows in parts without neurons: a detector's heads, or the ordinary branch of a network.

    Their samples may be boxes or windows, so that their number does not tell how many steps they computed. A layer that
    belongs to a spiking part itself, or reads each step (`head_time`), is none of them.
    """
    modules = dict(model.named_modules())
    if any(getattr(module, "head_time", "") == "each" for module in modules.values()):
        return frozenset()
    spiking = {name for name, module in modules.items() if is_spiking(module)}

    def apart(name: str) -> bool:
        path = name.split(".")
        ancestors = [".".join(path[:depth]) for depth in range(len(path))]
        return len(ancestors) - 1 > max((i for i, one in enumerate(ancestors) if one in spiking), default=0)

    return frozenset(row.name for row in rows if apart(row.name))


def _classifier(model: nn.Module) -> tuple[str, ...]:
    """Name the last layers of a network that has timm's `get_classifier`."""
    if not hasattr(model, "get_classifier"):
        return ()
    last = model.get_classifier()
    last = last if isinstance(last, tuple) else (last,)
    return tuple(name for name, module in model.named_modules() if any(module is layer for layer in last))
