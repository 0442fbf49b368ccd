"""What the vectors of OST can't show."""

import pytest
import torch
from families.ost import TINY
from torch import nn

from braincog_transformers import UserError
from braincog_transformers.analysis.audit import audit
from braincog_transformers.analysis.energy import analyze
from braincog_transformers.models import OST
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.models.ost import MultiThreshold


def awake(**kwargs):
    """Return a network whose normalisations have a batch's statistics, so that its neurons fire."""
    torch.manual_seed(0)
    model = OST(**{**TINY, "patch_size": 4, "threshold": 0.4, "step": 3, **kwargs}).double().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    model(inputs(model, 16))
    return model.eval()


def inputs(model, count):
    generator = torch.Generator().manual_seed(1)
    shape = (count, model.step, 2) if model.in_chans == 2 else (count, model.in_chans)
    x = torch.rand(*shape, *model.img_size, dtype=torch.float64, generator=generator)
    return x.mul(3).round() if model.in_chans == 2 else x


NETWORKS = [{}, {"downsampling": "avg", "thresholds": 1, "patch_size": 8, "in_chans": 2}]


@pytest.mark.parametrize("kwargs", NETWORKS)
def test_step_by_step_sums_the_same_maps(kwargs):
    model = awake(**kwargs)
    x = inputs(model, 4)
    expected = model(x)
    assert expected.std(0).min() > 0
    model.set_attr("layer_by_layer", False)
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(x), expected)


def test_blocks_read_the_sum_over_the_steps():
    model = awake(step=3)
    x = inputs(model, 2).unsqueeze(1).expand(-1, 3, -1, -1, -1)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    model.forward_features(x)
    tokens = model.patch_embed(model.encoder(x)).unflatten(0, (3, -1))
    assert torch.equal(seen[0], tokens.sum(0))
    assert 2 < tokens.sum(0).max() <= 6


@pytest.mark.parametrize("step", [1, 5])
def test_another_number_of_steps_leaves_blocks_with_one(step):
    model = awake(drop_path_rate=0.5)
    built = awake(drop_path_rate=0.5, step=step)
    model.set_attr("step", step)
    model.load_state_dict(built.state_dict())
    assert {module.step for module in model.blocks.modules() if hasattr(module, "step")} == {1}
    assert {module.step for module in model.patch_embed.modules() if hasattr(module, "step")} == {step}
    assert torch.equal(model(inputs(model, 2)), built(inputs(model, 2)))
    assert model.train()(inputs(model, 2)).shape == (2, 5)


def test_a_unit_of_several_thresholds_is_the_sum_of_its_neurons():
    options = NodeOptions()
    unit = MultiThreshold([options.constructor(1, ratio) for ratio in (0.5, 1.0)])
    assert unit(torch.tensor([0.9, 1.0, 1.9, 2.0, 9.0, -1.0])).tolist() == [0, 1, 1, 2, 2, 0]


@pytest.mark.parametrize(("thresholds", "expected"), [(1, [0.2]), (2, [0.2, 0.4]), (4, [0.2, 0.3, 0.4, 0.5])])
def test_thresholds_are_shares_of_the_networks(thresholds, expected):
    attention = awake(thresholds=thresholds).blocks[0].attn
    for layer in (attention.q, attention.k, attention.proj):
        assert [round(node.threshold.item(), 6) for node in layer.node] == expected
        assert not any(node.threshold.requires_grad for node in layer.node)


def test_the_audit_names_the_layers_that_read_real_numbers():
    model = awake()
    found = {finding.name: finding for finding in audit(model, [inputs(model, 8)]).findings}
    real = ("blocks.0.attn.proj.linear", "blocks.0.mlp.fc2.linear")
    assert all(found[layer].meaning == "multiplications" for layer in real)
    assert found["blocks.0.attn.v"].inputs == found["blocks.0.attn.gather"].inputs == "integer"
    assert found["blocks.0.attn.gather"].largest == 2
    assert 2 < found["blocks.0.attn.v"].largest <= 6


def test_average_pooling_makes_real_numbers_of_spikes():
    model = awake(**NETWORKS[1])
    found = {finding.name: finding for finding in audit(model, [inputs(model, 8)]).findings}
    assert found["patch_embed.stages.1.0.conv"].inputs == "binary"
    for layer in ("patch_embed.stages.2.0.conv", "patch_embed.rpe.conv", "blocks.0.attn.v", "blocks.0.mlp.expand"):
        assert found[layer].inputs == "real", layer


@pytest.mark.parametrize("method", ["spikingformer", "sdt"])
def test_energy_counts_the_stem_t_times_and_the_blocks_once(method):
    model = awake(step=3)
    rows = {row.name: row for row in analyze(model, [inputs(model, 4)], method=method).rows}
    conv, places = model.patch_embed.rpe.conv, 16
    assert rows["patch_embed.rpe.conv"].macs == 3 * places * conv.weight.numel()
    expand = rows["blocks.0.mlp.expand"]
    assert expand.macs == places * model.blocks[0].mlp.expand.weight.numel()
    gather = rows["blocks.0.attn.gather"]
    assert (gather.type, gather.macs) == ("matmul", places * 64)
    proj = rows["blocks.0.attn.proj.linear"]
    assert (proj.inputs, proj.ac) == ("real", 0)
    assert proj.mac >= proj.macs == places * 64 * 16


@pytest.mark.parametrize("kwargs", NETWORKS)
def test_packed_numbers_give_the_same_gradients(kwargs):
    model = awake(**kwargs, img_size=32).float().train()
    x = inputs(model, 8).float()

    def gradients():
        model.zero_grad()
        model(x).square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    packed = gradients()
    model.pack_spikes = False
    assert all(map(torch.equal, packed, gradients()))


def test_what_a_network_of_one_step_can_not_do_is_refused_with_the_reason():
    model = awake()
    with pytest.raises(UserError, match="OST can't run one step at a time: its blocks read the sum over the steps"):
        model.set_streaming()
    model.output_steps = True
    with pytest.raises(UserError, match=r"OST has no logits by step .*: its blocks read the sum"):
        model(inputs(model, 1))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_heads": 4}, "OST has no heads; got num_heads=4"),
        ({"thresholds": 0}, "thresholds must be at least 1; got 0"),
        ({"downsampling": "max"}, "downsampling must be 'conv' or 'avg'; got 'max'"),
        ({"img_size": 18}, r"multiple of 4; got \(18, 18\)"),
        ({"embed_dim": 12}, "multiple of 8; got 12"),
    ],
)
def test_impossible_networks_are_refused_with_the_numbers(kwargs, message):
    with pytest.raises(UserError, match=message):
        awake(**kwargs)


@torch.no_grad()
@pytest.mark.parametrize("kwargs", NETWORKS)
def test_whole_numbers_of_spikes_unroll_into_planes(kwargs):
    model = awake(node_type="ILIFNode", levels=3, **kwargs)
    x = inputs(model, 2)
    expected = model(x)
    assert expected.std(0).min() > 0
    model.set_spiking_inference()
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
