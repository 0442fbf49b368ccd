"""What the vectors of Spike-driven Transformer V3 can't show."""

import json
from pathlib import Path

import pytest
import timm
import torch
from families import builder_of, sdt_v3, sdt_v3_large, wake
from safetensors import safe_open
from torch import nn

from braincog_transformers import ILIFNode, UserError
from braincog_transformers.checkpoints import load_state

GOLDEN = Path(__file__).parents[1] / "golden"


def tiny(name, **kwargs):
    torch.manual_seed(0)
    sizes = sdt_v3_large.TINY if name in sdt_v3_large.PARAMETERS else sdt_v3.TINY
    return wake(timm.create_model(name, **{**sizes, "step": 1, **kwargs})).double()


def batch(side=32):
    return torch.rand(2, 3, side, side, dtype=torch.float64)


@pytest.mark.parametrize(("name", "count"), [("sdt_v3_83m", 83_015_952 - 6_316_032), ("sdt_v3_173m", 171_740_714)])
def test_trainable_parameters_with_the_second_classifier(name, count):
    """The official count of 83M has a branch that never runs."""
    with torch.device("meta"):
        model = timm.create_model(name, distilled=True)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


def test_both_first_widths_of_the_largest_network_are_there():
    with torch.device("meta"):
        stems = [timm.create_model(f"sdt_v3_{size}m").patch_embed.stages for size in (171, 173)]
    assert [[stem[i].conv.out_channels for i in (0, 2)] for stem in stems] == [[96, 192], [98, 196]]


def test_the_branch_of_83m_that_never_runs_is_dropped():
    model, other = tiny("sdt_v3_83m"), tiny("sdt_v3_83m", layer_scale=0.5)
    # 1.5 times as wide as the convolution in front, as in the released file
    branch = {"conv1.0.weight": torch.rand(16, 16, 1), "conv1.1.weight": torch.rand(24)}
    branch = {f"block3.0.rep_conv.{name}": value for name, value in branch.items()}
    official = {
        name.replace("patch_embed.stages.0.", "downsample1_1.encode_"): v for name, v in model.state_dict().items()
    }
    load_state(other, {**official, **branch})
    x = batch()
    assert torch.equal(other.eval()(x), model.eval()(x))
    with pytest.raises(UserError, match="1 unexpected"):
        load_state(other, {**model.state_dict(), "blocks.0.rep_conv.conv1.0.weight": torch.rand(16, 16, 1)})


@pytest.mark.parametrize("name", ["sdt_v3_5m", "sdt_v3_83m"])
def test_each_step_is_computed_by_itself(name):
    model, x = tiny(name, step=3).eval(), torch.rand(2, 3, 3, 32, 32, dtype=torch.float64)
    single = tiny(name, step=1).eval()
    steps = torch.stack([single(frame) for frame in x.unbind(1)])
    model.output_steps = True
    torch.testing.assert_close(model(x), steps)


def test_the_three_rules_of_the_neurons():
    rules = {
        "sdt_v3_5m": ("even", 4, 1),
        "sdt_v3_19m_dvs": ("even", 1, 1),
        "sdt_v3_6m_dvs": ("even", 8, 1),
        "sdt_v3_83m": ("up", 4, 1),
    }
    for name, rule in rules.items():
        model = tiny(name, distilled=name == "sdt_v3_83m")
        last = model.head_dist_node if name == "sdt_v3_83m" else model.head_node
        others = [node for node in model.nodes.values() if node is not last]
        assert {(node.rounding, node.divisor, node.levels) for node in others} == {(*rule[:2], 4)}, name
        assert (last.rounding, last.divisor) == (rule[0], 1), name


def test_only_the_second_classifier_of_a_large_network_reads_spikes():
    model, x = tiny("sdt_v3_83m", distilled=True).eval(), batch()
    average = model.forward_features(x).mean(dim=1)
    expected = model.head(average), model.head_dist(average.clamp(0, 4).add(0.5).floor())
    torch.testing.assert_close(model(x), sum(expected) / 2)
    model.train().set_distilled_training()
    assert [logits.shape for logits in model(x)] == [(2, 5), (2, 5)]
    model.reset_classifier(3)
    assert [head.out_features for head in model.get_classifier()] == [3, 3]
    with pytest.raises(UserError, match=r"ESpikeformerLarge: .* \(distilled=True\)"):
        tiny("sdt_v3_83m").set_distilled_training()


def test_fused_a_projection_of_a_large_network_is_one_linear_layer():
    model, x = tiny("sdt_v3_83m").eval(), batch()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 1)
    expected = model(x)
    model.fuse()
    torch.testing.assert_close(model(x), expected)
    linear = [m for m in model.blocks[0].attn.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(16, 16)] * 4


@pytest.mark.parametrize("kind", ["base", "dvs", "large"])
@torch.no_grad()
def test_spiking_inference_gives_the_official_logits(kind):
    with safe_open(GOLDEN / f"spike_driven_transformer_v3_{kind}_small.safetensors", "pt") as file:
        meta, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    x, expected = tensors["input"].double(), tensors["logits_eval"]
    shapes = {"input_shape": tuple(x.shape), "classes": expected.shape[-1]}
    model = builder_of(meta)(json.loads(meta["kwargs"]), {**meta, **shapes})
    load_state(model, {name[6:]: value for name, value in tensors.items() if name.startswith("state.")})
    model = model.double().eval()
    model.set_spiking_inference()
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(model.fuse()(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(50, 33), (9, 1)])
def test_a_pyramid_halves_odd_sides_upwards(size):
    model = tiny("sdt_v3_5m", img_size=size).eval()
    maps = model.forward_intermediates(torch.rand(1, 3, *size).double(), intermediates_only=True)
    assert [m.shape[2:] for m in maps] == [tuple(-(-side // by) for side in size) for by in (4, 8, 16, 16)]


def test_smaller_patches_halve_the_side_less_often():
    model = tiny("sdt_v3_83m", patch_size=4).eval()
    assert model.forward_features(batch()).shape == (2, 64, 16)


def test_any_neuron_can_take_the_place_of_the_integer_one():
    model = tiny("sdt_v3_5m", node_type="LIFNode", step=2)
    assert not any(isinstance(node, ILIFNode) for node in model.modules())
    assert model(batch()).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("sdt_v3_5m", {"embed_dims": (7, 8, 8, 16)}, r"ESpikeformer: .* the first one even; got \(7, 8, 8, 16\)"),
        ("sdt_v3_5m", {"depths": (1, 1, 1)}, r"ESpikeformer: depths must be one or two numbers.* got \(1, 1, 1\)"),
        ("sdt_v3_5m", {"num_heads": 3}, "ESpikeformer: .* embed_dim=8, num_heads=3"),
        ("sdt_v3_5m", {"levels": 0}, "levels must be at least 1; got 0"),
        ("sdt_v3_83m", {"img_size": 40}, r"ESpikeformerLarge: img_size must be a multiple of 16; got \(40, 40\)"),
        ("sdt_v3_83m", {"stem_dims": (7, 8)}, r"the first of stem_dims must be even; got \(7, 8\)"),
        ("sdt_v3_83m", {"num_heads": 3}, "embed_dim=16, num_heads=3"),
        ("sdt_v3_83m", {"patch_size": 3}, "patch_size must be 1, 2, 4, 8 or 16; got 3"),
    ],
)
def test_impossible_networks_are_refused_with_the_numbers(name, kwargs, message):
    with pytest.raises(UserError, match=message):
        tiny(name, **kwargs)
