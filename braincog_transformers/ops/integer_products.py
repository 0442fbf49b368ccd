"""Convolutions of spikes in integers of 8 bits: closer to the exact sum than float32, and several times as fast where a
processor has units for them.

A weight becomes a fixed-point number of 24 bits with one scale for each output channel, written in three digits of 8
bits: w = scale (65536 high + 256 middle + low), off by at most 2^-23 of the channel's largest weight. Spikes, their
sums and counts of events are whole numbers up to 255, so that the three convolutions with the digits are sums of whole
numbers, which 32 bits hold without rounding; only the last three additions round.
"""

import functools
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from .compiler import compiled, compiler_works
from .packing import whole_numbers

__all__ = ["applies", "convolve", "linear"]

# A little below the largest number of three digits from -128 to 127, since the division rounds.
LARGEST = 8_355_000
# Products of 255 and -128 that 32 bits can add up.
MOST_PRODUCTS = 2**31 // (255 * 128)
# Below this many outputs for each weight, writing the weight in digits takes what it saves.
MIN_ROWS = 512
MIN_PRODUCTS = 1 << 28


def _has_units() -> bool:
    """Tell whether the processor has units for matrices of 8-bit integers, as Linux names them."""
    source = Path("/proc/cpuinfo")
    flags = source.read_text(encoding="utf-8").partition("\n\n")[0].split() if source.is_file() else ()
    return "amx_int8" in flags


UNITS = _has_units()


@functools.cache
def _adds_exactly() -> bool:
    """Try the largest products: where the units are switched off (ONEDNN_MAX_CPU_ISA), pairs of them saturate."""
    x, weight = torch.full((1, 64, 8, 8), 255, dtype=torch.uint8), torch.ones(16, 64, 1, 1)
    with torch.no_grad():
        found = _sum_digits(x.to(memory_format=torch.channels_last), weight, None, ([1, 1], [0, 0], [1, 1]))
    return torch.allclose(found, torch.tensor(255.0 * 64), rtol=1e-6)


# PyTorch 2.6 can't tell an export, which must not meet an operation of ours, from a compilation
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def applies(x: Tensor, weight: Tensor) -> bool:
    """Tell whether integers can pay for this input `(B, C, H, W)` or `(..., C)` and weight, which must be dense.

    While a network is compiled its sizes are not asked for: the operation itself does that. In a compiled training
    step the plain products are better, since the compiler would compute these twice to save memory.
    """
    if not UNITS or torch.jit.is_tracing() or x.device.type != "cpu":
        return False
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling():
        return not torch.is_grad_enabled() and not _is_exporting()
    return type(x) is Tensor and _pays(x, weight)


def _pays(x: Tensor, weight: Tensor) -> bool:
    rows, products = x.numel() // weight.shape[1], weight[0].numel()
    many = rows >= MIN_ROWS and rows * weight.numel() >= MIN_PRODUCTS
    return many and products < MOST_PRODUCTS and _adds_exactly()


