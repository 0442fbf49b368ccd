"""Linear layers on tokens are what their parts make in a row; the normalisation sees tokens of all steps alike."""

from functools import partial

import pytest
import torch
from torch import nn

from braincog_transformers import LIFNode
from braincog_transformers.layers import LinearBN, LinearBNNode, MembraneMLP, NodeLinearBN, SpikingMLP

T = 3
NODE = partial(LIFNode, threshold=0.5, step=T, layer_by_layer=True)


def made(build, *sizes, training=False, **options):
    torch.manual_seed(0)
    layer = build(*sizes, **options).double().train(training)
    for part in layer.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.bias, 0.5)
    return layer, torch.randn(T * 2, 5, sizes[0]).double()


def normalised(layer, x):
    """Normalise every channel over all tokens: batch normalisation's own axes."""
    return layer.bn(layer.linear(x).transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_layers_are_their_parts_in_a_row(training, bias):
    layer, x = made(LinearBN, 4, 6, bias=bias, training=training)
    torch.testing.assert_close(layer(x), normalised(layer, x))
    layer, _ = made(LinearBNNode, 4, 6, node=NODE, bias=bias, training=training)
    spikes = layer(x)
    assert torch.equal(spikes, layer.node(normalised(layer, x)))
    assert set(spikes.unique().tolist()) == {0, 1}
    layer, _ = made(NodeLinearBN, 4, 6, node=NODE, bias=bias, training=training)
    torch.testing.assert_close(layer(x), normalised(layer, layer.node(x)))


@pytest.mark.parametrize(("build", "spikes"), [(SpikingMLP, True), (MembraneMLP, False)])
def test_an_mlp_widens_and_returns(build, spikes):
    layer, x = made(build, 4, 2.5, node=NODE)
    out = layer(x)
    assert layer.fc1.linear.weight.shape == (10, 4)
    assert out.shape == x.shape
    assert torch.equal(out, layer.fc2(layer.fc1(x)))
    assert (set(out.unique().tolist()) == {0, 1}) == spikes
    assert made(build, 4, 2.5, node=NODE, bias=False)[0].fc2.linear.bias is None


@pytest.mark.parametrize("build", [LinearBN, partial(LinearBNNode, node=NODE), partial(NodeLinearBN, node=NODE)])
def test_a_fused_layer_computes_the_same_without_a_normalisation(build):
    layer, x = made(build, 4, 6)
    expected = layer(x)
    torch.testing.assert_close(layer.fuse()(x), expected)
    assert isinstance(layer.bn, nn.Identity)
