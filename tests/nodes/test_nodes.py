"""BrainCog nodes: interface, both modes, and swapping a BrainCog network's own."""

import copy
import io
import pickle
import weakref
from functools import partial

import pytest
import timm
import torch
from braincog.base.node import node as braincog_node
from braincog.base.strategy.surrogate import SigmoidGrad
from torch import nn
from torch.nn.utils import parametrize

from braincog_transformers import IFNode, LIFNode, PLIFNode, UserError
from braincog_transformers.models.released import run_over_batch
from braincog_transformers.nodes import WrappedNode, make_node
from braincog_transformers.nodes.brain_cog import _WRAPPED

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
        (lambda: LIFNode(act_fun=SigmoidGrad(alpha=4.0)), "class of BrainCog's surrogates"),
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
@pytest.mark.parametrize("act_fun", ["SigmoidGrad", "QGateGrad"])
def test_spikes_have_the_type_of_the_input(name, act_fun):
    node = make_node(name, act_fun=act_fun, step=2, layer_by_layer=True)
    for dtype in (torch.float32, torch.float64):
        assert node(torch.rand(4, 3, dtype=dtype)).dtype == dtype


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


# What a call leaves behind


def read(node, x):
    """Return membrane and spikes of the last step, as a hook meets them and after the call."""
    met = []
    handle = node.register_forward_hook(lambda module, *_: met.append((module.mem, module.spike)))
    for part in [x] if node.layer_by_layer else x.chunk(3):
        node(part)
    handle.remove()
    return [*met[-1], node.mem, node.spike]


@pytest.mark.parametrize("layer_by_layer", [False, True], ids=["steps", "layers"])
@pytest.mark.parametrize("kind", ["LIFNode", "PLIFNode", "IFNode"])
def test_membrane_and_spikes_of_the_last_step_are_brain_cogs(kind, layer_by_layer):
    x = quarters(6, 4).requires_grad_()
    theirs = getattr(braincog_node, kind)(step=3, layer_by_layer=layer_by_layer)
    ours = make_node(kind, step=3, layer_by_layer=layer_by_layer)
    for got, expected in zip(read(ours, x), read(theirs, x), strict=True):
        torch.testing.assert_close(got, expected)
    ours.n_reset()
    assert (ours.mem, ours.spike) == (None, 0.0)


def test_a_membrane_that_runs_through_the_batch_is_read_too():
    node, x = LIFNode(step=3, layer_by_layer=True), quarters(6, 4)
    run_over_batch(node)
    node(x)
    membrane, spike = node.mem, node.spike
    node.requires_mem = node.requires_fp = True
    node(x)
    assert torch.equal(membrane, node.mem_collect[-1])
    assert torch.equal(spike, node.feature_map[-1])


def test_a_call_of_all_steps_keeps_nothing_alive_and_tells_nothing_stale():
    node, x = LIFNode(step=2, layer_by_layer=True), quarters(4, 5)
    node(x)
    membrane = node.mem
    x.add_(1)
    assert node.mem is node.spike is None
    node(x)
    assert not torch.equal(node.mem, membrane)
    node.set_n_threshold(0.1)
    assert node.mem is None
    gone = weakref.ref(x)
    node(x)
    del x
    assert gone() is None
    assert node.mem is None
    node.requires_mem = True
    node(quarters(4, 5))
    assert node.mem.shape == (2, 5)


@pytest.mark.parametrize("layer_by_layer", [False, True], ids=["steps", "layers"])
@pytest.mark.parametrize("kind", ["LIFNode", "PLIFNode", "IFNode", "BiasLIFNode"])
def test_a_node_is_copied_and_pickled_in_the_middle_of_a_sequence(kind, layer_by_layer):
    node, x = make_node(kind, step=2, layer_by_layer=layer_by_layer), quarters(4, 3).requires_grad_()
    getattr(node, "node", node).requires_fp = getattr(node, "node", node).requires_mem = True
    node(x)
    file = io.BytesIO()
    torch.save(node, file)
    file.seek(0)
    copies = [copy.deepcopy(node), pickle.loads(pickle.dumps(node)), torch.load(file, weights_only=False)]
    expected = node(x)
    for twin in copies:
        assert type(twin) is type(node)
        assert torch.equal(twin(x), expected)
    expected.sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["spikformer_digits", "tim_ndigits"])
def test_a_network_is_copied_in_the_middle_of_a_stream(name):
    model = timm.create_model(name).eval()
    model.set_streaming()
    frame = torch.rand(2, model.in_chans, *model.img_size)
    for _ in range(2):
        model(frame)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(frame), model(frame))


def test_a_mistyped_keyword_of_a_derived_class_is_named_too():
    with pytest.raises(TypeError, match="Mine got an unexpected keyword argument tua; did you mean tau"):
        type("Mine", (PLIFNode,), {})(tua=3.0)


@pytest.mark.parametrize("layer_by_layer", [False, True], ids=["steps", "layers"])
@pytest.mark.parametrize("kind", ["LIFNode", "PLIFNode", "IFNode"])
def test_a_loss_on_membrane_and_spikes_has_the_gradients_of_brain_cogs(kind, layer_by_layer):
    found = []
    for build in (getattr(braincog_node, kind), partial(make_node, kind)):
        node = build(step=3, layer_by_layer=layer_by_layer)
        x = (torch.arange(24.0) / 8 - 1).view(6, 4).requires_grad_()
        membrane, spike = read(node, x)[:2]
        (membrane.square().sum() + (spike * membrane.detach()).sum() + spike.sum()).backward()
        found.append([x.grad, *([node.w.grad] if kind == "PLIFNode" else [])])
    for theirs, ours in zip(*found, strict=True):
        assert theirs.abs().sum() > 0
        torch.testing.assert_close(ours, theirs)


def test_without_gradients_a_membrane_has_none():
    node, x = PLIFNode(step=2, layer_by_layer=True), quarters(4, 3).requires_grad_()
    with torch.no_grad():
        node(x)
    assert not node.mem.requires_grad
    with torch.inference_mode():
        x = quarters(4, 3)
        node(x)
    assert not node.mem.requires_grad


@pytest.mark.kernels(compiler=False)
def test_a_compiled_call_tells_nothing_of_the_call_before():
    node, x = LIFNode(step=2, layer_by_layer=True), quarters(4, 3)
    node(x)
    assert node.mem is not None
    torch.compile(node, backend="eager", fullgraph=True)(quarters(4, 3))
    assert node.mem is None


def test_a_number_is_a_membrane_to_start_from():
    for cls in (LIFNode, braincog_node.LIFNode):
        node = cls(threshold=0.5)
        node.mem = 0.8
        assert node(torch.full((2,), 0.4)).tolist() == [1, 1]


class _Half(nn.Module):
    def forward(self, tensor):
        return tensor / 2


class _Invertible(_Half):
    def right_inverse(self, tensor):
        return tensor * 2


def test_setters_reach_what_is_behind_a_parametrisation_or_say_that_they_can_t():
    for parametrisation in (_Invertible, _Half):
        node = PLIFNode()
        for name in ("threshold", "w"):
            parametrize.register_parametrization(node, name, parametrisation())
        if parametrisation is _Half:
            with pytest.raises(UserError, match=r"threshold can't be set to 3: .*right_inverse"):
                node.set_n_threshold(3.0)
            with pytest.raises(UserError, match=r"w can't be set to .*right_inverse"):
                node.set_n_tau(5.0)
        else:
            node.set_n_threshold(3.0)
            node.set_n_tau(5.0)
            assert node.threshold.item() == 3
            assert node.leak().item() == pytest.approx(0.2)
