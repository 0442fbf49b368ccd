"""What enters each layer is observed, and the verdict follows from it."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from braincog_transformers.analysis.audit import audit, format_audit, write_audit
from braincog_transformers.conversion.increments import Increment, IncrementalProduct
from braincog_transformers.nodes import LIFNode, SoftResetNode
from braincog_transformers.ops.operators import Operator


def _awake(name):
    model = timm.create_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.weight, 3.0)
            nn.init.constant_(module.bias, 1.5)
    return model


@pytest.mark.parametrize(
    ("name", "integer", "real"),
    [
        ("spikingformer_digits", 0, 0),
        ("sdt_digits", 0, 0),
        # q, k, v and the first layer of each MLP read the stream of whole numbers
        ("spikformer_digits", 8, 0),
        # the second of two convolutions without a neuron in between, and the projections' stacks
        ("sdt_v2_digits", 0, 20),
    ],
)
def test_verdicts(name, integer, real):
    torch.manual_seed(0)
    model = _awake(name)
    found = audit(model, [torch.rand(4, model.in_chans, *model.img_size)])
    assert (len(found.inner("integer")), len(found.inner("real"))) == (integer, real)
    assert found.spike_driven == (integer == real == 0)
    assert found.findings[0].role == "first"
    assert found.findings[-1].role == "classifier"
    assert ("not spike-driven" in format_audit(found)) != found.spike_driven


def test_fused_the_stacks_of_spike_driven_transformer_v2_read_spikes():
    model = _awake("sdt_v2_digits")
    found = audit(model.eval().fuse(), [torch.rand(2, 1, 32, 32)])
    assert [f.name for f in found.inner("real")] == [
        f"stages.{s}.attn.project.conv" for s in ("0.0", "0.2", "1.1", "1.2")
    ]


def test_a_whole_number_means_so_many_steps():
    found = audit(_awake("spikformer_digits"), [torch.rand(4, 1, 8, 8)])
    finding = next(f for f in found.findings if f.name == "blocks.0.attn.q.linear")
    assert finding.largest == 2
    assert finding.meaning == "up to 2 additions for an input, or 2 binary steps"


class Analog(nn.Module):
    """Neurons of both kinds, and operators outside of them: some read spikes, some don't."""

    def __init__(self, node):
        super().__init__()
        self.step = 1
        self.first, self.node, self.second, self.norm = nn.Linear(6, 6), node, nn.Linear(6, 6), nn.LayerNorm(6)
        self.running, self.product, self.head = Increment(torch.tanh), IncrementalProduct(), nn.Linear(6, 3)

    def forward(self, x):
        spikes = self.node(self.first(x))
        gated = self.second(spikes) * spikes + spikes.unflatten(1, (2, 3)).max(1)[0].repeat(1, 2)
        scaled = self.norm(gated / 2 - gated.mean(1, keepdim=True)).softmax(-1)
        self.running.reset()
        self.product.reset()
        if not spikes.any():  # what only steers the program is no operator of the network
            return spikes
        return self.head(self.product(self.running(scaled), (spikes.T @ spikes).softmax(-1)))


@pytest.mark.parametrize("node", [LIFNode(step=1), SoftResetNode(0.3, step=1)])
def test_what_stays_analog_is_listed_and_sums_and_scalings_of_spikes_are_not(node, tmp_path):
    torch.manual_seed(0)
    model = Analog(node)
    nn.init.constant_(model.first.bias, 2.0)
    found = audit(model, [torch.rand(6, 6)])
    assert {(one.path, str(one), one.count) for one in found.analog} == {
        ("norm", "layer norm", 1),
        ("", "softmax", 2),
        ("running", "tanh of running sums", 1),
        ("product", "matrix product of two activations of running sums", 1),
    }
    line, verdict = format_audit(found).splitlines()[-2:]
    assert verdict.startswith("not spike-driven: of")
    assert line.startswith("stays analog: layer norm in norm (1), softmax in the network (1), tanh of running sums")
    written = json.loads(write_audit(found, tmp_path).read_text())["analog"]
    assert written[0] == {"path": "norm", "name": "layer norm", "count": 1, "note": "", "meaning": "layer norm"}
    assert written[2]["meaning"] == "tanh of running sums"


def test_a_verdict_does_not_pass_over_what_stays_analog():
    found = audit(_awake("spikformer_digits"), [torch.rand(4, 1, 8, 8)])
    found = replace(found, findings=[one for one in found.findings if one.inputs == "binary"])
    assert format_audit(found).splitlines()[-1].startswith("spike-driven: of")
    found = replace(found, analog=(Operator("head", "softmax"),))
    assert format_audit(found).splitlines()[-1].startswith("spike-driven, apart from what stays analog: of")


def test_a_network_of_the_zoo_has_nothing_analog_but_what_it_has():
    found = audit(_awake("spikformer_digits"), [torch.rand(4, 1, 8, 8)])
    assert found.analog == ()
    assert "analog" not in format_audit(found)
