"""BrainCog nodes: interface, both modes, and swapping a BrainCog network's own."""

import logging

import pytest
import torch
from braincog.base.node import node as braincog_node
from braincog.base.node.node import BaseNode
from braincog.base.strategy.surrogate import RoundGrad, SigmoidGrad
from braincog.model_zoo.resnet import resnet18
from braincog.model_zoo.vgg_snn import SNN7_tiny
from torch import nn

from braincog_transformers import IFNode, LIFNode, PLIFNode, UserError, accelerate
from braincog_transformers.nodes import _WRAPPED, WrappedNode, make_node

NODES = [LIFNode, PLIFNode, IFNode]


def quarters(*shape):
    return torch.randint(-4, 12, shape) / 4


@pytest.mark.parametrize("cls", NODES)
@pytest.mark.parametrize("shape", [(6,), (6, 7), (6, 4, 2), (6, 3, 5, 5)], ids=str)
def test_all_steps_at_once_is_step_by_step(cls, shape):
    x = quarters(*shape)
    at_once, stepwise = cls(step=3, layer_by_layer=True), cls(step=3)
    expected = torch.cat([stepwise(x_t) for x_t in x.chunk(3)])
    assert torch.equal(at_once(x), expected)
    assert at_once(x).shape == x.shape


@pytest.mark.parametrize("cls", NODES)
def test_a_second_call_equals_the_first(cls):
    node, x = cls(step=2, layer_by_layer=True), quarters(4, 9)
    assert torch.equal(node(x), node(x))


def test_stepwise_state_stays_until_reset():
    node = LIFNode(threshold=1.0, step=2)
    first = node(torch.full((2,), 1.5))
    second = node(torch.full((2,), 1.5))
    assert first.tolist() == [0, 0]
    assert second.tolist() == [1, 1]
    node.n_reset()
    assert torch.equal(node(torch.full((2,), 1.5)), first)


def test_state_dict_keys():
    assert list(LIFNode().state_dict()) == ["threshold", "act_fun.alpha"]
    assert list(IFNode().state_dict()) == ["threshold", "act_fun.alpha"]
    assert list(PLIFNode().state_dict()) == ["threshold", "w", "act_fun.alpha"]
    assert [name for name, p in PLIFNode().named_parameters() if p.requires_grad] == ["w", "act_fun.alpha"]


@pytest.mark.parametrize("layer_by_layer", [True, False])
def test_records_spikes_and_potentials_as_brain_cog_does(layer_by_layer):
    x = quarters(6, 4)
    ours = LIFNode(act_fun=SigmoidGrad, step=3, layer_by_layer=layer_by_layer, requires_fp=True, requires_mem=True)
    theirs = braincog_node.LIFNode(
        act_fun=SigmoidGrad, step=3, layer_by_layer=layer_by_layer, requires_fp=True, requires_mem=True
    )
    for part in [x] if layer_by_layer else x.chunk(3):
        ours(part)
        theirs(part)
    for name in ("feature_map", "mem_collect"):
        assert len(getattr(ours, name)) == 3
        for got, expected in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            torch.testing.assert_close(got, expected)
    ours.n_reset()
    assert ours.feature_map == ours.mem_collect == []


def test_setters():
    node = LIFNode(step=4, layer_by_layer=True, requires_thres_grad=True)
    node.set_n_threshold(0.25)
    assert node.threshold.item() == 0.25
    assert node.threshold.requires_grad
    node.set_n_tau(4.0)
    assert node(torch.full((4, 1), 0.5)).sum() == 1  # 0.125, 0.21875, 0.2890625 fires, 0.125
    plif = PLIFNode(tau=3.0)
    assert plif.leak().item() == pytest.approx(1 / 3)
    plif.set_n_tau(5.0)
    assert plif.leak().item() == pytest.approx(0.2)
    with pytest.raises(NotImplementedError):
        IFNode().set_n_tau(2.0)


def test_thresholds_and_time_constants_learn():
    node = PLIFNode(step=2, layer_by_layer=True, requires_thres_grad=True)
    node(quarters(4, 30)).sum().backward()
    assert node.threshold.grad.abs() > 0
    assert node.w.grad.abs() > 0


def test_sigmoid_threshold():
    assert LIFNode(threshold=0.0, sigmoid_thres=True, strict=False)(torch.tensor([1.0])).item() == 1  # h = 0.5 meets it
    assert LIFNode(threshold=0.1, sigmoid_thres=True)(torch.tensor([1.0])).item() == 0


