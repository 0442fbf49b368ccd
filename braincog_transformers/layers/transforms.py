"""Linear transforms without weights that mix tokens, as modules, so that an analysis can count them.

Each maps tokens `(T*B, N, C)` to the same shape, every step and sample by itself. All are orthonormal.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["FixedTransform", "FourierTransform", "HaarTransform"]


class FixedTransform(nn.Module):
    """Base of the transforms.

    Args:
        channels: transform the channels, too, behind the tokens.

    Attributes:
        multiplies: whether it multiplies numbers of its own, which are real whatever comes in.
    """

    multiplies: bool

    def __init__(self, channels: bool = False):
        super().__init__()
        self.dims = (-2, -1) if channels else (-2,)

    @abstractmethod
    def macs(self, x: Tensor) -> float:
        """Return the multiply-accumulates, or additions, of a fast algorithm on the input."""

    def extra_repr(self) -> str:
        return "tokens and channels" if len(self.dims) == 2 else "tokens"


class FourierTransform(FixedTransform):
    """Real part of the discrete Fourier transform: `Re(F_N X)` or `Re(F_N X F_C)`."""

    multiplies = True

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, N, C)` to the same shape."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # PyTorch has no transform of 16-bit numbers
        return torch.fft.fftn(wide, dim=self.dims, norm="ortho").real.to(x.dtype)

    def macs(self, x: Tensor) -> float:
        """Return n log2(n) for n real numbers: n/2 log2(n) butterflies of four multiplications, half of them spared,
        since the input is real."""
        return x.numel() * math.log2(math.prod(x.shape[dim] for dim in self.dims))


class HaarTransform(FixedTransform):
    """One level of the Haar wavelet: sums of neighbours, then their differences: `W_N X` or `W_N X W_C^T`.

    The sides must be even.
    """

    multiplies = False

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, N, C)` to the same shape."""
        for dim in self.dims:
            even, odd = x.unflatten(dim, (-1, 2)).unbind(dim)
            x = torch.cat([even + odd, even - odd], dim)
        return x * 2 ** (-len(self.dims) / 2)

    def macs(self, x: Tensor) -> float:
        """Return two for each number and side: a filter of two taps."""
        return 2 * x.numel() * len(self.dims)
