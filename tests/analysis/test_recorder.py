"""The recorder sees every spike, names it rightly, and leaves no trace."""

import pytest
import torch
from torch import nn

from braincog_transformers.analysis.recorder import frozen_inference, record, unwrap
from braincog_transformers.errors import UserError

EARLY = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
EARLY_MEMBRANE = torch.tensor([[0.0, 0.5], [0.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
LATE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
both_modes = pytest.mark.parametrize("layer_by_layer", [True, False], ids=["layer_by_layer", "step_by_step"])


@both_modes
def test_spikes_are_those_worked_out_by_hand(small_net, currents, layer_by_layer):
    model = small_net(layer_by_layer=layer_by_layer)
    with record(model) as records:
        model(torch.cat([0 * currents, currents]))
    assert not records["early"].spikes[:, 0].any()
    assert torch.equal(records["early"].spikes[:, 1], EARLY)
    assert torch.equal(records["late"].spikes[:, 1], LATE)
    assert records["early"].threshold == pytest.approx(0.9)


@both_modes
def test_membranes_are_those_after_the_reset(small_net, currents, layer_by_layer):
    model = small_net(layer_by_layer=layer_by_layer)
    with record(model, spikes=False, membranes=True) as records:
        model(currents)
    assert torch.equal(records["early"].membranes[:, 0], EARLY_MEMBRANE)


def test_nodes_come_in_the_order_of_execution_and_unused_ones_not_at_all(small_net, currents):
    model = small_net()
    with record(model) as records:
        model(currents)
    assert list(records) == ["early", "late"]


def test_everything_is_put_back_after_an_error_too(small_net, currents):
    model = small_net()
    model.early.requires_mem, model.early.mem_collect = True, ["mine"]
    model.head = nn.Linear(7, 1)  # fails, after the nodes ran
    with pytest.raises(RuntimeError), record(model, membranes=True):
        model(currents)
    assert not any(node._forward_hooks for node in model.modules())
    assert (model.early.requires_mem, model.early.mem_collect) == (True, ["mine"])
    assert (model.late.requires_mem, model.late.mem_collect) == (False, [])


def test_grouped_nodes_carry_their_steps_in_the_channels(small_net, currents):
    model = small_net()
    model.early.layer_by_layer, model.early.groups = False, 4
    with record(model) as records:
        model.early(currents.repeat_interleave(4, dim=1))  # b (c t)
    assert torch.equal(records["early"].spikes[:, 0], EARLY)


def test_a_network_without_nodes_is_refused():
    with pytest.raises(UserError, match=r"needs a spiking network, .*; Linear has none"), record(nn.Linear(2, 2)):
        pass


def test_each_module_gets_its_own_mode_back(small_net):
    model = small_net().train()
    model.late.eval()
    with frozen_inference(model):
        assert not model.early.training
        assert not torch.is_grad_enabled()
    assert model.training
    assert model.early.training
    assert not model.late.training


def test_the_network_inside_a_compiled_one_keeps_its_names(small_net):
    model = small_net()
    assert unwrap(torch.compile(model)) is model
    assert unwrap(nn.DataParallel(model)) is model
