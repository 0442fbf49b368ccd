"""Neurons that a user changed: a class of his own, a method replaced, a hook, a tensor in place of a number."""

import pytest
import timm
import torch
from families import EXAMPLES, batch, tiny, wake
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

from braincog_transformers import LIFNode, PLIFNode, UserError
from braincog_transformers.layers import LinearBNNode
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.nodes.normalisation import normalised
from braincog_transformers.ops.kernels import fused_neuron

T = 4


@pytest.fixture
def offered(monkeypatch):
    """Offer the kernels for layers of any size, on machines without a compiler too, and stand in for them."""

    def spikes(x, leak, threshold, alpha, dynamics):
        assert threshold.dim() == 0
        return fused_neuron.reference(x, leak, threshold, alpha, dynamics).spikes

    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 0)
    monkeypatch.setattr(fused_neuron, "compiler_works", lambda _: True)
    monkeypatch.setattr(fused_neuron, "spikes", spikes)


class Refractory(LIFNode):
    """Silent at the step after a spike."""

    calls, called = 0, set()

    def forward(self, inputs):
        type(self).calls += 1
        self.called.add(self)
        if not self.layer_by_layer:
            return super().forward(inputs)
        spikes = super().forward(inputs).unflatten(0, (self.step, -1))
        kept = [spikes[0]]
        for spike in spikes[1:]:
            kept.append(spike * (1 - kept[-1]))
        return torch.cat(kept)


class Slower(LIFNode):
    def leak(self):
        return super().leak() * 2


class Soft(LIFNode):
    @property
    def dynamics(self):
        return super().dynamics._replace(soft_reset=True)


class Doubled(LIFNode):
    @staticmethod
    def advance(x, state, numbers, fire):
        return LIFNode.advance(2 * x, state, numbers, fire)


class Always(LIFNode):
    @property
    def _own_fire(self):
        return torch.ones_like


class ByChannel(LIFNode):
    def get_thres(self):
        return self.threshold * torch.tensor([0.25, 1.0, 4.0, 0.5, 2.0, 1.0])


def layer(node_type=LIFNode, norm=nn.BatchNorm1d):
    torch.manual_seed(0)
    built = LinearBNNode(8, 6, node=NodeOptions(node_type=node_type, threshold=0.5).constructor(step=T))
    built.bn = norm(6)
    return built, torch.randn(T * 5, 9, 8)


def test_a_users_neuron_is_called_whatever_the_batch_and_a_sample_does_not_depend_on_it(offered):
    fused_neuron.MIN_ELEMENTS = 1 << 14  # between the sizes of 1 and of 64 samples
    torch.manual_seed(0)
    model = timm.create_model("spikformer_digits", node_type=Refractory, threshold=0.5).eval()
    model.set_attr("integer_products", False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0.5)
    neurons = sum(isinstance(node, Refractory) for node in model.nodes.values())
    x = torch.rand(64, 1, 8, 8)
    logits = {}
    for size in (1, 8, 64):
        Refractory.calls = 0
        with torch.no_grad():
            logits[size] = model(x[:size])
        assert Refractory.calls == neurons
    assert logits[64].std() > 0
    for size in (1, 8):
        torch.testing.assert_close(logits[size], logits[64][:size], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EXAMPLES)
def test_so_it_is_in_every_family(offered, name):
    """In float64, where no rounding turns a spike over; layers of one sample are too small for kernels, of 64 not."""
    fused_neuron.MIN_ELEMENTS = 1 << 11
    model = wake(tiny(name, node_type=Refractory, threshold=0.5)).double().eval()
    neurons = {node for node in model.modules() if isinstance(node, Refractory)}
    x, logits = batch(model, 64).double(), {}
    for size in (1, 8, 64):
        called = Refractory.called = set()
        with torch.no_grad():
            logits[size] = model(x[:size])
        assert called == neurons
    assert logits[64].std() > 0
    for size in (1, 8):
        torch.testing.assert_close(logits[size], logits[64][:size])


@pytest.mark.parametrize("node_type", [Refractory, Slower, Soft, Doubled, Always, ByChannel])
def test_what_a_derived_class_changes_is_what_runs(offered, node_type):
    built, x = layer(node_type)
    assert not built.node.fuses(built.bn, x)
    built.node.layer_by_layer = False
    y = normalised(built.bn, built.linear(x)).detach()
    expected = torch.cat([built.node(step) for step in y.chunk(T)]) if node_type is not Refractory else None
    built.node.n_reset()
    built.node.layer_by_layer = True
    spikes = built.node(y)
    assert not torch.equal(spikes, layer(LIFNode)[0].node(y))
    assert expected is None or torch.equal(spikes, expected)


def _method(built, part="node"):
    module = getattr(built, part)
    module.forward = lambda x, run=module.forward: run(x) * 1


def _pre_hook(built, part="node"):
    getattr(built, part).register_forward_pre_hook(lambda *_: None)


def _hook(built, part="node"):
    getattr(built, part).register_forward_hook(lambda *_: None)


