"""Firing rates are counts divided by neurons, steps and samples, whatever the batch or the mode."""

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn

from braincog_transformers import LIFNode
from braincog_transformers.analysis.firing import (
    Row,
    extremes,
    firing_rates,
    format_table,
    overall_rate,
    rating,
    real_outputs,
    write_rates,
    write_silent,
)
from braincog_transformers.errors import UserError
from braincog_transformers.nodes import PLIAFNode

both_modes = pytest.mark.parametrize("layer_by_layer", [True, False], ids=["layer_by_layer", "step_by_step"])


@both_modes
def test_rates_are_those_worked_out_by_hand(small_net, currents, layer_by_layer):
    early, late = firing_rates(small_net(layer_by_layer=layer_by_layer), [currents])
    assert early == Row(
        "early", rate=0.75, per_step=(0.5, 1.0, 0.5, 1.0), neurons=2, silent=0.0, samples=1, saturated=0.5
    )
    assert late == Row("late", rate=0.375, per_step=(0.0, 0.5, 0.0, 1.0), neurons=2, silent=0.0, samples=1)


@both_modes
def test_batching_changes_nothing(small_net, layer_by_layer):
    model = small_net(layer_by_layer=layer_by_layer)
    x = torch.rand(7, 2, generator=torch.Generator().manual_seed(0))
    together, apart = firing_rates(model, [x]), firing_rates(model, [(x[:3], None), (x[3:], None)])
    for row, other in zip(together, apart, strict=True):
        assert row.rate == pytest.approx(other.rate, abs=1e-12)
        assert row.per_step == pytest.approx(other.per_step, abs=1e-12)
        assert (row.silent, row.saturated, row.samples) == (other.silent, other.saturated, 7)
        for state, mask in row.masks.items():
            assert np.array_equal(mask, other.masks[state])


@both_modes
@pytest.mark.parametrize("batches", [1, 3])
def test_of_real_numbers_the_rate_is_called_their_mean(layer_by_layer, batches):
    node = PLIAFNode(step=2, layer_by_layer=layer_by_layer)
    x = torch.tensor([[[4.0, 0.5], [4.0, 0.5]]])  # 2 and 2, 0.25 and 0.375
    model = nn.Sequential(node)
    model.forward = lambda x: node(x[0]) if layer_by_layer else [node.n_reset(), *map(node, x.unbind(1))]
    rows = firing_rates(model, [0 * x] * (batches - 1) + [x])
    assert real_outputs(rows) == ["0"]
    assert rows[0].rate == pytest.approx((4 + 0.625) / 4 / batches)
    assert "of real numbers, not spikes, the mean: 0" in format_table(rows)
    assert "1 with real numbers for spikes (the rate is their mean): 0" in extremes(rows)
    assert "saturated" not in extremes(rows)


def test_an_empty_batch_changes_nothing(small_net, currents):
    assert firing_rates(small_net(), [currents[:0], currents]) == firing_rates(small_net(), [currents])


def test_single_steps_of_a_streaming_network_are_refused_and_so_is_another_number_of_steps(small_net, currents):
    model = small_net()
    model.streaming = True
    with pytest.raises(UserError, match=r"is streaming.* set_streaming\(False"):
        firing_rates(model, [currents])
    model = small_net()
    with rating(model) as rows:
        model(currents)
        model.step = model.early.step = model.late.step = 3
        model(currents)
    with pytest.raises(ValueError, match="one number of steps; early saw 3 and 4"):
        rows()


def test_silent_neurons_are_those_that_no_sample_wakes(small_net):
    asleep = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    early, _ = firing_rates(small_net(), [asleep[:1], asleep[1:]])
    assert early.silent == 0.5
    assert early.masks["silent"].tolist() == [False, True]


@both_modes
def test_saturated_neurons_are_those_that_rest_for_no_sample(small_net, currents, layer_by_layer):
    model = small_net(layer_by_layer=layer_by_layer)
    early, late = firing_rates(model, [currents, 2 * currents])
    assert early.masks["saturated"].tolist() == [True, False]
    assert (early.saturated, late.saturated) == (0.5, 0.0)
    early, _ = firing_rates(model, [2 * currents, torch.tensor([[0.5, 0.5]])])
    assert early.saturated == 0.0


def test_modes_and_hooks_are_as_before(small_net, currents):
    model = small_net().train()
    firing_rates(model, [currents])
    assert model.training
    assert not model.early._forward_hooks


def test_no_data_is_refused(small_net):
    with pytest.raises(UserError, match="needs at least one batch of data; got none"):
        firing_rates(small_net(), [])


