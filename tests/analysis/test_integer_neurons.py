"""Audit, rates, energy and check-up of a network with integer neurons, in whole numbers and in binary planes."""

import warnings

import pytest
import timm
import torch
from torch import nn

from braincog_transformers import UserError
from braincog_transformers.analysis.audit import audit, format_audit
from braincog_transformers.analysis.doctor import diagnose
from braincog_transformers.analysis.energy import analyze, format_energy
from braincog_transformers.analysis.firing import firing_rates, format_table, overall_rate
from braincog_transformers.export import export
from braincog_transformers.models.base import SpikingTransformer
from braincog_transformers.nodes import ILIFNode


class Tiny(SpikingTransformer):
    """A 1x1 convolution, neurons, another one, neurons, a classifier; every weight is 1."""

    def __init__(self, **options):
        super().__init__(embed_dim=2, img_size=(1, 3), in_chans=1, num_classes=2, **options)
        self.patch_embed = Stem()
        self.stages = nn.Sequential(nn.Sequential(self._neuron()(), nn.Conv2d(2, 2, 1, bias=False), self._neuron()()))
        self.head = nn.Linear(2, 2)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.ones_(parameter)

    units = "stages"


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)

    def forward(self, x, copies=1):
        return self.conv(x).repeat(copies, 1, 1, 1)


X = torch.tensor([[[[0.0, 1.2, 3.1]]]])  # fired: 0, 1, 3 in both channels; then 0, 2, 4 (clipped from 6)


def tiny(norm=1.0, **options):
    options = {"node_type": "ILIFNode", "levels": 4, "norm": norm, "step": 1, "tau": 1.0, **options}
    model = Tiny(**options).eval()
    if norm is None:  # the second layer then gets n / 4
        model.stages[0][1].weight.data.fill_(4.0)
    return model


@pytest.mark.parametrize("norm", [None, 1.0])
def test_whole_numbers_are_named_whatever_they_are_divided_by(norm):
    found = audit(tiny(norm), [X])
    inner = found.findings[1]
    assert (inner.inputs, inner.largest, inner.planes) == ("integer", 3, 1)
    assert inner.meaning == "up to 3 additions for an input, or 3 binary steps"
    assert not found.spike_driven


@pytest.mark.parametrize("norm", [None, 1.0])
def test_and_planes_in_spiking_inference(norm):
    model = tiny(norm, step=2)
    model.set_spiking_inference()
    found = audit(model, [X])
    inner = found.findings[1]
    assert (inner.inputs, inner.largest, inner.planes) == ("binary", 1, 4)
    assert inner.meaning == "additions only, in 4 binary planes a step"
    assert found.spike_driven
    assert format_audit(found).endswith("0 real; 2 x 4 = 8 virtual steps: 4 binary planes a step")


@pytest.mark.parametrize("norm", [None, 1.0])
@pytest.mark.parametrize("spiking", [False, True])
def test_a_spike_costs_an_accumulate_for_each_output(norm, spiking):
    model = tiny(norm)
    model.set_spiking_inference(spiking)
    row = analyze(model, [X], whole_as_spikes=True, e_ac=1.0).rows[1]
    spikes = 2 * (0 + 1 + 3)  # two channels
    assert row.ac == pytest.approx(spikes * 2)
    assert row.mac == 0
    assert (row.planes, row.macs) == ((4, 4 * 12) if spiking else (1, 12))
    assert row.rate == pytest.approx(spikes / 6 / 4 if spiking else 4 / 6)  # of planes; or the share that is not 0
    assert analyze(model, [X], method="sdt").rows[1].ac == pytest.approx(spikes * 2)
    assert ("binary x 4" in format_energy(analyze(model, [X]))) is spiking


def test_whole_numbers_are_multiplied_unless_said_otherwise():
    row = analyze(tiny(None), [X]).rows[1]
    assert (row.inputs, row.ac, row.mac) == ("integer", 0, 12)


@pytest.mark.parametrize("spiking", [False, True])
def test_the_count_is_the_one_of_a_whole_network(spiking):
    torch.manual_seed(0)
    model = timm.create_model("sdt_digits", node_type="ILIFNode", levels=3, step=2, depth=1, threshold=0.2)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 2, 4)
    x = torch.rand(3, 1, 8, 8)
    for _ in range(5):
        model(x)
    model.eval().set_spiking_inference(spiking)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        whole = analyze(model, [x], whole_as_spikes=True)
        parts = analyze(model, [x[:2], x[2:]], whole_as_spikes=True)
    assert whole.ac == pytest.approx(parts.ac)
    kinds = {finding.inputs for finding in audit(model, [x]).findings if finding.role == "inner"}
    assert kinds == {"binary"} if spiking else "integer" in kinds
    model.set_spiking_inference(False)
    assert analyze(model, [x], whole_as_spikes=True).ac == pytest.approx(whole.ac)


@pytest.mark.parametrize("norm", [None, 1.0])
def test_rates_are_those_of_planes(norm):
    rows = firing_rates(tiny(norm), [X])
    assert [row.rate for row in rows] == pytest.approx([8 / 6 / 4, 12 / 6 / 4])
    assert [row.planes for row in rows] == [4, 4]
    assert not rows[0].real
    assert [row.silent for row in rows] == pytest.approx([1 / 3, 1 / 3])
    assert [row.saturated for row in rows] == pytest.approx([0, 1 / 3])
    assert overall_rate(rows) == pytest.approx(20 / 12 / 4)
    assert "each of an integer neuron 4 binary planes" in format_table(rows)


def test_the_check_up_looks_at_the_range():
    model = tiny(None).train()
    model.stages[0][0].threshold.data.fill_(0.01)
    first, second = (found := diagnose(model, (X, torch.tensor([1])))).layers
    assert (first.coverage, second.coverage) == pytest.approx((1 / 3, 1 / 3))  # 0, 120, 310; 0, 8, 8
    assert (first.lowest, first.highest) == pytest.approx((0, 310))
    assert (first.rate, first.real) == (pytest.approx(2 / 3), False)
    model.stages[0][0].threshold.data.fill_(1.0)
    model.stages[0][1].weight.data.fill_(-1000.0)
    advice = " ".join(diagnose(model, (X[..., 1:].repeat(1, 1, 1, 2)[..., :3], torch.tensor([1]))).advice)
    assert "out of the range from 0 to D thresholds: another --threshold, or more --levels" in advice
    assert "surrogate" not in advice
    assert found.layers[0].integer


def test_a_file_holds_no_planes(tmp_path):
    model = timm.create_model("spikformer_digits", node_type=ILIFNode).eval()
    model.set_spiking_inference()
    with pytest.raises(UserError, match=r"not in binary planes; call set_spiking_inference\(False\) first"):
        export(model, tmp_path / "net.pt2")
