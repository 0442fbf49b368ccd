"""Spiking attention: both associations are the same, and the cheaper one is taken."""

import pytest
import torch

from braincog_transformers.ops.attention import spiking_attention


def spikes(*shape):
    return torch.randint(0, 2, shape).float()


def test_by_hand():
    q = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    k = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    v = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    # Q K^T: [[1, 0, 1], [2, 1, 1], [0, 0, 0]]
    assert spiking_attention(q, k, v, 0.5).tolist() == [[0.5, 0.5], [1.5, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(("tokens", "width"), [(3, 16), (64, 8), (49, 49)])
def test_order_of_products_does_not_matter(tokens, width):
    q, k, v = (spikes(2, 3, tokens, width) for _ in range(3))
    assert torch.equal(spiking_attention(q, k, v, 0.125), (q @ k.transpose(-2, -1)) @ v * 0.125)


@pytest.mark.parametrize(("tokens", "width", "middle"), [(4, 32, (4, 4)), (32, 4, (4, 4))])
def test_smaller_middle_product_is_formed(tokens, width, middle):
    shapes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if "mm" in str(func):
                shapes.append(tuple(out.shape[-2:]))
            return out

    with Watch():
        spiking_attention(spikes(1, tokens, width), spikes(1, tokens, width), spikes(1, tokens, width), 1.0)
    assert shapes == [middle, (tokens, width)]
