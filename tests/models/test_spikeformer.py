"""Spikeformer: a new network, its tables of positions, what drop path drops, and what can't be built."""

import pytest
import torch
from families import batch, tiny, wake
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from braincog_transformers import UserError
from braincog_transformers.analysis.audit import audit
from braincog_transformers.analysis.energy import METHODS, analyze
from braincog_transformers.checkpoints import identify, load_state

NAME, ANALOG = "spikeformer_7_3x2x3", "spikeformer_7_3x2x4"


def test_a_new_network_does_not_attend_over_time():
    model = tiny(NAME, embed_dim=64, step=4).eval()
    for block in model.blocks:
        assert not block.temporal_fc.weight.any()
        assert not block.temporal_fc.bias.any()
    assert not model.positions.time_embed.any()
    assert model.positions.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    conv = model.patch_embed.blocks[-1].conv2.conv.weight
    assert conv.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    x = torch.randn(4 * 2, 16, 64)
    seen = []
    model.blocks[0].attn.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model.blocks[0](x)
    torch.testing.assert_close(seen[0], model.blocks[0].norm1(x))


def _places(model, name="pos_embed"):
    table = getattr(model.positions, name)
    nn.init.normal_(table)
    return table


def test_a_table_has_the_nearest_entry_for_places_and_steps_that_it_lacks():
    model = tiny(NAME).eval()  # 4x4 places, 2 steps
    places, steps = _places(model)[0], _places(model, "time_embed")[0]
    model.set_input_size((24, 12))
    model.set_attr("step", 3)
    found = model.positions(torch.zeros(3, 18, 16), 3).view(3, 6, 3, 16)
    rows, columns, times = [0, 0, 1, 2, 2, 3], [0, 1, 2], [0, 0, 1]
    torch.testing.assert_close(found, steps[times][:, None, None] + places[rows][:, columns])


def test_a_file_of_another_size_is_resized_in_its_words_and_as_in_the_network():
    model = wake(tiny(NAME, step=4)).eval()
    _places(model), _places(model, "time_embed")
    other = tiny(NAME, img_size=(24, 32), step=2).eval()
    said = load_state(other, model.state_dict())
    assert "; positions.pos_embed resized from (1, 4, 4, 16) to (1, 6, 8, 16)" in said
    assert "; positions.time_embed resized from (1, 4, 16) to (1, 2, 16)" in said
    model.set_input_size((24, 32))
    model.set_attr("step", 2)
    x = batch(model)
    assert torch.equal(model(x), other(x))
    assert "resized" not in load_state(other, other.state_dict())


def _official(model):
    state = {name.removeprefix("positions."): value for name, value in model.state_dict().items()}
    return {**state, "pos_embed": state["pos_embed"].flatten(1, 2)}


def test_an_official_table_is_square_or_as_long_as_ours():
    square = _official(tiny(NAME))
    wide = tiny(NAME, img_size=(8, 32))  # as many places, 2x8
    assert "resized" not in load_state(wide, square)  # 16 places stay 16
    found = wide.positions.pos_embed[0]
    torch.testing.assert_close(found, square["pos_embed"].view(4, 4, 16)[[0, 2]].repeat_interleave(2, dim=1))
    flat = _official(tiny(NAME, img_size=(16, 32)))
    with pytest.raises(UserError, match="has 32 places, which is no square and not this network's 4x4"):
        load_state(tiny(NAME), flat)
    assert load_state(tiny(NAME, img_size=(16, 32)), flat)


def test_weights_are_found_whatever_the_size_of_their_tables():
    state = tiny("spikeformer_digits", embed_dim=64, num_heads=4, patch_size=2, img_size=32).state_dict()
    assert [fit.name for fit in identify({key: state[key] for key in state})] == ["spikeformer_digits"]