def test_surrogate_without_a_twin_is_brain_cogs_own():
    node = LIFNode(act_fun="STDPGrad", step=2, layer_by_layer=True)
    x = quarters(4, 6).requires_grad_()
    node(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LIFNode(act_fun="SigmodGrad"), "did you mean SigmoidGrad"),
        (lambda: LIFNode(act_fun="RoundGrad"), "0/1 spikes"),
        (lambda: LIFNode(tau=0.5), "at least 1"),
        (lambda: PLIFNode(tau=1.0), "above 1"),
        (lambda: make_node("LIFnod"), "LIFNode"),
        (lambda: make_node("BiasLIFNode", soft_reset=True), "not soft_reset"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_misspelt_argument_raises():
    with pytest.raises(TypeError, match="treshold"):
        LIFNode(treshold=0.5)


def test_batch_that_steps_do_not_divide_raises_with_both_numbers():
    with pytest.raises(ValueError, match=r"T=4.*got 6"):
        LIFNode(step=4, layer_by_layer=True)(torch.zeros(6, 2))


def test_changed_shape_in_stepwise_mode_names_the_reset():
    node = LIFNode()
    node(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="n_reset"):
        node(torch.zeros(4, 3))


@pytest.mark.parametrize("name", _WRAPPED)
def test_brain_cogs_other_nodes_run_on_any_shape_without_leftovers(name):
    node = make_node(name, step=2, layer_by_layer=True, threshold=0.7, tau=2.0, act_fun="AtanGrad", alpha=3.0)
    assert isinstance(node, WrappedNode)
    x = quarters(4, 3, 5).requires_grad_()
    torch.manual_seed(1)
    first = node(x)
    torch.manual_seed(1)
    assert torch.equal(node(x), first)
    assert first.shape == x.shape
    first.sum().backward()
    assert torch.isfinite(x.grad).all()
    if hasattr(node.node.act_fun, "alpha"):
        assert node.node.act_fun.alpha.item() == 3.0
        assert node.node.threshold.item() == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("network", "kind", "act_fun"),
    [
        ("resnet", "LIFNode", "QGateGrad"),
        ("resnet", "PLIFNode", "AtanGrad"),
        ("resnet", "IFNode", "SigmoidGrad"),
        ("resnet step by step", "LIFNode", "GateGrad"),
        ("resnet step by step", "PLIFNode", "SigmoidGrad"),
        ("vgg", "LIFNode", "AtanGrad"),
        ("vgg", "PLIFNode", "QGateGrad"),
        ("vgg", "IFNode", "QGateGrad"),
    ],
)
def test_accelerated_networks_are_identical(network, kind, act_fun):
    build, side = (SNN7_tiny, 32) if network == "vgg" else (resnet18, 16)

    def make():
        torch.manual_seed(3)
        return build(
            num_classes=4,
            step=8,  # BrainCog's ResNet does not hand its step to its nodes, which stay at 8
            node_type=getattr(braincog_node, kind),
            act_fun=act_fun,
            dataset="cifar10",
            layer_by_layer=network != "resnet step by step",
        )

    x = torch.rand(1, 3, side, side)
    plain, swapped = make(), accelerate(make())
    nodes = [m for m in swapped.modules() if isinstance(m, BaseNode)]
    assert nodes
    assert all(type(m).__module__.endswith("nodes") for m in nodes)
    assert swapped.state_dict().keys() == plain.state_dict().keys()
    out, expected = swapped(x), plain(x)
    assert torch.equal(out, expected)
    out.sum().backward()
    expected.sum().backward()
    for (name, ours), theirs in zip(swapped.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_accelerate_shares_parameters_and_leaves_what_it_cannot_reproduce(caplog):
    burst = braincog_node.BurstLIFNode()
    resting = braincog_node.LIFNode(v_reset=-0.5)
    rounded = braincog_node.LIFNode(act_fun=RoundGrad)
    known = braincog_node.PLIFNode()
    network = nn.Sequential(burst, resting, rounded, known)
    with caplog.at_level(logging.INFO):
        assert accelerate(network) is network
    assert [type(m) for m in network] == [
        braincog_node.BurstLIFNode,
        braincog_node.LIFNode,
        braincog_node.LIFNode,
        PLIFNode,
    ]
    assert network[3].w is known.w
    assert network[3].threshold is known.threshold
    assert "left 3 nodes" in caplog.text