def _backward_hook(built, part="node"):
    getattr(built, part).register_full_backward_hook(lambda *_: None)


def _backward_pre_hook(built, part="node"):
    getattr(built, part).register_full_backward_pre_hook(lambda *_: None)


class Half(nn.Module):
    def forward(self, tensor):
        return tensor / 2


def _parametrised(built, part="node"):
    name = "threshold" if part == "node" else "weight"
    parametrize.register_parametrization(getattr(built, part), name, Half())


@pytest.mark.parametrize("part", ["node", "bn"])
@pytest.mark.parametrize("change", [_method, _pre_hook, _hook, _backward_hook, _backward_pre_hook, _parametrised])
def test_a_changed_or_watched_module_is_called(offered, change, part):
    built, x = layer()
    assert built.node.fuses(built.bn, x)
    change(built, part)
    assert not built.node.fuses(built.bn, x)


@pytest.mark.parametrize(
    "register",
    [
        torch_module.register_module_forward_hook,
        torch_module.register_module_forward_pre_hook,
        torch_module.register_module_full_backward_hook,
        torch_module.register_module_full_backward_pre_hook,
    ],
)
def test_hooks_on_all_modules_meet_every_neuron(offered, register):
    built, x = layer()
    seen = []
    handle = register(lambda module, *_: seen.append(module))
    try:
        assert not built.node.fuses(built.bn, x)
        built(x).sum().backward()
    finally:
        handle.remove()
    assert built.node in seen
    assert built.bn in seen
    assert built.node.fuses(built.bn, x)


def test_a_class_patched_from_outside_and_a_derived_normalisation_are_called(offered, monkeypatch):
    built, x = layer()
    assert not built.node.fuses(layer(norm=type("Mine", (nn.BatchNorm1d,), {}))[0].bn, x)
    monkeypatch.setattr(LIFNode, "forward", lambda self, inputs: torch.zeros_like(inputs))
    assert not built.node.fuses(built.bn, x)


@pytest.mark.parametrize("part", ["weight", "bias", "num_batches_tracked"])
def test_an_incomplete_normalisation_is_called(offered, part):
    built, x = layer()
    setattr(built.bn, part, None)
    assert not built.node.fuses(built.bn, x)
    built(x)


@pytest.mark.parametrize("node_type", [LIFNode, PLIFNode])
def test_a_threshold_for_each_channel_counts_in_layers_of_any_size(offered, node_type):
    built, x = layer(node_type)
    built.node.threshold = nn.Parameter(torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0, 100.0]))
    assert not built.node.fuses(built.bn, x)
    rates = built(x).mean((0, 1))
    assert rates[0] > rates[2] > rates[5] == 0


@pytest.mark.parametrize("name", ["integral", "calc_spike"])
def test_a_method_of_brain_cogs_that_nothing_here_calls_is_refused(name):
    derived, patched = type("Mine", (LIFNode,), {name: lambda *_: None})(), LIFNode()
    setattr(patched, name, lambda *_: None)
    for node in (derived, patched):
        with pytest.raises(UserError, match=f"its own {name} would not be called"):
            node(torch.rand(3))
    whole = type("Mine", (LIFNode,), {name: lambda *_: None, "forward": lambda self, x: x})()
    assert whole(torch.ones(3)).sum() == 3


def _surrogate_hook(node, seen):
    node.act_fun.register_forward_hook(lambda *_: seen.append(1))


def _surrogate_method(node, seen):
    run = node.act_fun.forward
    node.act_fun.forward = lambda x: seen.append(1) or run(x)


def _surrogate_by_channel(node, seen):
    seen.extend([1] * T)
    node.act_fun.alpha = nn.Parameter(torch.full((6,), 2.0), requires_grad=False)


@pytest.mark.parametrize("act_fun", ["AtanGrad", "GateGrad", "QGateGrad", "SigmoidGrad"])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("change", [_surrogate_hook, _surrogate_method, _surrogate_by_channel])
def test_a_changed_or_watched_surrogate_is_called_and_fires_alike_at_the_threshold(offered, act_fun, strict, change):
    x = torch.tensor([-1.0, 0.5, 0.75, 1.0, 1.5, 3.0]).expand(T, 6).contiguous()  # 1.0 charges to the threshold
    found, seen = [], []
    for watched in (False, True):
        node = LIFNode(threshold=0.5, act_fun=act_fun, strict=strict, step=T, layer_by_layer=True)
        if watched:
            change(node, seen)
            assert not node.fusable
        own = x.clone().requires_grad_()
        spikes = node(own)
        (spikes * torch.arange(24.0).view(T, 6)).sum().backward()
        found.append((spikes, own.grad))
    assert len(seen) == T
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_a_surrogate_that_learns_its_steepness_fires_at_the_threshold_where_that_is_asked():
    x = torch.tensor([[1.0]])
    for strict in (True, False):
        node = LIFNode(threshold=0.5, act_fun="AtanGrad", strict=strict, requires_alpha_grad=True)
        assert node(x).item() == (not strict)
