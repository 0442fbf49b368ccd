"""Dynamic SpikFormer: with all steps open it is Spikformer; what closed steps and their scores do."""

import copy
import pickle

import pytest
import timm
import torch
from families import batch, tiny, wake
from families.dynamic_spikformer import TINY

from braincog_transformers import UserError
from braincog_transformers.analysis.firing import firing_rates
from braincog_transformers.analysis.recorder import record
from braincog_transformers.recipe.groups import OptimOptions
from braincog_transformers.training.optim import build_optimizer

NAME, T = "dynamic_spikformer_4_384_cifar", 3


def model_of(**options):
    return wake(tiny(NAME, step=T, **options))


def close(node, *steps):
    with torch.no_grad():
        node.scores[list(steps)] = -0.5


def test_with_all_steps_open_it_is_spikformer_bit_for_bit():
    ours = model_of()
    torch.manual_seed(0)
    theirs = timm.create_model("spikformer_4_384_cifar", **{**TINY, "step": T})
    theirs.load_state_dict({name: value for name, value in ours.state_dict().items() if "scores" not in name})
    x = batch(ours)
    for model in (ours, theirs):
        model.train()(x).square().sum().backward()
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, msg=name)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert ours.figures() == {"time_steps": T}


def test_a_closed_layer_emits_nothing_and_its_scores_have_a_gradient():
    model = model_of()
    node = model.blocks[0].mlp.fc1.node
    close(node, *range(T))
    with record(model) as seen:
        model(batch(model)).square().sum().backward()
    assert not seen["blocks.0.mlp.fc1.node"].spikes.any()
    assert seen["blocks.1.attn.q.node"].spikes.any()
    assert node.scores.grad.isfinite().all()
    assert node.scores.grad.any()
    assert model.figures() == {"time_steps": pytest.approx(T - T / len(model.nodes))}


@pytest.mark.parametrize("node_type", ["LIFNode", "ALIFNode", "BiasLIFNode", "NoisePLIFNode", "ReLUNode"])
def test_any_neuron_is_masked_and_its_records_too(node_type):
    model = model_of(node_type=node_type, act_fun="AtanGrad", alpha=2.0)
    for node in model.nodes.values():
        close(node, 1)
    model.set_requires_fp(True)
    with record(model) as seen:
        model(batch(model)).sum().backward()
    for name, node in model.nodes.items():
        spikes = seen[name].spikes
        assert not spikes[1].any(), name
        assert not node.feature_map[1].any(), name
        if node_type != "ReLUNode":
            assert [one.any().item() for one in node.feature_map] == [step.any().item() for step in spikes], name
    for row in firing_rates(model, [batch(model)]):
        assert row.per_step[1] == 0, row.name


@pytest.mark.parametrize("node_type", ["LIFNode", "BiasLIFNode"])
def test_the_mask_leaves_the_membrane_alone(node_type):
    model = model_of(node_type=node_type)
    name = next(iter(model.nodes))
    x = batch(model)
    with record(model) as opened:
        model(x)
    close(model.nodes[name], 0)
    with record(model) as closed:
        model(x)
    assert opened[name].spikes[0].any()
    assert torch.equal(opened[name].spikes[1:], closed[name].spikes[1:])


@pytest.mark.parametrize("node_type", ["LIFNode", "BiasLIFNode"])
def test_closed_steps_step_by_step_and_streaming(node_type):
    model = model_of(node_type=node_type).double().eval()
    for index, node in enumerate(model.nodes.values()):
        close(node, index % T)
    x = batch(model, events=True).double()
    expected = model(x)
    model.set_attr("layer_by_layer", False)
    torch.testing.assert_close(model(x), expected)
    model.set_streaming()
    model.reset()
    first, *others = x.unbind(1)
    logits = [model(first)]
    going_on = pickle.loads(pickle.dumps(model))
    for copied in (going_on, copy.deepcopy(model)):
        torch.testing.assert_close(torch.stack(logits + [copied(frame) for frame in others]).mean(0), expected)
    with pytest.raises(ValueError, match="scores are those of 3 steps"):
        going_on(first)


def test_the_mask_hands_its_gradient_straight_to_scores_near_zero():
    node = model_of().nodes["blocks.0.attn.attn_node"]
    node.scores.data = torch.tensor([-1.5, 0.0, 0.3])
    mask = node.mask()
    assert mask.tolist() == [0, 0, 1]
    (mask * torch.tensor([1.0, 2, 3])).sum().backward()
    assert node.scores.grad.tolist() == [0, 2, 3]


def test_scores_do_not_decay_and_the_penalty_lowers_them():
    model = model_of()
    names = {f"{name}.scores" for name in model.nodes}
    assert names <= model.no_weight_decay()
    optimizer = build_optimizer(model, OptimOptions(weight_decay=0.1), lr=0.1)
    scores = {id(model.get_parameter(name)) for name in names}
    for group in optimizer.param_groups:
        if scores & {id(parameter) for parameter in group["params"]}:
            assert group["weight_decay"] == 0
    model.extra_loss().backward()
    sigmoid = torch.tensor(1.0).sigmoid()
    expected = 1e-2 * sigmoid * (1 - sigmoid) / (T * len(model.nodes))
    for name in names:
        torch.testing.assert_close(model.get_parameter(name).grad, expected.expand(T))
    torch.testing.assert_close(model.extra_loss(), 1e-2 * sigmoid)
    assert tiny(NAME, penalty=0.0).extra_loss() == 0
    with pytest.raises(UserError, match="penalty must be at least 0; got -1"):
        tiny(NAME, penalty=-1)


def test_another_number_of_steps_is_refused():
    with pytest.raises(UserError, match=r"step stays 3, as built, because each step has scores of its own; got 2"):
        model_of().set_attr("step", 2)
