"""Firing rates are counts divided by neurons, steps and samples, whatever the batch or the mode."""

import pytest
import torch

from braincog_transformers.analysis.firing import Row, firing_rates, format_table, overall_rate

both_modes = pytest.mark.parametrize("layer_by_layer", [True, False], ids=["layer_by_layer", "step_by_step"])


@both_modes
def test_rates_are_those_worked_out_by_hand(small_net, currents, layer_by_layer):
    early, late = firing_rates(small_net(layer_by_layer=layer_by_layer), [currents])
    assert early == Row("early", rate=0.75, per_step=(0.5, 1.0, 0.5, 1.0), neurons=2, silent=0.0, samples=1)
    assert late == Row("late", rate=0.375, per_step=(0.0, 0.5, 0.0, 1.0), neurons=2, silent=0.0, samples=1)


@both_modes
def test_batching_changes_nothing(small_net, layer_by_layer):
    model = small_net(layer_by_layer=layer_by_layer)
    x = torch.rand(7, 2, generator=torch.Generator().manual_seed(0))
    together, apart = firing_rates(model, [x]), firing_rates(model, [(x[:3], None), (x[3:], None)])
    for row, other in zip(together, apart, strict=True):
        assert row.rate == pytest.approx(other.rate, abs=1e-12)
        assert row.per_step == pytest.approx(other.per_step, abs=1e-12)
        assert (row.silent, row.samples) == (other.silent, 7)


def test_silent_neurons_are_those_that_no_sample_wakes(small_net):
    asleep = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    early, _ = firing_rates(small_net(), [asleep[:1], asleep[1:]])
    assert early.silent == 0.5


def test_modes_and_hooks_are_as_before(small_net, currents):
    model = small_net().train()
    firing_rates(model, [currents])
    assert model.training
    assert not model.early._forward_hooks


def test_no_data_is_refused(small_net):
    with pytest.raises(ValueError, match="needs a batch"):
        firing_rates(small_net(), [])


def test_the_whole_network_weighs_layers_by_their_neurons():
    rows = [Row("a", 0.5, (0.5,), 30, 0.0, 1), Row("b", 0.1, (0.1,), 10, 0.0, 1)]
    assert overall_rate(rows) == pytest.approx(0.4)


@pytest.mark.parametrize(("steps", "columns"), [(4, 8), (12, 4)], ids=["steps_shown", "steps_left_out"])
def test_the_table_is_aligned(steps, columns):
    rows = [
        Row("stem.lif", 0.25, (0.25,) * steps, 12345, 0.031, 1000),
        Row("block.0.attn.lif", 0.5, (0.5,) * steps, 7, 1.0, 1000),
    ]
    caption, rule, header, _, first, second, _, total = format_table(rows).splitlines()
    assert "1,000 samples" in caption
    assert len(header.split()) == columns
    assert len(header) == len(first) == len(second) == len(rule)
    assert first.split()[:4] == ["stem.lif", "12,345", "0.2500", "3.1%"]
    assert total.split() == ["all", "12,352", "0.2501"]


def test_silent_and_saturated_layers_are_named():
    from braincog_transformers.analysis.firing import Row, extremes

    rates = {"a": 0.0, "b": 0.5, "c": 0.95, "d": 0.004}
    rows = [Row(name, rate, (rate,), 10, 0.0, 1) for name, rate in rates.items()]
    assert extremes(rows) == "of 4 neuron layers 2 silent (below 0.005): a, d; 1 saturated (above 0.9): c"
    assert extremes(rows[1:2]) == ""
    assert extremes(rows[:1] * 6).endswith("a, a, a, a, ...")