def test_a_network_without_neurons_has_no_rates():
    assert firing_rates(nn.Linear(2, 2), [torch.rand(1, 2)]) == []


def test_a_network_whose_neurons_are_not_called_is_refused():
    network = nn.Linear(2, 2)
    network.node = LIFNode(step=1, layer_by_layer=True)
    with pytest.raises(UserError, match="no node of Linear was called"):
        firing_rates(network, [torch.rand(1, 2)])


def test_rates_are_written_as_json_and_as_a_table(small_net, currents, tmp_path):
    rows = firing_rates(small_net(), [currents])
    data, table = write_rates(rows, tmp_path / "new")
    written = json.loads(data.read_text())
    assert (written["samples"], written["steps"], written["overall"]) == (1, 4, overall_rate(rows))
    assert written["rows"][0] == {
        "name": "early", "rate": 0.75, "per_step": [0.5, 1, 0.5, 1], "neurons": 2, "silent": 0, "saturated": 0.5,
        "real": False, "planes": 1,
    }  # fmt: skip
    with table.open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["name"], float(first["saturated"]), float(first["t2"])) == ("early", 0.5, 1.0)


def test_silent_and_saturated_channels_are_listed_and_each_neuron_is_kept(tmp_path):
    image, tokens, gate = np.zeros((3, 2, 2), bool), np.zeros((5, 2), bool), np.array([True, False])
    image[1] = tokens[:, 1] = True
    image[2, 0] = True  # half a channel
    nothing = np.zeros_like
    rows = [
        Row("conv", 0.5, (0.5,), 12, 0.5, 1, 0.0, {"silent": image, "saturated": nothing(image)}),
        Row("linear", 0.5, (0.5,), 10, 0.0, 1, 0.5, {"silent": nothing(tokens), "saturated": tokens}),
        Row("gate", 0.5, (0.5,), 2, 0.5, 1, 0.0, {"silent": gate, "saturated": nothing(gate)}),
    ]
    table, data = write_silent(rows, tmp_path)
    assert table.read_text().splitlines() == [
        "layer,channel,neurons,state", "conv,1,4,silent", "linear,1,5,saturated", "gate,0,1,silent"
    ]  # fmt: skip
    masks = np.load(data)
    assert len(masks.files) == 6
    assert np.array_equal(masks["conv/silent"], image)
    assert np.array_equal(masks["linear/saturated"], tokens)


@pytest.mark.parametrize("write", [write_rates, write_silent])
def test_a_folder_that_cannot_be_written_is_one_line(write, tmp_path):
    (tmp_path / "file").touch()
    rows = [Row("a", 0.5, (0.5,), 1, 0.0, 1)]
    with pytest.raises(
        UserError, match=r"^output folder '.*file' can't be written \(File exists\); name another"
    ) as raised:
        write(rows, tmp_path / "file")
    assert "\n" not in str(raised.value)


def test_the_whole_network_weighs_layers_by_their_neurons():
    rows = [Row("a", 0.5, (0.5,), 30, 0.0, 1), Row("b", 0.1, (0.1,), 10, 0.0, 1)]
    assert overall_rate(rows) == pytest.approx(0.4)


@pytest.mark.parametrize(("steps", "columns"), [(4, 9), (12, 5)], ids=["steps_shown", "steps_left_out"])
def test_the_table_is_aligned(steps, columns):
    rows = [
        Row("stem.lif", 0.25, (0.25,) * steps, 12345, 0.031, 1000, 0.02),
        Row("block.0.attn.lif", 0.5, (0.5,) * steps, 7, 1.0, 1000),
    ]
    caption, rule, header, _, first, second, _, total = format_table(rows).splitlines()
    assert "1,000 samples" in caption
    assert len(header.split()) == columns
    assert len(header) == len(first) == len(second) == len(rule)
    assert first.split()[:5] == ["stem.lif", "12,345", "0.2500", "3.1%", "2.0%"]
    assert total.split() == ["all", "12,352", "0.2501"]


def test_silent_and_saturated_layers_are_named():
    from braincog_transformers.analysis.firing import Row, extremes

    rates = {"a": 0.0, "b": 0.5, "c": 0.95, "d": 0.004}
    rows = [Row(name, rate, (rate,), 10, 0.0, 1) for name, rate in rates.items()]
    assert extremes(rows) == "of 4 neuron layers 2 silent (below 0.005): a, d; 1 saturated (above 0.9): c"
    assert extremes(rows[1:2]) == ""
    assert extremes(rows[:1] * 6).endswith("a, a, a, a, ...")
