"""The integer neuron: values, both rounding rules with their gradients at ends and ties, T > 1, packing, networks."""

import copy

import pytest
import timm
import torch
from torch import nn

from braincog_transformers import ILIFNode, UserError
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.nodes import make_node, register_node
from braincog_transformers.ops.kernels import fused_neuron
from braincog_transformers.runtime.packing import packed_spikes

KERNELS = [0, pytest.param(1, marks=[pytest.mark.kernels, pytest.mark.slow])]

POTENTIALS = [-1.0, 0.0, 0.25, 0.5, 1.5, 2.5, 3.5, 4.0, 4.25]


def build(step=1, **options):
    return ILIFNode(**{"threshold": 1.0, "tau": 1.0, "step": step, "layer_by_layer": True, **options}).double()


def respond(node, potentials=POTENTIALS):
    """Return what a node fires at each potential, and its slope there."""
    x = torch.tensor([potentials], dtype=torch.float64, requires_grad=True)
    fired = node(x)
    fired.sum().backward()
    return fired[0].tolist(), x.grad[0].tolist()


def test_halves_are_rounded_to_even_with_a_gradient_at_both_ends():
    assert respond(build(norm=1)) == ([0, 0, 0, 0, 2, 2, 4, 4, 4], [0, 1, 1, 1, 1, 1, 1, 1, 0])


def test_or_up_without_a_gradient_at_the_ends():
    assert respond(build(norm=1, rounding="up")) == ([0, 0, 0, 1, 2, 3, 4, 4, 4], [0, 0, 1, 1, 1, 1, 1, 0, 0])


def test_what_is_fired_is_divided_and_the_gradient_with_it():
    fired, slope = respond(build(levels=2), [-1.0, 0.75, 1.75, 3.0])
    assert (fired, slope) == ([0, 0.5, 1, 1], [0, 0.5, 0.5, 0])
    fired, slope = respond(build(levels=4, norm=8), [3.0])
    assert (fired, slope) == ([3 / 8], [1 / 8])


def test_the_threshold_is_what_one_more_spike_costs():
    fired, slope = respond(build(threshold=0.5, norm=1), [0.2, 0.4, 1.4, 3.0])
    assert (fired, slope) == ([0, 1, 3, 4], [2, 2, 2, 0])


def test_a_learnt_threshold_gets_the_gradient_of_the_division():
    node = build(threshold=0.5, norm=1, requires_thres_grad=True)
    respond(node, [0.25, 1.0, 3.0])
    assert node.threshold.grad.item() == -0.25 / 0.25 - 1 / 0.25  # -h / threshold^2 within the range


def test_a_level_is_a_number_that_makes_sense():
    for options, words in [
        ({"levels": 0}, "levels must be a whole number from 1 to 255; got 0"),
        ({"levels": 2.5}, "got 2.5"),
        ({"levels": 256}, "got 256"),
        ({"norm": 0}, "norm must be above 0; got 0"),
        ({"rounding": "down"}, "rounding must be 'even' or 'up'; got 'down'"),
        ({"tau": 0.5}, "tau must be at least 1 step; got 0.5"),
        ({"act_fun": "AtanGrad"}, "act_fun belong"),
        ({"alpha": 4.0, "strict": True}, "alpha, strict belong"),
    ]:
        with pytest.raises(UserError, match=words):
            build(**options)
    node = build(levels=4)
    node.levels = 8
    assert node.divisor == 8
    with pytest.raises(UserError, match="levels must be"):
        node.levels = 0


def loop(x, tau, levels):
    """What the neuron's docstring says, step by step: with Python's round, which rounds halves to even."""
    v, fired = [0.0] * x.shape[1], []
    for x_t in x.tolist():
        h = [(1 - 1 / tau) * v_i + x_i for v_i, x_i in zip(v, x_t, strict=True)]
        n = [round(min(max(h_i, 0.0), levels)) for h_i in h]
        v = [h_i - n_i for h_i, n_i in zip(h, n, strict=True)]
        fired.append(n)
    return torch.tensor(fired, dtype=torch.float64)


