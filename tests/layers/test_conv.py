"""Convolutional layers are what their parts make in a row, wherever they pool, and for an image that stands for T."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import max_pool2d

from braincog_transformers import LIFNode
from braincog_transformers.layers import ConvBN, ConvBNNode, ConvSequence, NodeConvBN

T = 3
NODE = partial(LIFNode, threshold=0.5, step=T, layer_by_layer=True)
CONV = {"plain": {}, "strided": {"stride": 2, "bias": True}, "grouped": {"groups": 2, "padding": 0}}


def pooled(x, applies):
    return max_pool2d(x, 3, stride=2, padding=1) if applies else x


def made(build, *sizes, training=False, **options):
    torch.manual_seed(0)
    layer = build(*sizes, **options).double().train(training)
    for part in layer.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.bias, 0.5)
    return layer, torch.randn(T * 2, sizes[0], 8, 6).double()


@pytest.mark.parametrize("conv", CONV.values(), ids=CONV)
@pytest.mark.parametrize("pool", [False, True])
def test_conv_bn_normalises_then_pools(conv, pool):
    layer, x = made(ConvBN, 4, 6, pool=pool, **conv)
    assert torch.equal(layer(x), pooled(layer.bn(layer.conv(x)), pool))


@pytest.mark.parametrize("pool", [None, "before", "after"])
@pytest.mark.parametrize("training", [False, True])
def test_conv_bn_node_pools_before_or_after_it_fires(pool, training):
    layer, x = made(ConvBNNode, 4, 6, node=NODE, pool=pool, training=training)
    spikes = layer(x)
    potentials = pooled(layer.bn(layer.conv(x)), pool == "before")
    assert torch.equal(spikes, pooled(layer.node(potentials), pool == "after"))
    assert spikes.shape == ((T * 2, 6, 4, 3) if pool else (T * 2, 6, 8, 6))
    assert set(spikes.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("pool", [None, "spikes", "potentials"])
def test_node_conv_bn_pools_spikes_or_potentials(pool):
    layer, x = made(NodeConvBN, 4, 6, node=NODE, pool=pool)
    spikes = pooled(layer.node(x), pool == "spikes")
    assert torch.equal(layer(x), pooled(layer.bn(layer.conv(spikes)), pool == "potentials"))


@pytest.mark.parametrize("pool", [None, "before", "after"])
@pytest.mark.parametrize("training", [False, True])
def test_an_image_stands_for_equal_steps(pool, training):
    def build(*sizes, **options):
        return ConvSequence(ConvBNNode(*sizes, node=NODE, pool=pool), ConvBNNode(6, 5, node=NODE))

    (one, x), (many, _) = (made(build, 4, 6, training=training) for _ in range(2))
    image = x[:2]
    torch.testing.assert_close(one(image, copies=T), many(image.repeat(T, 1, 1, 1)))
    for a, b in zip(one.buffers(), many.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("build", [ConvBN, partial(ConvBNNode, node=NODE), partial(NodeConvBN, node=NODE)])
def test_a_fused_layer_computes_the_same_without_a_normalisation(build):
    layer, x = made(build, 4, 6)
    expected = layer(x)
    torch.testing.assert_close(layer.fuse()(x), expected)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in layer.modules())
