"""Neurons written as one step in plain PyTorch: values, gradients, modes, and steps that no kernel can be made of."""

import copy
from typing import NamedTuple

import pytest
import timm
import torch
from torch import Tensor, nn

from braincog_transformers import UserError
from braincog_transformers.nodes import ALIFNode, CLIFNode, SpikingNode, make_node, register_node
from braincog_transformers.ops.kernels import fused_neuron
from braincog_transformers.runtime import packing
from braincog_transformers.runtime.packing import packed_spikes

T = 4
KINDS = {"ALIFNode": {"beta": 0.7, "tau_adaptation": 3.0}, "CLIFNode": {}, "PLIAFNode": {}}


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, over):
        ctx.save_for_backward(over)
        return (over >= 0).double()

    @staticmethod
    def backward(ctx, grad):
        s = torch.sigmoid(4 * ctx.saved_tensors[0])
        return grad * 4 * s * (1 - s)


def alif(x, threshold):
    v, a, rho, spikes = 0.0, 0.0, torch.exp(torch.tensor(-1 / 3, dtype=torch.float64)), []
    for x_t in x:
        h = v + (x_t - v) / 2
        s = _Step.apply(h - threshold - 0.7 * a)
        v = h - s * (threshold + 0.7 * a)
        a = rho * a + (1 - rho) * s
        spikes.append(s)
    return torch.stack(spikes)


def clif(x, threshold):
    v, m, spikes = 0.0, 0.0, []
    for x_t in x:
        h = v / 2 + x_t
        s = _Step.apply(h - threshold)
        m = m * torch.sigmoid(h / 2) + s
        v = h - s * (threshold + torch.sigmoid(m))
        spikes.append(s)
    return torch.stack(spikes)


def pliaf(x, threshold, w=0.0):
    v, w, out = 0.0, torch.as_tensor(w, dtype=torch.float64), []
    for x_t in x:
        h = v + (x_t - v) * torch.sigmoid(w)
        out.append(h.clamp(min=0))
        v = h * (h < threshold)
    return torch.stack(out) + 0 * threshold


def build(kind, **options):
    options = {**KINDS.get(kind, {}), "threshold": 0.6, "act_fun": "SigmoidGrad", "alpha": 4.0, "step": T, **options}
    return make_node(kind, **{"layer_by_layer": True, **options})


def agrees(kind, expected):
    learns = kind != "PLIAFNode"  # whose output does not depend on where the threshold is, but at it
    node, weight = build(kind, requires_thres_grad=learns).double(), torch.randn(T, 6, 5, 7, dtype=torch.float64)
    found = []
    for ours in (True, False):
        x = torch.randn(T, 6, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        threshold = torch.tensor(0.6, dtype=torch.float64).fill_(node.threshold.item()).requires_grad_()
        with packed_spikes():
            spikes = node(x.flatten(0, 1)).view(x.shape) if ours else expected(x, threshold)
        (spikes * weight).sum().backward()
        own = node.threshold.grad if learns else torch.zeros((), dtype=torch.float64)
        found.append((spikes, x.grad, own if ours else threshold.grad))
    assert 0.05 < found[0][0].mean() < 0.95
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


OURS = [("ALIFNode", alif), ("CLIFNode", clif), ("PLIAFNode", pliaf)]


@pytest.mark.parametrize(("kind", "expected"), OURS)
def test_values_and_gradients_are_those_of_a_loop(kind, expected):
    agrees(kind, expected)


COMPILED = [pytest.mark.kernels, pytest.mark.slow]


@pytest.mark.parametrize(("kind", "expected"), [*OURS, *(pytest.param(*one, marks=COMPILED) for one in OURS)])
def test_so_are_those_of_the_kernels(kind, expected, monkeypatch):
    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 0)
    agrees(kind, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_step_by_step_is_all_steps_at_once(kind):
    node, x = build(kind, requires_mem=True), torch.randn(T * 3, 8)
    spikes, mem = node(x), node.mem
    node.layer_by_layer = False
    node.n_reset()
    halves = [node(part) for part in x.chunk(T)[:2]]
    twin = copy.deepcopy(node)
    for one in (node, twin):
        assert torch.equal(torch.cat([*halves, *(one(part) for part in x.chunk(T)[2:])]), spikes)
        assert torch.equal(one.mem, mem)
    node.n_reset()
    assert node.mem is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_trains_with_them(kind):
    model = timm.create_model("spikformer_digits", node_type=kind, threshold=0.4)
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "bn" in name)