@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0])
def test_steps_integrate_subtract_and_leak(tau):
    x = torch.randn(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 3
    node = build(5, tau=tau, levels=3, norm=1)
    assert torch.equal(node(x), loop(x, tau, 3))
    # what is left of h at the last step; within the call nothing is kept
    node.layer_by_layer = False
    node.n_reset()
    assert torch.equal(torch.cat([node(x_t[None]) for x_t in x]), loop(x, tau, 3))


def test_without_memory_no_step_depends_on_another():
    x = torch.randn(4, 30, dtype=torch.float64) * 3
    weight = torch.randn_like(x)
    found = []
    for step in (4, 1):
        part = x.clone().requires_grad_()
        fired = build(step)(part) if step == 4 else torch.cat([build()(x_t[None]) for x_t in part])
        (fired * weight).sum().backward()
        found.append((fired, part.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def by_autograd(x, weight, tau, norm, rounding):
    """The definition once more: in single operations, the rounding as a constant that is added."""
    v, fired = torch.zeros_like(x[0]), []
    for x_t in x:
        h = (1 - 1 / tau) * v + x_t
        inside = (h >= 0) & (h <= 4) if rounding == "even" else (h > 0) & (h < 4)
        whole = h.clamp(0, 4).round() if rounding == "even" else (h.clamp(0, 4) + 0.5).floor()
        n = h * inside + (whole - h * inside).detach()
        v = h - n
        fired.append(n / norm)
    (torch.stack(fired) * weight).sum().backward()
    return torch.stack(fired)


@pytest.mark.parametrize("compiled", KERNELS)
@pytest.mark.parametrize(("norm", "rounding"), [(4, "even"), (1, "even"), (1, "up")])
def test_values_and_gradients_are_those_of_the_definition(compiled, norm, rounding, monkeypatch):
    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 0 if compiled else 1 << 40)
    x = torch.randn(3, 16, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 3
    x[0, 0, :9] = torch.tensor([-1, 0, 0.5, 1.5, 2.5, 3.5, 4, 4.5, 5])
    weight, other = torch.randn_like(x), x.clone().requires_grad_()
    expected, x = by_autograd(other, weight, 2.0, norm, rounding), x.requires_grad_()
    node = build(3, tau=2.0, norm=norm, rounding=rounding)
    with packed_spikes():
        fired = node(x.flatten(0, 1)).view(x.shape)
    (fired * weight).sum().backward()
    assert torch.equal(fired, expected)
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("compiled", KERNELS)
@pytest.mark.parametrize("norm", [None, 1])
def test_what_is_kept_for_the_backward_pass_is_what_was_fired(norm, compiled, monkeypatch):
    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 0 if compiled else 1 << 40)
    x = torch.randn(4 * 16, 256, generator=torch.Generator().manual_seed(1)) * 4
    layer, node = nn.Linear(256, 8), ILIFNode(step=4, layer_by_layer=True, levels=3, norm=norm)
    found = []
    for packs in (True, False):
        layer.zero_grad()
        if packs:
            with packed_spikes():
                out = layer(node(x))
        else:
            out = layer(node(x))
        out.square().sum().backward()
        found.append(layer.weight.grad.clone())
    assert node(x).unique().numel() == 4
    assert torch.equal(*found)


def test_transforms_of_functions_go_through_it():
    node, x = build(norm=1), torch.tensor([[-0.5, 0.3, 2.0, 5.0]], dtype=torch.float64)
    slope = torch.func.grad(lambda y: node(y).sum())(x)
    assert slope.tolist() == [[0, 1, 1, 0]]
    assert torch.func.vmap(node)(x[None])[0].tolist() == [[0, 0, 2, 4]]
    one, tangent = torch.func.jvp(node, (x,), (torch.ones_like(x),))
    assert (one.tolist(), tangent.tolist()) == ([[0, 0, 2, 4]], [[0, 1, 1, 0]])


def test_a_users_neuron_can_be_derived_from_it():
    class Halved(ILIFNode):
        @staticmethod
        def advance(x, state, p, fire):
            return ILIFNode.advance(x / 2, state, p, fire)

    assert make_node(register_node(Halved), step=1, layer_by_layer=True, norm=1)(torch.tensor([4.0])).item() == 2
    assert len(timm.create_model("spikformer_digits", node_type="Halved", levels=2).nodes) == 19


# in networks


def test_networks_set_levels_norm_and_rounding():
    model = timm.create_model("spikformer_digits", node_type="ILIFNode", levels=3, norm=1.0, rounding="up", tau=1.0)
    kinds = {(node.levels, node.norm, node.rounding, node.tau) for node in model.nodes.values()}
    assert kinds == {(3, 1.0, "up", 1.0)}
    assert {node.threshold.item() for node in model.nodes.values()} == {1.0, 0.5}
    model.set_attr("levels", 2)
    assert {node.levels for node in model.nodes.values()} == {2}
    one = model._neuron(norm=4.0)()
    assert (one.norm, one.levels) == (4.0, 3)


def test_what_a_kind_of_neuron_does_not_have_is_refused():
    for options, words in [
        ({"levels": 4}, "LIFNode fires 0 or 1, so it has no levels; node_type=ILIFNode"),
        (
            {"node_type": "PLIFNode", "norm": 1.0, "rounding": "up"},
            "PLIFNode fires 0 or 1, so it has no norm, rounding",
        ),
        (
            {"node_type": "ILIFNode", "act_fun": "AtanGrad"},
            "ILIFNode fires whole numbers, without a surrogate .* act_fun",
        ),
        ({"node_type": "ILIFNode", "levels": 0}, "levels must be at least 1; got 0"),
        ({"node_type": "ILIFNode", "rounding": "upp"}, "rounding"),
    ]:
        with torch.device("meta"), pytest.raises(UserError, match=words):
            timm.create_model("spikformer_digits", **options)


def test_the_papers_options_are_left_to_the_papers_kind_of_neuron():
    options = {"node_type": "ILIFNode", "levels": 8, "tau": 1.0}
    assert NodeOptions.chosen({"levels": 2}, options) == NodeOptions(node_type="ILIFNode", levels=2, tau=1.0)
    assert NodeOptions.chosen({"node_type": "LIFNode"}, options) == NodeOptions()
    assert NodeOptions.chosen({"norm": None}, {"mem_detach": True}) == NodeOptions(mem_detach=True)
    surrogate = {"act_fun": "AtanGrad", "alpha": 2.0, "mem_detach": True}
    assert NodeOptions.chosen({"node_type": ILIFNode}, surrogate) == NodeOptions(node_type=ILIFNode, mem_detach=True)


@pytest.mark.parametrize("norm", [None, 1.0])
def test_a_copy_and_a_state_dict_bring_the_neuron_along(norm):
    model = timm.create_model("spikformer_digits", node_type="ILIFNode", norm=norm).eval()
    x = torch.rand(2, 1, 8, 8)
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(model(x), twin(x))
    assert "levels=4" in repr(make_node("ILIFNode"))
