"""Spiking self-attention is scale * Q K^T V by heads, between neurons, without softmax."""

from functools import partial

import pytest
import torch
from torch import nn

from braincog_transformers import LIFNode
from braincog_transformers.layers import SpikingSelfAttention

T, B, N, C, HEADS = 2, 3, 5, 8, 4


@pytest.mark.parametrize("training", [False, True])
def test_it_is_the_product_of_each_head(training):
    torch.manual_seed(0)
    node = partial(LIFNode, threshold=0.5, step=T, layer_by_layer=True)
    attn_node = partial(LIFNode, threshold=0.25, step=T, layer_by_layer=True)
    attention = SpikingSelfAttention(C, HEADS, scale=0.25, node=node, attn_node=attn_node).double().train(training)
    for part in attention.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.constant_(part.bias, 1)
    x = torch.randint(0, 2, (T * B, N, C)).double()
    found = attention(x)
    q, k, v = (layer(x) for layer in (attention.q, attention.k, attention.v))
    product, width = torch.zeros_like(x), C // HEADS
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        product[..., part] = 0.25 * q[..., part] @ k[..., part].transpose(1, 2) @ v[..., part]
    assert product.count_nonzero() > 0
    assert torch.equal(found, attention.proj(attention.attn_node(product)))
    assert attention.q.linear.bias is None
    assert attention.proj.linear.bias is not None


def test_a_subclass_puts_something_else_in_the_querys_place():
    class Silent(SpikingSelfAttention):
        def _query(self, q):
            return torch.zeros_like(q)

    node = partial(LIFNode, step=T, layer_by_layer=True)
    attention = Silent(C, HEADS, node=node, attn_node=node)
    seen = []
    attention.attn_node.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    attention(torch.ones(T * B, N, C))
    assert seen[0].count_nonzero() == 0
