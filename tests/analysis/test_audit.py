"""What enters each layer is observed, and the verdict follows from it."""

import pytest
import timm
import torch
from torch import nn

from braincog_transformers.analysis.audit import audit, format_audit


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