def test_the_leak_of_an_analog_neuron_learns_as_in_a_loop(monkeypatch):
    for least in (0, 1 << 40):
        monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", least)
        node, x = build("PLIAFNode").double(), torch.randn(T, 6, 5, dtype=torch.float64)
        w = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
        (node(x.flatten(0, 1)).view(x.shape) * x).sum().backward()
        (pliaf(x, 0.6, w) * x).sum().backward()
        torch.testing.assert_close(node.w.grad, w.grad, rtol=1e-9, atol=1e-12)


def test_a_threshold_that_would_learn_nothing_is_refused():
    with pytest.raises(UserError, match=r"its threshold gets no gradient.* soft_reset=True"):
        build("PLIAFNode", requires_thres_grad=True)
    node = build("PLIAFNode", requires_thres_grad=True, soft_reset=True)
    node(torch.randn(T * 3, 8)).sum().backward()
    assert node.threshold.grad


def test_real_numbers_are_not_kept_as_bits(monkeypatch):
    """On a GPU nothing would notice that the bits are not the numbers."""
    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 0)
    monkeypatch.setattr(fused_neuron, "compiler_works", lambda _: True)
    noted = []
    monkeypatch.setattr(packing, "note", lambda spikes, bits: noted.append(spikes))
    for kind in ("ALIFNode", "PLIAFNode"):
        with packed_spikes():
            build(kind)(torch.randn(T * 3, 8).requires_grad_())
    assert len(noted) == 1


def test_a_neuron_that_puts_out_other_numbers_says_so():
    class Graded(SpikingNode):
        State, Parameters = Own.State, ALIFNode.Parameters

        def __init__(self, threshold=0.5, **kwargs):
            super().__init__(threshold, **kwargs)
            self.tau = self.rho = self.beta = 1.0

        @staticmethod
        def advance(x, state, p, fire):
            return x * fire(x - p.threshold), state

    with pytest.raises(UserError, match=r"Graded puts out other numbers than 0 and 1.* binary = False"):
        register_node(Graded)


class Own(SpikingNode):
    class State(NamedTuple):
        v: Tensor = 0.0

    class Parameters(NamedTuple):
        threshold: Tensor
        decay: Tensor
        soft: bool

    def __init__(self, threshold=0.5, soft=False, **kwargs):
        super().__init__(threshold, **kwargs)
        self.decay = nn.Parameter(torch.tensor(0.7))
        self.soft = soft

    @staticmethod
    def advance(x, state, p, fire):
        h = p.decay * state.v + x
        s = fire(h - p.threshold)
        return s, state._replace(v=h - s * p.threshold if p.soft else h * (1 - s))


class Noisy(Own):
    @staticmethod
    def advance(x, state, p, fire):
        return Own.advance(x + torch.rand_like(x), state, p, fire)


class Branching(Own):
    @staticmethod
    def advance(x, state, p, fire):
        return Own.advance(x, state, p, fire) if x.sum() < 1e9 else None


@pytest.mark.parametrize("soft", [pytest.param(True, marks=pytest.mark.kernels), False])
def test_a_users_parameters_learn_in_the_kernel(soft, monkeypatch):
    found = []
    for least in (0, 1 << 40):
        monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", least)
        node = Own(soft=soft, step=T, layer_by_layer=True).double()
        x = torch.linspace(-1, 2, T * 30, dtype=torch.float64).view(T * 5, 6).requires_grad_()
        spikes = node(x)
        (spikes * x.detach()).sum().backward()
        found.append((spikes, x.grad, node.decay.grad))
    assert found[0][2].abs() > 0
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_noise_is_not_drawn_twice_and_what_can_t_be_traced_runs_as_it_is(monkeypatch):
    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 0)
    x = torch.randn(T * 5, 6).requires_grad_()
    noisy = Noisy(step=T, layer_by_layer=True)
    torch.manual_seed(0)
    spikes = noisy(x)
    noisy.layer_by_layer = False
    torch.manual_seed(0)
    assert torch.equal(spikes, torch.cat([noisy(part) for part in x.chunk(T)]))
    with pytest.warns(RuntimeWarning, match="Branching.advance can't be traced"):
        Branching(step=T, layer_by_layer=True)(x).sum().backward()
    assert x.grad is not None


def test_what_a_step_must_be_is_said():
    with pytest.raises(TypeError, match=r"Mine\.advance must be a @staticmethod"):
        type("Mine", (Own,), {"advance": lambda self, x: x})
    with pytest.raises(TypeError, match="unexpected keyword argument betta; did you mean beta"):
        ALIFNode(betta=1.0)
    assert isinstance(make_node(Own, step=2), Own)
    assert CLIFNode(step=2).extra_repr() == "threshold=1, step=2, not layer_by_layer"
