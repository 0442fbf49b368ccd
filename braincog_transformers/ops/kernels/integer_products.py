"""Convolutions of spikes in integers of 8 bits: closer to the exact sum than float32, and up to three times as fast
where a processor has units for them.

A weight becomes a fixed-point number of 24 bits with one scale for each output channel, written in three digits of 8
bits: w = scale (65536 high + 256 middle + low), off by at most 2^-23 of the channel's largest weight. Spikes, their
sums and counts of events are whole numbers up to 255, so that the three convolutions with the digits are sums of whole
numbers, which 32 bits hold without rounding; only putting the three together rounds.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import register_flop_formula
from torch.utils.weak import WeakTensorKeyDictionary

from ...runtime.compiler import compiled, compiler_works
from ...runtime.packing import whole_numbers
from ...runtime.processor import has_units
from ...runtime.watching import watched

__all__ = ["UNITS", "in_integers"]

# A little below the largest number of three digits from -128 to 127, since the division rounds.
LARGEST = 8_355_000
# Products of 255 and -128 that 32 bits can add up.
MOST_PRODUCTS = 2**31 // (255 * 128)
# Where a weight stays only its own size decides, so that a product is the same in a batch of any size.
MIN_WEIGHTS = 1 << 15
# In training digits serve for one step: rows or pixels that each meets, by the weight's axes, and multiplications from
# which that pays.
MIN_ROWS = {2: 4096, 4: 2048}
MIN_PRODUCTS = 1 << 27


UNITS = has_units("amx_int8")


@functools.cache
def _adds_exactly() -> bool:
    """Try the largest products: where the units are switched off (ONEDNN_MAX_CPU_ISA), pairs of them saturate."""
    weight, rows = torch.ones(16, 64), torch.full((64, 64), 255, dtype=torch.uint8)
    with torch.no_grad():
        found = [
            _multiply_digits(rows, weight, None, False),
            _convolve_digits(rows.view(1, 8, 8, 64).movedim(3, 1), weight[..., None, None], None, _ONE_PIXEL, False),
        ]
    return all(torch.allclose(sums, torch.tensor(255.0 * 64), rtol=1e-6) for sums in found)


# stride, padding, dilation
_ONE_PIXEL = ([1, 1], [0, 0], [1, 1])
# PyTorch 2.6 can't tell an export, which must not meet an operation of ours, from a compilation
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def _readable(x: Tensor) -> bool:
    """Tell whether an input may be multiplied in integers, by all but its size and numbers.

    In a compiled training step the plain products are better, since the compiler would compute these twice to save
    memory.
    """
    if not UNITS or x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling():
        return not torch.is_grad_enabled() and not _is_exporting()
    return type(x) is Tensor and not watched()


def applies(x: Tensor, weight: Tensor) -> bool:
    """Tell whether integers can pay for this input `(B, C, H, W)` or `(..., C)` and weight, which must be dense.

    While a network is compiled its sizes are not asked for: the operation itself does that.
    """
    if not _readable(x) or weight.dtype != torch.float32:
        return False
    plain = type(weight) in (Tensor, nn.Parameter)
    return torch.compiler.is_compiling() or (plain and _pays(x, weight, _stays(weight)))


def _stays(weight: Tensor) -> bool:
    """Tell whether no training step changes the weight before the next call."""
    return not (weight.requires_grad and torch.is_grad_enabled())


def _pays(x: Tensor, weight: Tensor, stays: bool) -> bool:
    rows, products = x.numel() // weight.shape[1], weight[0].numel()
    many = rows >= MIN_ROWS[weight.dim()] and rows * weight.numel() >= MIN_PRODUCTS
    return (weight.numel() >= MIN_WEIGHTS if stays else many) and products < MOST_PRODUCTS and _adds_exactly()


def _kernel(function: Callable) -> Callable:
    return compiled(function) if compiler_works("cpu") else function


def _digits(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return low, middle and high digits of `(N, K)` and the scale of each row."""
    scale = weight.abs().amax(1).clamp(min=1e-30) / LARGEST
    whole = (weight / scale[:, None]).round().to(torch.int32)
    low = ((whole + 128) & 255) - 128
    rest = (whole - low) >> 8
    middle = ((rest + 128) & 255) - 128
    high = (rest - middle) >> 8
    return low.to(torch.int8), middle.to(torch.int8), high.to(torch.int8), scale


@dataclass(frozen=True)
class _Written:
    """A weight in digits.

    Args:
        layouts: low, middle and high digits as the processor wants them.
        scale: `(N,)`.
        setting: what they were laid out for.
        weight: what they were made of; a change through `.data` leaves no other trace.
    """

    layouts: list[Tensor]
    scale: Tensor
    setting: tuple
    weight: Tensor | None


_written: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _write(weight: Tensor, setting: tuple, lay_out: Callable[[Tensor], Tensor], stays: bool) -> _Written:
    """Write a weight in digits, and keep them for the next call if it stays as it is."""
    found = _written.get(weight)
    if found is not None and found.setting == setting and torch.equal(found.weight, weight):
        return found
    # as a parameter its size would be a constant of the kernel, and a kernel is made eight times at most
    *digits, scale = _kernel(_digits)(weight.detach().flatten(1))
    layouts = [lay_out(digit.view(weight.shape)) for digit in digits]
    found = _Written(layouts, scale, setting, weight.detach().clone() if stays else None)
    if stays:
        _written[weight] = found
    else:
        _written.pop(weight, None)
    return found


