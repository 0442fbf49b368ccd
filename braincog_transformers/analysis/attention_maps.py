"""Maps of what a network attends to, seen from outside by hooks on the products that attention is made of.

Spiking attention has no softmax, so there is mostly no distribution to show. Each kind of attention has a map of its
own, and each map says in `what` which one it is:

- `SpikingProduct` (Spikformer, Spikingformer, TIM, SGLFormer, the last stages of QKFormer, SDT V2): the attention that
  each place receives, the mean over the queries of Q K^T, computed as `K (sum of q_i) / N` without the N x N matrix.
- `DenoisedProduct` (DISTA): the same, without the entries that it removes.
- `SpikeSum` over tokens (SDT): the firing rate over channels of K * V, which fires the gates, and of the query behind
  the gates; the latter is the map that the paper shows (Yao et al., arXiv 2307.01694).
- `SpikeSum` over channels (QKFormer's token attention): the mask that fires at each token, and the firing rate of the
  keys that it lets through.
- `SpikeMatmul` (SpikingResformer): the spikes of the attention map, averaged over the queries, at the places of the
  pooled grid.
- `AttentionMatmul` (STS-Transformer): the attention that each place receives from the queries of a step, the mean over
  those of Q K^T plus its position bias, summed over the steps up to theirs.
- `GatedSum` (OST): the keys, which say how often each place's value is summed, and the queries, which say where the sum
  goes; both for the single step of its blocks.
- `SoftmaxProduct` (Spikeformer): the share of attention that each place receives, the mean over the queries; it adds up
  to 1. Attention between the steps of a place has no map.
- `HammingProduct` (the pose transformer): the same of each place at each step, the mean over the queries of all steps.
- `ExplicitAttention` and timm's `Attention` (converted networks): the weights that each place receives, the mean over
  the queries; where only changes leave the softmax, those so far added up. Attention within windows (Swin) has no map.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from einops import rearrange
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from ..conversion.attention import ExplicitAttention
from ..conversion.converted import Converted
from ..conversion.increments import IncrementalProduct
from ..layers.products import (
    AttentionMatmul,
    DenoisedProduct,
    GatedSum,
    HammingProduct,
    SoftmaxProduct,
    SpikeMatmul,
    SpikeSum,
    SpikingProduct,
)
from ..runtime.batch import Batch
from .recorder import all_steps, device_of, frozen_inference, pictured, unwrap

__all__ = ["AttentionMap", "attention_maps", "received"]


@dataclass(frozen=True)
class AttentionMap:
    """One map of one attention, for one sample.

    Attributes:
        name: the attention's name in `model.named_modules()`.
        label: the map's name in formulas, for a picture.
        values: `(T, heads or 1, h, w)`, float32.
        what: what the values are, in a sentence without its full stop.
    """

    name: str
    label: str
    values: np.ndarray
    what: str


Shown = tuple[tuple[str, str], nn.Module, Callable]
"""What a map is, the module whose values it shows, and how to get them from the module's inputs and output."""

PRODUCT = "$QK^T$", "attention that each place receives: $QK^T$ without softmax, mean over the queries"
DENOISED = "denoised $QK^T$", "attention that each place receives: large entries of $QK^T$, mean over the queries"
SHARE = "softmax $QK^T$", "share of attention that each place receives, mean over the queries"
AGREEMENT = "softmax $1 - D$", "share of attention that each place receives, mean over the queries of all steps"
PAIRS = "$K \\odot V$", "spikes that key and value share, mean over channels; their sum over places fires the gates"
GATED = "gated $Q$", "spikes of the query that the gates let through, mean over channels"
MASK = "mask", "spikes of the token mask: which places Q-K attention lets through"
MASKED = "masked $K$", "spikes of the key behind the token mask, mean over channels"
KEYS = "$K$", "spikes of the key, mean over channels: which places' values are summed"
QUERIES = "$Q$", "spikes of the query, mean over channels: which places read the sum"
DUAL = "spike map", "spikes of the attention map, mean over the queries, at the places of the pooled grid"
WEIGHTS = "weights", "attention weights that each place receives, mean over the queries"
SUMMED = "weights", "attention weights that each place receives, mean over the queries, sum over steps so far"
BIASED = "$QK^T + B$", "attention that each place receives: $QK^T + B$, mean over the queries, sum over steps so far"


def received(q: Tensor, k: Tensor) -> Tensor:
    """Return the attention each place receives: the mean over the queries i of `q_i . k_j`.

    Args:
        q, k: `(..., N, d)`.

    Returns:
        `(..., N)`.
    """
    return (k.float() @ q.float().mean(-2).unsqueeze(-1)).squeeze(-1)