def _digits(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return high, middle and low digits of `(N, K)` and the scale of each row."""
    scale = weight.abs().amax(1).clamp(min=1e-30) / LARGEST
    whole = (weight / scale[:, None]).round().to(torch.int32)
    low = ((whole + 128) & 255) - 128
    rest = (whole - low) >> 8
    middle = ((rest + 128) & 255) - 128
    high = (rest - middle) >> 8
    return high.to(torch.int8), middle.to(torch.int8), low.to(torch.int8), scale


def _sum_digits(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple) -> Tensor:
    """Convolve bytes `(B, C, H, W)` with the digits of a weight, the smallest first."""
    rows = weight.flatten(1)
    high, middle, low, scale = (compiled(_digits) if compiler_works("cpu") else _digits)(rows)
    zeros, out = torch.zeros(len(weight), dtype=torch.int64), None
    for digit, factor in ((low, 1), (middle, 256), (high, 65536)):
        digit, scales = digit.view(*weight.shape, *[1] * (4 - weight.dim())), scale * factor
        layout = torch.ops.onednn.qconv_prepack(digit, scales, 1.0, 0, *geometry, 1, list(x.shape))
        head = (x, 1.0, 0, layout, scales, zeros)
        if out is None:
            out = torch.ops.onednn.qconv2d_pointwise(
                *head, bias, *geometry, 1, 1.0, 0, torch.float32, "none", [], ""
            )
        else:
            out = torch.ops.onednn.qconv2d_pointwise.binary(
                *head, out, None, *geometry, 1, 1.0, 0, torch.float32, 1.0, 0, "sum", 1.0, "none", [], ""
            )
    return out


_PRODUCT = "Tensor x, Tensor weight, Tensor? bias"  # written out, since PyTorch 2.6 can't read it off the functions
_GEOMETRY = "int[] stride, int[] padding, int[] dilation"


@torch.library.custom_op(
    "braincog_transformers::convolve", mutates_args=(), schema=f"({_PRODUCT}, {_GEOMETRY}) -> Tensor"
)
def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    integers = whole_numbers(x) if _pays(x, weight) else None
    if integers is None:
        return F.conv2d(x, weight, bias, stride, padding, dilation)
    return _sum_digits(integers, weight, bias, (stride, padding, dilation))


@_convolve.register_fake
def _(x, weight, bias, stride, padding, dilation):
    return F.conv2d(x, weight, bias, stride, padding, dilation)


def _keep(ctx, inputs, output) -> None:
    x, weight, bias, *ctx.geometry = inputs
    ctx.biases = None if bias is None else [len(bias)]
    ctx.save_for_backward(x, weight)


def _convolve_backward(ctx, grad: Tensor):
    x, weight = ctx.saved_tensors
    grads = torch.ops.aten.convolution_backward(
        grad, x, weight, ctx.biases, *ctx.geometry, False, [0, 0], 1, ctx.needs_input_grad[:3]
    )
    return *grads, None, None, None


_convolve.register_autograd(_convolve_backward, setup_context=_keep)


@torch.library.custom_op("braincog_transformers::multiply", mutates_args=(), schema=f"({_PRODUCT}) -> Tensor")
def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    integers = whole_numbers(x) if _pays(x, weight) else None
    if integers is None:
        return F.linear(x, weight, bias)
    pixels = integers.view(1, len(x), 1, -1).permute(0, 3, 1, 2)  # a convolution of one pixel
    out = _sum_digits(pixels, weight, bias, ([1, 1], [0, 0], [1, 1]))
    return out.permute(0, 2, 3, 1).view(len(x), -1)


@_multiply.register_fake
def _(x, weight, bias):
    return F.linear(x, weight, bias)


def _multiply_backward(ctx, grad: Tensor):
    x, weight = ctx.saved_tensors
    wants_x, wants_weight, wants_bias = ctx.needs_input_grad
    return (
        grad @ weight if wants_x else None,
        grad.t() @ x if wants_weight else None,
        grad.sum(0) if wants_bias else None,
    )


_multiply.register_autograd(_multiply_backward, setup_context=_keep)


@register_flop_formula([torch.ops.braincog_transformers.convolve, torch.ops.braincog_transformers.multiply])
def _operations(x: list[int], weight: list[int], *_, out_shape: list[int], **__) -> int:
    """Count as the plain products do: the compiler asks before it computes something twice."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Tensor:
    """Convolve, in integers if x is made of whole numbers from 0 to 255, else in floating point numbers.

    Args:
        x: `(B, C, H, W)`, for which `applies`.
        weight: `(N, C, h, w)`.
        bias: `(N,)` or None.
        stride, padding, dilation: as of `torch.nn.functional.conv2d`.

    Returns:
        `(B, N, H', W')`, in the memory format of x.
    """
    return _convolve(x, weight, bias, list(stride), list(padding), list(dilation))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + b, in integers if x is made of whole numbers from 0 to 255, else in floating point numbers.

    Args:
        x: `(..., C)`, for which `applies`.
        weight: `(N, C)`.
        bias: `(N,)` or None.

    Returns:
        `(..., N)`.
    """
    return _multiply(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)
