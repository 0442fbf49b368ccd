"""Whole numbers as binary planes: an input n of a product becomes D inputs of 0 or 1, plane j being 1 if n > j.

A product is linear in each factor, so that its sum over the planes is what n gives, and a bias is added once. A neuron
that fires whole numbers (`ILIFNode`) tells `Planes`, a mode that follows single operations, what stands for one spike.
From there the mode follows the numbers through views, poolings, sums, gates. Where a product reads them, it runs once
for each plane, whatever code asks for it. Of two such factors one is unrolled, the other stays as it is.

What is no whole number of spikes stays, too: the data, potentials, averages.

Source: Yao et al., Scaling Spike-driven Transformer with Efficient Spike Firing Approximation Training (TPAMI 2025,
arXiv 2411.16061), spike-driven inference.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from ..errors import UserError
from .kernels import integer_products as integer_products  # registers an operation that is named below

__all__ = ["Planes", "Unrolled", "active", "unrolled"]

aten = torch.ops.aten


class _Rule(NamedTuple):
    """How a product is computed plane by plane.

    Args:
        operands: places of the factors that may be unrolled.
        bias: place of a bias that may be None, -1 if there is none.
        inner: for a sum of a tensor and a product: the product.
    """

    operands: tuple[int, ...]
    bias: int = -1
    inner: Any = None


_PRODUCTS = {
    aten.mm: _Rule((0, 1)),
    aten.bmm: _Rule((0, 1)),
    aten.mv: _Rule((0, 1)),
    aten.dot: _Rule((0, 1)),
    aten.addmm: _Rule((1, 2), inner=aten.mm),
    aten.baddbmm: _Rule((1, 2), inner=aten.bmm),
    aten.addmv: _Rule((1, 2), inner=aten.mv),
    aten.convolution: _Rule((0,), bias=2),
    torch.ops.braincog_transformers.product: _Rule((0,), bias=2),
    aten._fft_r2c: _Rule((0,)),
    aten._fft_c2c: _Rule((0,)),
}
# Products that PyTorch's counter of operations does not know, and that are not computed here either.
_REFUSED = {
    *(aten._trilinear, aten._int_mm, aten._scaled_dot_product_flash_attention_for_cpu),
    *(aten.mkldnn_rnn_layer, aten._cudnn_rnn, aten._thnn_fused_lstm_cell),
}
_MANY = 1 << 10
_GATE = _Rule((0, 1))
_GATES = {aten.mul, aten.mul_}
# What becomes of the worth of a spike with a number as the second factor.
_SCALED = {
    **dict.fromkeys(_GATES, lambda unit, factor: unit * factor),
    **dict.fromkeys((aten.div, aten.div_), lambda unit, divisor: unit / divisor),
}
# What only moves entries: a copy of what the spikes are worth moves along.
_MOVES = {
    *(aten.clone, aten._to_copy, aten.roll, aten.flip, aten.repeat, aten.index_select, aten.index, aten.gather),
    *(aten.cat, aten.stack, aten.constant_pad_nd),
}
_SUMS = {aten.add, aten.add_, aten.sub, aten.sub_}
_JOINED = {aten.add, aten.sub}
# Rounding errors of sums and scalings, in units of the last place of the largest whole number.
_ROUNDING = 64
_MOST_ROUNDING = 0.05


@dataclass(frozen=True)
class Unrolled:
    """What a tensor of whole numbers of spikes is.

    Args:
        counts: the whole numbers.
        unit: what one spike is worth in the tensor.
        planes: how many binary planes hold it: D, or a multiple of it for sums of several neurons.
        dtype: of the tensor.
    """

    counts: Tensor
    unit: float
    planes: int
    dtype: torch.dtype

    def plane(self, number: int) -> Tensor:
        """Return one plane, of zeros and ones."""
        return (self.counts > number).to(self.dtype)


class Planes(TorchDispatchMode):
    """The mode, for one call of a network.

    Args:
        unrolls: run products plane by plane; without it, whole numbers are only followed, for an analysis.
    """

    supports_higher_order_operators = True

    def __init__(self, unrolls: bool) -> None:
        super().__init__()
        self.unrolls = unrolls
        # by storage: what one spike may be worth in it, and the most spikes of one neuron; while the weak reference is
        # held, no other storage takes its address
        self._units: dict[int, tuple[StorageWeakRef, dict[float, int]]] = {}
        self._most = _MANY
        # by storage: the storage of what a spike is worth in each entry, where that differs
        self._worths: dict[int, tuple[StorageWeakRef, Tensor]] = {}

    def note_worth(self, fired: Tensor, unit: Tensor) -> None:
        """Tell what was fired, where a spike is not worth the same in all of the tensor.

        Args:
            fired: whole numbers times `unit`.
            unit: what one spike is worth, in a shape that fits; 0 where nothing is ever fired.
        """
        if not self.unrolls:
            self._note_worth(fired, unit)

    def _note_worth(self, x: Tensor, worth: Tensor) -> None:
        storage = x.untyped_storage()
        laid_out = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).copy_(worth)
        self._worths = {key: value for key, value in self._worths.items() if not value[0].expired()}
        self._worths[storage._cdata] = (StorageWeakRef(storage), laid_out)

    def note(self, fired: Tensor, units: dict[float, int]) -> None:
        """Tell what was fired: for what one spike may be worth in a tensor the most spikes of one neuron."""
        storage = fired.untyped_storage()
        self._units[storage._cdata] = (StorageWeakRef(storage), units)
        if len(self._units) > self._most:
            self._units = {key: value for key, value in self._units.items() if not value[0].expired()}
            self._most = max(_MANY, 2 * len(self._units))

    def unrolled(self, x: Tensor) -> Unrolled | None:
        """Return a tensor as whole numbers of spikes; None if it isn't made of those.

        They may be negative, unless products are to be computed plane by plane.
        """
        if not x.numel() or not _has_memory(x) or (x.is_complex() and x.imag.any()):
            return None
        values = x.real if x.is_complex() else x
        if (worth := self._worth_of(x)) is not None:
            found = _whole(torch.where(worth == 0, values, values / worth))
            return found and Unrolled(found[0], math.nan, max(1, int(max(found[2], -found[1]))), x.dtype)
        for unit, levels in sorted(self._units_of(x).items(), reverse=True):
            if (found := _whole(values / unit)) is None:
                continue
            counts, low, high = found
            if low >= 0 or not self.unrolls:
                return Unrolled(counts, unit, levels * max(1, math.ceil(max(high, -low) / levels)), x.dtype)
        return None

    def _worth_of(self, x: Any) -> Tensor | None:
        """Return what one spike is worth in each entry of a tensor, if that differs and is known."""
        if not self._worths or not _has_memory(x):
            return None
        worth = self._worths.get(x.untyped_storage()._cdata, (None, None))[1]
        if worth is None or worth.untyped_storage().nbytes() != x.untyped_storage().nbytes():
            return None
        return worth.as_strided(x.shape, x.stride(), x.storage_offset())

    def planes_of(self, func: Any, args: tuple) -> int:
        """Return how many planes an operation is computed in: 1 for what is no product of whole numbers of spikes."""
        rule = _PRODUCTS.get(getattr(func, "_overloadpacket", func)) if self.unrolls else None
        chosen = rule and self._chosen(rule, args)
        return chosen[1].planes if chosen else 1

    def _units_of(self, x: Any) -> dict[float, int]:
        if not _has_memory(x):
            return {}
        return self._units.get(x.untyped_storage()._cdata, (None, {}))[1]

    def _chosen(self, rule: _Rule, args: tuple) -> tuple[int, Unrolled] | None:
        """Return the place of the factor that is unrolled, the one with fewer planes, and what it is."""
        found = [(place, spikes) for place in rule.operands if (spikes := self.unrolled(args[place])) is not None]
        return min(found, key=lambda one: one[1].planes, default=None)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, packet = kwargs or {}, getattr(func, "_overloadpacket", func)
        rule = _PRODUCTS.get(packet)
        if packet in _GATES:
            return self._gate(func, packet, args, kwargs)
        if rule is None and packet not in flop_registry and packet not in _REFUSED:
            if func is not torch.ops.prim.device.default and hasattr(func, "decompose"):
                with self:  # in inference mode operations come here whole
                    out = func.decompose(*args, **kwargs)
                if out is not NotImplemented:
                    return out
            return self._followed(packet, args, kwargs, func(*args, **kwargs))
        if self.unrolls and rule is None and any(self.unrolled(x) is not None for x in args if isinstance(x, Tensor)):
            raise UserError(
                f"spiking inference: {packet} of whole numbers of spikes can't be computed in binary planes; write it "
                "with matmul, linear, convolution or einsum, or call set_spiking_inference(False)"
            )
        chosen = self._chosen(rule, args) if self.unrolls and rule else None
        out = self._by_planes(func, rule, args, kwargs, *chosen) if chosen else func(*args, **kwargs)
        self._forget(out)
        return out

    def _gate(self, func: Any, packet: Any, args: tuple, kwargs: dict) -> Tensor:
        """Multiply element by element, plane by plane where both factors are tensors."""
        tensors = self.unrolls and packet is aten.mul and all(isinstance(x, Tensor) and x.dim() for x in args)
        chosen = self._chosen(_GATE, args) if tensors else None
        out = self._by_planes(func, _GATE, args, kwargs, *chosen) if chosen else func(*args, **kwargs)
        return self._followed(packet, args, kwargs, out)

    def _by_planes(self, func: Any, rule: _Rule, args: tuple, kwargs: dict, place: int, spikes: Unrolled) -> Tensor:
        function, bias, given = func, None, list(args)
        if rule.inner is not None:
            function = rule.inner.default
        elif rule.bias >= 0:
            bias, given[rule.bias] = given[rule.bias], None
        total: Any = 0
        for number in range(spikes.planes):
            given[place] = spikes.plane(number)
            total = total + (function(*given[1:]) if rule.inner is not None else function(*given, **kwargs))
        total = total * spikes.unit
        if rule.inner is not None:
            return kwargs.get("beta", 1) * args[0] + kwargs.get("alpha", 1) * total
        if bias is None:
            return total
        return total + (bias.view(-1, *[1] * (total.dim() - 2)) if total.dim() > 2 else bias)

    def _forget(self, out: Any) -> None:
        for result in filter(_has_memory, tree_leaves(out)):
            for known in (self._units, self._worths):
                known.pop(result.untyped_storage()._cdata, None)

    def _followed(self, packet: Any, args: tuple, kwargs: dict, out: Any) -> Any:
        """Note what an operation that is no product makes of whole numbers."""
        if self._worths:
            self._follow_worth(packet, args, kwargs, out)
        sources = [units for x in tree_leaves((args, kwargs)) if (units := self._units_of(x))]
        if not sources:
            return out
        factor = _number(args[1]) if packet in _SCALED else None
        if packet in _GATES and len(sources) == 2:
            first, second = sources
            units = {a * b: m * n for a, m in first.items() for b, n in second.items()}
        elif factor:
            units = {abs(_SCALED[packet](unit, factor)): levels for unit, levels in sources[0].items()}
        else:
            units = {unit: levels for source in sources for unit, levels in source.items()}
        for result in filter(_has_memory, tree_leaves(out)):
            if result.is_floating_point() or result.is_complex():
                self.note(result, units)
        return out

    def _follow_worth(self, packet: Any, args: tuple, kwargs: dict, out: Any) -> None:
        """Note what becomes of what the spikes of a tensor are worth, entry by entry; views share it anyway."""
        worths = [self._worth_of(x) for x in tree_leaves(args) if _is_real(x)]
        if not worths or any(worth is None for worth in worths) or not _has_memory(out):
            return
        first, *others = worths
        if packet in _SCALED and (factor := _number(args[1])):
            self._note_worth(out, _SCALED[packet](first, abs(factor)))
        elif packet in _SUMS and all(first.shape == other.shape and first.equal(other) for other in others):
            self._note_worth(out, first)
        elif packet in _JOINED and _is_real(args[0]) and _is_real(args[1]):
            # what reads the sum, and is linear, reads the spikes of both
            counts = sum(_counted(x, worth) for x, worth in zip(args[:2], worths, strict=True))
            self._note_worth(out, torch.where(counts == 0, 0.0, out.abs() / counts))
        elif packet in _MOVES:
            given = iter(worths)
            self._note_worth(out, packet(*tree_map(lambda x: next(given) if _is_real(x) else x, args), **kwargs))


def _has_memory(x: Any) -> bool:
    return isinstance(x, Tensor) and x.layout == torch.strided


def _is_real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() > 0 and x.is_floating_point()


def _counted(x: Tensor, worth: Tensor) -> Tensor:
    """Return how many spikes, of either sign, each entry is."""
    return torch.where(worth == 0, 0.0, x / worth).abs().round()


def _number(x: Any) -> float:
    """Return a factor as a number; 0 for what is none."""
    if isinstance(x, Tensor):
        return float(x) if x.dim() == 0 and not x.is_complex() else 0.0
    return float(x) if isinstance(x, int | float) else 0.0


def _whole(values: Tensor) -> tuple[Tensor, float, float] | None:
    """Return whole numbers with their smallest and largest; None if these are others."""
    whole = values.round()
    low, high = (float(end) for end in torch.aminmax(whole))
    largest, eps = max(high, -low, 1.0), torch.finfo(values.dtype).eps
    if not math.isfinite(largest):
        return None
    tolerance = (8 * eps * whole.abs()).clamp(min=max(8 * eps, min(_ROUNDING * eps * largest, _MOST_ROUNDING)))
    return None if ((values - whole).abs() > tolerance).any() else (whole, low, high)


def active() -> Planes | None:
    """Return the innermost mode that is on."""
    if torch._C._len_torch_dispatch_stack() == 0:
        return None
    modes = _get_current_dispatch_mode_stack()
    return next((mode for mode in reversed(modes) if isinstance(mode, Planes)), None)


def unrolled(x: Tensor) -> Unrolled | None:
    """Return a tensor as whole numbers of spikes, if such a mode is on and knows it as such."""
    mode = active()
    return None if mode is None else mode.unrolled(x)
