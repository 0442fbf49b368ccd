"""A checkup sees what was broken on purpose, and leaves the network alone."""

import math

import pytest
import timm
import torch
from torch import nn

from braincog_transformers import IFNode, LIFNode
from braincog_transformers.analysis.doctor import diagnose, format_checkup
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.models.released import run_over_batch
from braincog_transformers.nodes import ALIFNode, PLIAFNode


def _batch():
    return torch.rand(8, 1, 8, 8), torch.arange(8)


def _model(bias=0.7, **kwargs):
    torch.manual_seed(0)
    model = timm.create_model("spikformer_digits", **kwargs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.bias, bias)
    return model


def test_figures_of_one_neuron_are_those_of_its_equations():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), NodeOptions().constructor(step=2)())
    nn.init.ones_(net[0].weight)
    # charges to 0.75, then 0.75 + (1.5 - 0.75) / 2 = 1.125, which fires
    found = diagnose(net, (torch.tensor([[1.5], [1.5]]), torch.zeros(2)), lambda y, t: y.sum())
    (layer,) = found.layers
    assert (layer.rate, layer.lowest, layer.highest) == (0.5, 0.75, 1.125)
    slopes = [4 * s * (1 - s) for s in (1 / (1 + math.exp(-4 * u)) for u in (-0.25, 0.125))]
    assert layer.coverage == pytest.approx(sum(slopes) / 2)
    # the first step charges the second by the half of what the reset leaves
    gradient = [slopes[0] / 2 + slopes[1] / 4, slopes[1] / 2]
    assert layer.gradient == pytest.approx(math.hypot(*gradient), rel=1e-5)


def test_a_neuron_that_fires_above_its_threshold_only_does_so_here():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), LIFNode(threshold=0.75, step=2, layer_by_layer=True))
    nn.init.ones_(net[0].weight)
    (layer,) = diagnose(net, (torch.tensor([[1.5], [1.5]]), torch.zeros(2)), lambda y, t: y.sum()).layers
    assert (layer.rate, layer.highest) == (0.5, 1.5)  # at 0.75 it is silent, at 1.125 it fires


@pytest.mark.parametrize(
    ("kwargs", "bias", "advice"),
    [
        ({}, -9.0, "do not fire"),
        ({"threshold": 0.01}, 9.0, "fire nearly always"),
        ({"alpha": 900.0}, 0.7, "pass hardly any gradient"),
    ],
)
def test_what_is_wrong_is_named(kwargs, bias, advice):
    found = diagnose(_model(bias, **kwargs), _batch())
    assert any(advice in line for line in found.advice), found.advice


def test_what_is_not_finite_comes_first():
    x, y = _batch()
    advice = diagnose(_model(), (x * float("nan"), y)).advice  # neurons do not fire on it: the loss stays finite
    assert advice[0].startswith("patch_embed.stages.0.node")
    assert "not finite" in advice[0]
    assert "loss" in diagnose(_model(), (x, y), lambda logits, target: logits.sum() * float("nan")).advice[0]


def test_the_network_is_left_as_it_was_and_the_text_has_it_all():
    model = _model()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    found = diagnose(model, _batch())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not [m for m in model.modules() if m._forward_hooks]
    assert [layer.name for layer in found.layers] == list(model.nodes)
    assert found.kept > 8 * 4 * 64 * 64 * 4
    text = format_checkup(found, samples=3600)
    assert f"{1 / found.samples_per_second:.2f} h" in text
    assert text.count("advice:") == max(1, len(found.advice))


@pytest.mark.parametrize("strict", [True, False])
def test_potentials_at_the_threshold_go_back_to_rest_only_where_the_neuron_fires(strict):
    node = IFNode(threshold=1.0, strict=strict, step=2, layer_by_layer=True)
    potentials = node.over_threshold(torch.tensor([[1.0], [0.0]])) + 1.0
    assert potentials.flatten().tolist() == [1.0, 1.0 if strict else 0.0]


class _Half(LIFNode):
    def forward(self, inputs):
        return super().forward(inputs / 2)


def test_a_neuron_that_has_no_kernel_is_looked_at_through_its_step():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), ALIFNode(threshold=0.5, tau=2.0, step=2, layer_by_layer=True))
    nn.init.ones_(net[0].weight)
    # charges to 0.75, fires and keeps 0.25, then 0.25 + (1.5 - 0.25) / 2 = 0.875 meets a threshold that has risen
    (layer,) = diagnose(net, (torch.tensor([[1.5], [1.5]]), torch.zeros(2)), lambda y, t: y.sum()).layers
    risen = 1.8 * (1 - math.exp(-1 / 20))
    assert layer.highest == pytest.approx(1 + (0.875 - 0.5 - risen) / 0.5)
    assert layer.lowest == pytest.approx(1.5)
    assert 0 < layer.coverage < 1


def test_a_neuron_that_mixes_samples_as_released_is_looked_at_as_it_fires():
    node = LIFNode(threshold=1.0, step=2, layer_by_layer=True)
    run_over_batch(node)
    x = 2 * torch.rand(6, 3)
    assert torch.equal((node.over_threshold(x) > 0).flatten(0, 1).float(), node(x))
    assert node(x).sum() not in (0, 18)


def test_a_neuron_with_a_forward_of_its_own_has_its_rate_and_gradient():
    net = nn.Sequential(nn.Linear(4, 4), _Half(step=2, layer_by_layer=True), nn.Linear(4, 3))
    nn.init.constant_(net[0].bias, 3.0)
    found = diagnose(net, (torch.rand(4, 4), torch.zeros(4, dtype=torch.long)))
    (layer,) = found.layers
    assert layer.rate > 0
    assert layer.gradient > 0
    assert all(math.isnan(value) for value in (layer.lowest, layer.highest, layer.coverage))
    assert "nan" in format_checkup(found, samples=8)


def test_a_neuron_that_puts_out_its_potential_is_not_judged_by_its_surrogate():
    net = nn.Sequential(nn.Linear(4, 4), PLIAFNode(step=2, layer_by_layer=True), nn.Linear(4, 3))
    nn.init.constant_(net[0].bias, 9.0)
    found = diagnose(net, (torch.rand(4, 4), torch.zeros(4, dtype=torch.long)))
    (layer,) = found.layers
    assert layer.rate > 1
    assert layer.highest > 4
    assert math.isnan(layer.coverage)
    assert found.advice == []
    assert "1 put out real numbers, not spikes: their rate is their mean" in format_checkup(found, samples=8)


def test_layers_that_were_not_looked_at_are_named():
    net = nn.Sequential(nn.Linear(4, 4), LIFNode(step=2, layer_by_layer=True))
    net[0].spare = LIFNode(step=2, layer_by_layer=True)
    advice = diagnose(net, (torch.rand(4, 4), torch.zeros(4, dtype=torch.long))).advice
    assert "0.spare were not looked at: they take one step a call, or were not called" in advice
