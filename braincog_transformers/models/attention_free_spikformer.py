"""Attention-free Spikformer: a reconstruction.

Wang, Zhang, Zhang, Xu: Attention-free Spikformer: Mixing Spike Sequences with Simple Linear Transforms. arXiv
2308.02557. No code was published. New over Spikformer: a Fourier or wavelet transform without weights mixes the tokens
in the place of self-attention.

The paper fixes this and no more. What is chosen here, and why, stands in docs/reconstructions.md: one batch
normalisation and one neuron behind the transform, nothing else of the attention; the real part of the Fourier
transform; one level of the Haar wavelet; the two bases of `dwt_c`.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..layers import (
    Block,
    FourierTransform,
    HaarTransform,
    MakeNode,
    SpikingMLP,
    SpikingPatchSplitting,
    fire_after,
    foldable,
)
from .flat import FlatTransformer
from .registry import Paper, Variant, cfg, cifar, events, register

__all__ = ["AttentionFreeSpikformer"]


class LearnedCombination(nn.Module):
    """Sum of transforms of one input, each times a learned number that begins at 1 over how many they are."""

    def __init__(self, *transforms: nn.Module):
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        self.weights = nn.Parameter(torch.full((len(transforms),), 1 / len(transforms)))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, N, C)` to the same shape."""
        return sum(weight * transform(x) for weight, transform in zip(self.weights, self.transforms, strict=True))


_MIXINGS = {
    "fft1d": FourierTransform,
    "fft2d": lambda: FourierTransform(channels=True),
    "haar1d": HaarTransform,
    "haar2d": lambda: HaarTransform(channels=True),
    "dwt_c": lambda: LearnedCombination(HaarTransform(channels=True), FourierTransform(channels=True)),
}


class ChannelAffine(nn.Module):
    """What a batch normalisation is in evaluation: a factor and an offset for each channel, `(..., C)`."""

    def __init__(self, bn: nn.BatchNorm1d):
        super().__init__()
        factor = bn.weight * (bn.running_var + bn.eps).rsqrt()
        self.weight = nn.Parameter(factor.detach())
        self.bias = nn.Parameter((bn.bias - bn.running_mean * factor).detach())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class TransformMixing(nn.Module):
    """`node(BatchNorm(Mix(x)))`: what takes the place of self-attention.

    Args:
        dim: width C of the tokens.
        mix: the transform.
        node: constructor of the neuron.
    """

    def __init__(self, dim: int, mix: nn.Module, *, node: MakeNode):
        super().__init__()
        self.mix = mix
        self.bn = nn.BatchNorm1d(dim)
        self.node = node()

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to spikes of the same shape."""
        return fire_after(self.node, self.bn, self.mix(x))

    def fuse(self) -> "TransformMixing":
        """Put the factor and offset of each channel in the normalisation's place; no layer in front has weights."""
        if isinstance(self.bn, nn.BatchNorm1d) and foldable(self.bn):
            self.bn = ChannelAffine(self.bn)
        return self


class AttentionFreeSpikformer(FlatTransformer):
    """Spikformer with a linear transform in the place of its attention; there are no heads.

    Args:
        mixing: "fft1d", the real part of the Fourier transform along the tokens; "fft2d", along tokens and channels;
            "haar1d" and "haar2d", likewise one level of the Haar wavelet, which needs an even number of tokens;
            "dwt_c", a learned combination of the two along tokens and channels.
        **flat: patch_size, embed_dim, depth, mlp_ratio, drop_path_rate, see `FlatTransformer`, and those of
            `SpikingTransformer`.
    """

    status = "reconstruction"

    def __init__(self, *, mixing: Literal["fft1d", "fft2d", "haar1d", "haar2d", "dwt_c"] = "fft1d", **flat: Any):
        if "num_heads" in flat:
            raise UserError(f"{type(self).__name__} has no heads; got num_heads={flat['num_heads']} (leave it out)")
        self.mixing = mixing
        super().__init__(num_heads=1, **flat)

    def _stem(self) -> nn.Module:
        return self._build_stem(SpikingPatchSplitting, pool="after")

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        dim, node = self.embed_dim, self._neuron()
        mixing = TransformMixing(dim, _MIXINGS[self.mixing](), node=node)
        return Block(mixing, SpikingMLP(dim, self.mlp_ratio, node=node), drop_path)

    def _layout(self) -> tuple[int, int]:
        """Return height and width of the map of tokens; raise `UserError` for an odd number of tokens that a wavelet
        can't pair."""
        height, width = super()._layout()
        if height * width % 2 and self.mixing in ("haar1d", "haar2d", "dwt_c"):
            raise UserError(
                f"{type(self).__name__}: mixing={self.mixing!r} pairs tokens, whose number must be even; got "
                f"img_size={self.img_size}, patch_size={self.patch_size}, so {height}x{width}={height * width} tokens "
                "(another img_size, or mixing='fft1d')"
            )
        return height, width


_PAPER = Paper("Attention-free Spikformer", "arXiv 2023", "arXiv:2308.02557", "")
_DIGITS, _DVS = {"depth": 2, "embed_dim": 64}, {"depth": 2, "embed_dim": 256, "step": 16}
register(
    AttentionFreeSpikformer,
    {
        "attention_free_spikformer_digits": Variant({**_DIGITS, "patch_size": 1}, {"": cfg(_PAPER, (1, 8, 8), 10)}),
        "attention_free_spikformer_ndigits": Variant(
            {**_DIGITS, "patch_size": 2, "step": 4}, {"": cfg(_PAPER, (2, 16, 16), 10)}
        ),
        "attention_free_spikformer_4_384_cifar": Variant(
            {"depth": 4, "embed_dim": 384, "patch_size": 4}, cifar(_PAPER, "", "")
        ),
        "attention_free_spikformer_2_256_dvs": Variant(_DVS, events(_PAPER, "", "")),
    },
    first_conv="patch_embed.stages.0.conv",
)