def _add_up(low: Tensor, middle: Tensor, high: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Return the products `(M, N)` from those with the digits."""
    out = (high * 65536 + (middle * 256 + low)) * scale
    return out if bias is None else out + bias


def _convolve_digits(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple, stays: bool) -> Tensor:
    """Convolve bytes `(B, C, H, W)` with the digits of a weight."""
    one, zero = torch.ones(1), torch.zeros(1, dtype=torch.int64)

    def lay_out(digit: Tensor) -> Tensor:
        return torch.ops.onednn.qconv_prepack(digit, one, 1.0, 0, *geometry, 1, list(x.shape))

    written, rows = _write(weight, (x.shape, *geometry), lay_out, stays), []
    for layout in written.layouts:
        out = torch.ops.onednn.qconv2d_pointwise(
            x, 1.0, 0, layout, one, zero, None, *geometry, 1, 1.0, 0, torch.float32, "none", [], ""
        )
        rows.append(out.permute(0, 2, 3, 1).reshape(-1, len(weight)))
    shape = (len(x), *out.shape[2:], len(weight))
    bias = None if bias is None else bias.detach()
    return _kernel(_add_up)(*rows, written.scale, bias).view(shape).permute(0, 3, 1, 2)


def _multiply_digits(x: Tensor, weight: Tensor, bias: Tensor | None, stays: bool) -> Tensor:
    """Multiply bytes `(M, C)` by the digits of a weight, each product added to the one before in place."""
    zero, none, out = torch.zeros(1, dtype=torch.int64), ("none", [], ""), None
    written = _write(weight, x.shape, lambda digit: torch.ops.onednn.qlinear_prepack(digit, list(x.shape)), stays)
    for layout, factor in zip(written.layouts, (1.0, 256.0, 65536.0), strict=True):
        head, tail = (x, 1.0, 0, layout, torch.tensor([factor]), zero), (1.0, 0, torch.float32)
        if out is None:
            out = torch.ops.onednn.qlinear_pointwise(*head, None, *tail, *none)
        else:
            out = torch.ops.onednn.qlinear_pointwise.binary(*head, out, None, *tail, 1.0, 0, "sum", 1.0, *none)
    return out.mul_(written.scale) if bias is None else torch.addcmul(bias, out, written.scale)


# written out, since PyTorch 2.6 can't read it off the function
@torch.library.custom_op(
    "braincog_transformers::product",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, int[] geometry, bool stays) -> Tensor",
)
def _product(x, weight, bias, geometry, stays):
    """Multiply `(M, C)`, or convolve `(B, C, H, W)` with stride, padding and dilation in `geometry`, six numbers."""
    # of another layout the plain convolution keeps that layout, and a compiler relies on it
    dense = not geometry or x.is_contiguous(memory_format=torch.channels_last)
    integers = whole_numbers(x) if dense and _pays(x, weight, stays) else None
    if integers is None:
        return _plain(x, weight, bias, geometry)
    if geometry:
        return _convolve_digits(integers, weight, bias, _pairs(geometry), stays)
    return _multiply_digits(integers, weight, bias, stays)


def _pairs(geometry: list[int]) -> tuple[list[int], list[int], list[int]]:
    return geometry[:2], geometry[2:4], geometry[4:]


@_product.register_fake
def _plain(x, weight, bias, geometry, stays=False):
    return F.conv2d(x, weight, bias, *_pairs(geometry)) if geometry else F.linear(x, weight, bias)


def _keep(ctx, inputs, output) -> None:
    x, weight, bias, ctx.geometry, _ = inputs
    ctx.biases = None if bias is None else [len(bias)]
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad: Tensor):
    x, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:3]
    if ctx.geometry:
        geometry = (*_pairs(ctx.geometry), False, [0, 0], 1)
        grads = torch.ops.aten.convolution_backward(grad, x, weight, ctx.biases, *geometry, wanted)
    else:
        compute = (lambda: grad @ weight, lambda: grad.t() @ x, lambda: grad.sum(0))
        grads = [of() if wants else None for of, wants in zip(compute, wanted, strict=True)]
    return *grads, None, None


_product.register_autograd(_backward, setup_context=_keep)


@register_flop_formula([torch.ops.braincog_transformers.product])
def _operations(x: list[int], weight: list[int], *_, out_shape: list[int], **__) -> int:
    """Count as the plain products do: the compiler asks before it computes something twice."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


class _InIntegers(TorchFunctionMode):
    """Within it the functions that `nn.Conv2d` and `nn.Linear` call multiply in integers what they can."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.linear and len(args) == 3 and applies(*args[:2]):
            x, weight, bias = args
            return _product(x.reshape(-1, x.shape[-1]), weight, bias, [], _stays(weight)).view(*x.shape[:-1], -1)
        if function is F.conv2d and len(args) == 7 and applies(*args[:2]):
            x, weight, bias, stride, padding, dilation, groups = args
            if x.dim() == 4 and groups == 1 and not isinstance(padding, str):
                return _product(x, weight, bias, [*stride, *padding, *dilation], _stays(weight))
        return function(*args, **(kwargs or {}))


def in_integers(layer: nn.Module, x: Tensor) -> Tensor:
    """Return `layer(x)`, where its convolution or linear product is computed in integers if x is made of whole numbers
    from 0 to 255 and that pays.

    The layer is called as ever, with its hooks and with the weight that it computes with; only the product is
    exchanged.

    Args:
        layer: `nn.Conv2d`, `nn.Linear`, or what stands in their place.
        x: `(B, C, H, W)` or `(..., C)`.
    """
    if not _readable(x) or getattr(layer, "padding_mode", "zeros") != "zeros":
        return layer(x)
    with _InIntegers():
        return layer(x)
