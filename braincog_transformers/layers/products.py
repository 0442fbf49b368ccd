"""Products and sums that attention is made of, as modules, so that an analysis can see what enters them."""

from torch import Tensor, nn

from ..ops.attention import spiking_attention

__all__ = ["AttentionMatmul", "DenoisedProduct", "GatedSum", "HammingProduct", "SoftmaxProduct", "SpikeMatmul"]
__all__ += ["SpikeSum", "SpikingProduct"]


class SpikingProduct(nn.Module):
    """`scale * Q K^T V` without softmax, see `ops.attention`.

    Args:
        scale: constant factor.
    """

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map spikes q `(..., N, d)`, k and v `(..., M, d)` to `(..., N, d)`."""
        return spiking_attention(q, k, v, self.scale)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"


class DenoisedProduct(SpikingProduct):
    """`scale * A' V`, where A' is the map `A = Q K^T` without its entries below `least`.

    Args:
        scale: constant factor.
        least: smallest entry that is kept, as it is, and with its gradient.
    """

    def __init__(self, scale: float, least: float):
        super().__init__(scale)
        self.least = least

    def denoised(self, q: Tensor, k: Tensor) -> Tensor:
        """Return A' `(..., N, N)` for spikes q and k `(..., N, d)`."""
        entries = q @ k.transpose(-2, -1)
        return entries * (entries >= self.least)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map spikes q, k, v `(..., N, d)` to the same shape."""
        return (self.denoised(q, k) * self.scale) @ v

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, least={self.least:g}"


class SoftmaxProduct(nn.Module):
    """`softmax(scale * Q K^T) V`, attention on real numbers.

    Args:
        scale: constant factor.
    """

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Map q `(..., N, d)` and k `(..., M, d)` to the weight of each key for each query, `(..., N, M)`."""
        return (q @ k.transpose(-2, -1) * self.scale).softmax(-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map q `(..., N, d)`, k and v `(..., M, d)` to `(..., N, d)`."""
        return self.weights(q, k) @ v

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"


class HammingProduct(nn.Module):
    """`softmax(1 - D) V`, where D is the share of channels in which the spikes of query and key differ.

    Source: Zou et al., Highly Efficient 3D Human Pose Tracking from Events (arXiv 2303.09681). The paper multiplies
    spikes of -1 and 1; the product of those of 0 and 1 here says the same, and only adds.
    """

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Map spikes q `(..., N, d)` and k `(..., M, d)` to the weight of each key for each query, `(..., N, M)`."""
        both = q @ k.transpose(-2, -1)
        differing = q.sum(-1).unsqueeze(-1) + k.sum(-1).unsqueeze(-2) - 2 * both
        return (1 - differing / q.shape[-1]).softmax(-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map spikes q `(..., N, d)`, k `(..., M, d)` and numbers v `(..., M, d)` to `(..., N, d)`."""
        return self.weights(q, k) @ v


class SpikeMatmul(nn.Module):
    """Matrix product of real numbers with spikes: each spike adds one column."""

    def forward(self, values: Tensor, spikes: Tensor) -> Tensor:
        """Map `(..., n, m)` and spikes `(..., m, N)` to `(..., n, N)`."""
        return values @ spikes


class AttentionMatmul(SpikeMatmul):
    """Matrix product of an attention map, not binary, with the spikes of the values: each spike adds one column of the
    map.

    The last axis of the map, `(..., N, s*N)`, holds the same N places of s steps, in order of time."""


class GatedSum(SpikeMatmul):
    """Sum over tokens of real numbers, each taken as often as its own gate spikes, channel by channel."""

    def forward(self, values: Tensor, spikes: Tensor) -> Tensor:
        """Map `(..., C, N)` and spikes of the same shape to `(..., C, 1)`."""
        return super().forward(values.unsqueeze(-2), spikes.unsqueeze(-1)).squeeze(-1)


class SpikeSum(nn.Module):
    """Sum of spikes along one axis.

    Args:
        dim: the axis.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, spikes: Tensor) -> Tensor:
        """Map spikes to their sums, the axis gone."""
        return spikes.sum(dim=self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