@dataclass
class _Seen:
    """What the hooks see: the grids of the convolutions so far, and maps `(T, heads, h, w)` in parts."""

    grids: list[tuple[int, int]] = field(default_factory=list)
    parts: dict[tuple[str, str, str], list[Tensor]] = field(default_factory=dict)

    def note_grid(self, _module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        self.grids.append(tuple(output.shape[-2:]))

    def add(
        self, name: str, kind: tuple[str, str], values: Callable, heads: int | None,
        _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor,
    ) -> None:  # fmt: skip
        """Place values `(T*B, heads, N)` on the latest grid of N places; without one there is no map.

        With sub-grids the heads are `(i j heads)` and the places those of rows y*n + i and columns x*n + j.
        """
        found = values(inputs, output)
        sub_grids = max(1, found.shape[1] // heads) if heads else 1  # a map of no head is one
        side, places = round(sub_grids**0.5), found.shape[-1] * sub_grids
        grid = next((grid for grid in reversed(self.grids) if grid[0] * grid[1] == places), None)
        if grid is not None:
            shape = {"i": side, "j": side, "y": grid[0] // side, "x": grid[1] // side}
            maps = rearrange(found, "t (i j h) (y x) -> t h (y i) (x j)", **shape)
            self.parts.setdefault((name, *kind), []).append(maps.detach().float().cpu())


def _rate(inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    """Return the firing rate over channels of tokens `(T*B, N, C)` that go in."""
    return _over_channels(inputs[0])


def _over_channels(tokens: Tensor) -> Tensor:
    return tokens.float().mean(-1).unsqueeze(1)


def _by_place(attention: Tensor) -> Tensor:
    """Map attention `(B, h, N, s*N)` of the queries of a step to what each place receives, `(B, h, N)`."""
    return attention.float().mean(-2).unflatten(-1, (-1, attention.shape[-2])).sum(-2)


def _by_step(attention: Tensor, step: int) -> Tensor:
    """Map attention `(B, h, T*N, T*N)` between all steps to what each place receives, `(T*B, h, N)`."""
    return rearrange(attention.float().mean(-2), "b h (t n) -> (t b) h n", t=step)


def _shown(attention: nn.Module, product: nn.Module, others: int) -> Iterator[Shown]:
    """Yield the maps that a product stands for: what each is, a module, and a function of its inputs and output.

    The function returns values `(T*B, heads, N)`. A subclass of a product may compute anything, so it has no map.

    Args:
        others: number of tokens in front of those that have a place.
    """
    if isinstance(attention, ExplicitAttention):
        if product is attention.context and not attention.window_area:
            yield from _weights(product, others)
        return
    if type(attention) is Attention:
        if product is attention.qkv:
            yield WEIGHTS, attention, lambda inputs, _output: _softmax(attention, inputs[0]).mean(-2)[..., others:]
        return
    if type(product) is SpikingProduct:
        yield PRODUCT, product, lambda inputs, _output: received(*inputs[:2])
    elif type(product) is DenoisedProduct:
        yield DENOISED, product, lambda inputs, _output: product.denoised(*inputs[:2]).float().mean(-2)
    elif type(product) is AttentionMatmul:
        yield BIASED, product, lambda inputs, _output: _by_place(inputs[0])
    elif type(product) is SoftmaxProduct:
        yield SHARE, product, lambda inputs, _output: product.weights(*inputs[:2]).mean(-2)
    elif type(product) is HammingProduct:
        yield AGREEMENT, product, lambda inputs, _output: _by_step(product.weights(*inputs[:2]), attention.step)
    elif type(product) is SpikeMatmul:
        # the first of two makes the map, the last one reads it
        if product is [module for module in attention.children() if isinstance(module, SpikeMatmul)][-1]:
            yield DUAL, product, lambda inputs, _output: inputs[1].float().mean(-1)
    elif type(product) is GatedSum:
        yield KEYS, attention.k, lambda _inputs, output: _over_channels(output)
        yield QUERIES, attention.q, lambda _inputs, output: _over_channels(output)
    elif type(product) is SpikeSum and product.dim == -1:
        yield MASK, attention.attn_node, lambda _inputs, output: output.transpose(1, 2)
        yield MASKED, attention.proj, _rate
    elif type(product) is SpikeSum:
        yield PAIRS, product, _rate
        yield GATED, attention.proj, _rate


def _weights(product: nn.Module, others: int) -> Iterator[Shown]:
    """Yield the map of an attention whose weights are the first factor of a product."""
    if isinstance(product, IncrementalProduct):
        yield SUMMED, product, lambda _inputs, _output: product.sums[0].float().mean(-2)[..., others:]
    else:
        yield WEIGHTS, product, lambda inputs, _output: inputs[0].float().mean(-2)[..., others:]


def _softmax(attention: Attention, x: Tensor) -> Tensor:
    """Return the weights of timm's attention, which its fused kernel does not, `(B, h, N, N)`."""
    qkv = nn.functional.linear(x, attention.qkv.weight, attention.qkv.bias)
    q, k, _ = qkv.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(q), attention.k_norm(k)
    return (q.float() * attention.scale @ k.float().transpose(-2, -1)).softmax(-1)


def attention_maps(model: nn.Module, x: Tensor | Batch) -> list[AttentionMap]:
    """Return the attention maps of the first sample, in evaluation mode, in the order of execution.

    Args:
        model: a network whose attention is made of `layers.products`, or a converted one; it is left as it was.
        x: images `(B, C, H, W)`, event frames `(B, T, C, H, W)`, or a batch of several tensors.

    Returns:
        No map for sequences without height and width, for a network without such attention, and for an attention
        whose tokens are not the places of any convolution's output.
    """
    shown = pictured(x)
    if shown.dim() < 4 or shown.shape[-2] == 1:
        return []
    inner, seen = unwrap(model), _Seen()
    others = getattr(inner.network, "num_prefix_tokens", 0) if isinstance(inner, Converted) else 0
    with all_steps(inner), frozen_inference(inner), ExitStack() as stack:
        for name, module in inner.named_modules():
            if isinstance(module, nn.Conv2d):
                stack.callback(module.register_forward_hook(seen.note_grid).remove)
            for child in module.children():
                for kind, shown, values in _shown(module, child, others):
                    hook = partial(seen.add, name, kind, values, getattr(module, "num_heads", None))
                    stack.callback(shown.register_forward_hook(hook).remove)
        inner(x[:1].to(device_of(inner)))
    return [AttentionMap(name, label, torch.cat(parts).numpy(), what)
            for (name, label, what), parts in seen.parts.items()]  # fmt: skip