def test_drop_path_drops_places_then_steps_of_a_sample_then_steps_of_the_batch():
    model, shapes = tiny(NAME, drop_path_rate=0.3, depth=4), []
    assert [block.drop_path.drop_prob for block in model.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    drop = model.blocks[-1].drop_path
    drop.register_forward_hook(lambda _module, inputs, out: shapes.append(tuple(out.shape)))
    model.train()(batch(model, 3))
    assert shapes == [(3 * 16, 2, 16), (2 * 3, 16, 16), (2, 3, 16, 16)]
    drop.drop_prob = 0.5
    rows = drop(torch.ones(64, 3, 2)).flatten(1)
    assert set(rows.unique().tolist()) == {0.0, 2.0}
    assert (rows == rows[:, :1]).all()


@pytest.mark.parametrize("name", [NAME, ANALOG])
@pytest.mark.parametrize("method", METHODS)
def test_attention_counts_in_full_and_costs_multiplications(name, method):
    model = wake(tiny(name)).eval()
    x = batch(model, events=True)
    analysis = analyze(model, [x], method=method)
    products = [row for row in analysis.rows if row.type == "matmul"]
    steps, places, width, blocks = 2, 16, 16, 2
    in_time, in_space = 2 * places * steps**2 * width, 2 * steps * places**2 * width
    assert sum(row.macs for row in products) == blocks * (in_time + in_space)
    assert all(row.mac == row.macs and row.ac == 0 for row in products)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    assert sum(row.macs for row in analysis.rows) == counter.get_total_flops() / 2 / len(x)


def test_only_the_mlps_and_the_tokenizer_read_spikes_and_of_analog_neurons_nothing_does():
    model = wake(tiny(NAME)).eval()
    kinds = {finding.name: finding.inputs for finding in audit(model, [batch(model)]).findings}
    spikes = {name for name, kind in kinds.items() if kind != "real"}
    assert {"blocks.0.mlp.fc2", "patch_embed.blocks.0.conv2.conv", "patch_embed.blocks.1.conv1.conv"} <= spikes
    assert not [name for name in spikes if "attn" in name or "fc1" in name or "match" in name][1:]  # the first: events
    found = audit(wake(tiny(ANALOG)).eval(), [torch.rand(2, 3, 16, 16)])
    assert {finding.inputs for finding in found.findings} == {"real"}


def test_features_are_normalised_when_asked():
    model = wake(tiny(NAME)).eval()
    x = batch(model)
    plain, normalised = (model.forward_intermediates(x, norm=norm, output_fmt="NLC") for norm in (False, True))
    model.feature_steps = True
    tokens = model.forward_intermediates(x, output_fmt="NLC", intermediates_only=True)[-1]
    torch.testing.assert_close(normalised[1][-1], model.norm(tokens).unflatten(0, (2, -1)).mean(0))
    assert torch.equal(plain[0], normalised[0])
    assert model.prune_intermediate_layers([0], prune_norm=True) == [0]
    assert isinstance(model.norm, nn.Identity)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"patch_size": 6}, "patch_size must be a power of 2, from 2 on; got 6"),
        ({"patch_size": 1}, "patch_size must be a power of 2, from 2 on; got 1"),
        ({"kernel_size": 4}, "kernel_size must be odd.* got 4"),
        ({"kernel_size": 0}, "kernel_size must be at least 1; got 0"),
        ({"blocks_per_stage": 0}, "blocks_per_stage must be at least 1; got 0"),
        ({"img_size": 18}, r"img_size must be a multiple of 4; got \(18, 18\) .try 16"),
        ({"patch_size": 64, "img_size": 64}, "embed_dim must be a multiple of 32; got 16"),
    ],
)
def test_what_can_not_be_built_is_refused_with_the_numbers(kwargs, message):
    with pytest.raises(UserError, match=message):
        tiny(NAME, **kwargs)


def test_a_single_step_at_a_time_is_refused_with_the_reason():
    with pytest.raises(UserError, match="can't run one step at a time: each block attends to all steps at once"):
        tiny(NAME).set_attr("layer_by_layer", False)
