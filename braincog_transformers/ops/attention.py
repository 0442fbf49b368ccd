"""Spiking attention products: no softmax, so the order of the two products is free.

With spikes q, k, v in {0, 1} the products are sums of ones: whole numbers, exact in float32 up to 2^24, and
`(Q K^T) V = Q (K^T V)` holds to the last bit. For N tokens of width d the first order costs 2 N^2 d multiplications
and an N x N map, the second 2 N d^2 and a d x d map.

Source: Zhou et al., Spikformer (ICLR 2023, arXiv 2209.15425), equation 6 and section 3.3.
"""

from torch import Tensor

__all__ = ["spiking_attention"]


def spiking_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return `scale * Q K^T V`, by the cheaper association.

    Args:
        q: `(..., N, d)`.
        k, v: `(..., M, d)`; M is N, unless tokens attend to others than themselves.
        scale: constant factor.

    Returns:
        `(..., N, d)`.
    """
    tokens, width = q.shape[-2:]
    if tokens <= width:
        return (q @ k.transpose(-2, -1) * scale) @ v
    return q @ (k.transpose(-2, -1) @ v * scale)
