"""Whoever follows a network's operations (transforms, traces, hooks, modes) gets forms that he can follow, and the
gradients that a plain backward pass gives; also after a training step, when kernels are there already."""

import io
import warnings

import pytest
import timm
import torch
from braincog.base.strategy import surrogate
from torch import func
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from braincog_transformers import LIFNode, PLIFNode
from braincog_transformers.layers import LinearBNNode
from braincog_transformers.ops.kernels import fused_neuron, norm_neuron
from braincog_transformers.runtime import packing


@pytest.fixture
def kernels(monkeypatch):
    """Let every layer take its kernel, as the function that it is compiled of, and pack what is kept."""

    def refuse_to_be_followed(function):
        def kernel(*arguments):
            assert not fused_neuron.watched()
            return function(*arguments)

        return kernel

    for module in (fused_neuron, norm_neuron):
        monkeypatch.setattr(module, "compiled", lambda function, *_: refuse_to_be_followed(function))
    monkeypatch.setattr(fused_neuron, "compiler_works", lambda _: True)
    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 0)
    monkeypatch.setattr(packing, "MIN_ENTRIES", 64)


@pytest.fixture
def network(kernels):
    """A network after a training step, in evaluation, whose neurons fire; and images."""
    torch.manual_seed(0)
    model = timm.create_model("spikformer_digits", depth=1, embed_dim=16, threshold=0.5, num_classes=5).double()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 1, 3)
        torch.nn.init.uniform_(norm.bias, 0, 1.5)
        norm.momentum = 0.9
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    model(images).sum().backward()
    model.zero_grad()
    return model.eval(), images


def _loss(model, images):
    return model(images).square().sum()


def _learnt(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _expected(model, images):
    learnt = _learnt(model)
    found = dict(zip(learnt, torch.autograd.grad(_loss(model, images), learnt.values()), strict=True))
    assert max(grad.abs().max() for grad in found.values()) > 0.1
    return found


def _functional(model):
    return lambda parameters, images: func.functional_call(model, parameters, (images,)).square().sum()


def _assert_close(found, expected):
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-8, atol=1e-9)


def test_func_grad(network):
    model, images = network
    found = func.grad(_functional(model))(dict(model.named_parameters()), images)
    _assert_close(found, _expected(model, images))
    assert found["patch_embed.stages.0.node.act_fun.alpha"] == 0  # as a backward pass, which gives it none


def test_vmap(network):
    model, images = network
    torch.testing.assert_close(func.vmap(lambda image: model(image[None])[0])(images), model(images))


def test_gradients_of_each_sample(network):
    model, images = network
    one = func.grad(lambda parameters, image: _functional(model)(parameters, image[None]))
    found = func.vmap(one, in_dims=(None, 0))(_learnt(model), images)
    _assert_close({name: grad.sum(0) for name, grad in found.items()}, _expected(model, images))


@pytest.mark.parametrize("act_fun", ["SigmoidGrad", "AtanGrad", "GateGrad", "QGateGrad"])
def test_forward_mode_agrees_with_backward_mode(network, act_fun):
    model, images = network
    for node in model.nodes.values():
        node.act_fun = getattr(surrogate, act_fun)(alpha=2.0, requires_grad=False).double()
    expected = _expected(model, images)
    tangents = {name: torch.randn_like(grad) for name, grad in expected.items()}
    slope = sum((tangents[name] * grad).sum() for name, grad in expected.items())
    learnt = {name: parameter.detach() for name, parameter in _learnt(model).items()}
    _, found = func.jvp(lambda parameters: _functional(model)(parameters, images), (learnt,), (tangents,))
    torch.testing.assert_close(found, slope)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(_loss(model, forward_ad.make_dual(images, torch.ones_like(images))))
    own = images.clone().requires_grad_()
    torch.testing.assert_close(dual.tangent, torch.autograd.grad(_loss(model, own), own)[0].sum())


@pytest.mark.parametrize("training", [True, False])
def test_a_gradient_is_differentiated_again(network, monkeypatch, training):
    model, images = network
    model.train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def twice():
        model.load_state_dict(state)
        own = images.clone().requires_grad_()
        (grad,) = torch.autograd.grad(_loss(model, own), own, create_graph=True)
        return grad.detach(), *torch.autograd.grad(grad.square().sum(), [own, model.head.weight])

    found = twice()
    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 1 << 60)
    model.pack_spikes = False
    for one, other in zip(found, twice(), strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_a_trace_is_saved_and_trains_on(network):
    model, images = network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, images)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    assert torch.equal(loaded(images), model(images))
    learnt = _learnt(loaded)
    found = dict(zip(learnt, torch.autograd.grad(_loss(loaded, images), learnt.values()), strict=True))
    _assert_close(found, _expected(model, images))


def test_a_training_network_is_traced(network):
    model, images = network
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, images, check_trace=False)
    assert traced(images).shape == (3, 5)


def test_the_older_onnx_exporter(network):
    pytest.importorskip("onnx", reason="onnx is not installed; the extra [onnx] brings it")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; the extra [onnx] brings it")
    model, images = network
    model, images = model.float(), images.float()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, images, file, dynamo=False, input_names=["input0"], output_names=["output0"])
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input0": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(images).detach(), rtol=1e-3, atol=1e-3)


def test_make_fx(network):
    model, images = network
    with torch.no_grad():
        assert torch.equal(make_fx(model)(images)(images), model(images))


@pytest.mark.skipif(packing._top_hooks is None, reason="this PyTorch can't tell whether there are hooks")
def test_a_users_hooks_see_all_that_is_kept(network):
    model, images = network
    counts = []
    for model.pack_spikes in (True, False):
        seen = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, seen=seen: seen.append(t.shape) or t, lambda t: t):
            model(images).sum().backward()
        counts.append(len(seen))
    assert counts[0] == counts[1] > 50


@pytest.mark.parametrize("way", ["checkpoint", "save_on_cpu"])
def test_others_who_keep_less_or_elsewhere(network, way):
    model, images = network
    expected, learnt = _expected(model, images), _learnt(model)
    if way == "checkpoint":
        out = checkpoint(model, images, use_reentrant=False)
    else:
        with torch.autograd.graph.save_on_cpu():
            out = model(images)
    found = dict(zip(learnt, torch.autograd.grad(out.square().sum(), learnt.values()), strict=True))
    _assert_close(found, expected)


@pytest.mark.parametrize("size", [128, 65_536])
def test_the_spikes_of_a_lone_neuron_may_be_changed_in_place(kernels, size):
    x = torch.linspace(-1, 4, size, dtype=torch.float64).view(4, -1).requires_grad_()
    found = []
    for change in (lambda s: s.mul_(3), lambda s: s * 3):
        spikes = change(LIFNode(step=4, layer_by_layer=True)(x.flatten(0, 1).view(8, -1)))
        spikes[:2].add_(1)
        found.append([spikes, *torch.autograd.grad(spikes.square().sum(), x)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("act_fun", ["AtanGrad", "Mine"])
def test_func_grad_takes_the_surrogate_that_a_backward_pass_takes(act_fun):
    gentle = staticmethod(lambda x, alpha: (x >= 0) + x * alpha - (x * alpha).detach())
    mine = type("SigmoidGrad", (surrogate.SigmoidGrad,), {"act_fun": gentle})
    node = PLIFNode(act_fun=mine if act_fun == "Mine" else act_fun, step=2, layer_by_layer=True)
    x, weight = torch.linspace(-1, 3, 8).view(4, 2), torch.arange(8.0).view(4, 2)
    found = func.grad(lambda own: (func.functional_call(node, own, (x,)) * weight).sum())(dict(node.named_parameters()))
    (node(x) * weight).sum().backward()
    for name in ("w", "act_fun.alpha"):
        expected = node.get_parameter(name).grad
        assert expected.abs() > 0
        torch.testing.assert_close(found[name], expected)


@pytest.mark.parametrize("joined", [False, True])
def test_many_gradients_at_once_are_those_one_by_one(kernels, joined):
    layer = LinearBNNode(8, 8, node=lambda: LIFNode(step=2, layer_by_layer=True)).double()
    x = torch.randn(4, 3, 8, dtype=torch.float64, requires_grad=True)
    spikes = layer(x) if joined else layer.node(x)
    grads = torch.randn(5, *spikes.shape, dtype=torch.float64)
    found = torch.autograd.grad(spikes, x, grads, is_grads_batched=True, retain_graph=True)[0]
    expected = torch.stack([torch.autograd.grad(spikes, x, grad, retain_graph=True)[0] for grad in grads])
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected)


class _Seen(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def test_a_mode_that_sees_functions_sees_those_of_a_large_layer_and_a_default_device_changes_nothing(kernels):
    layer, x = LinearBNNode(8, 8, node=lambda: LIFNode(step=2, layer_by_layer=True)), torch.randn(4, 3, 8)
    assert fused_neuron.applies(x, layer.node.leak(), layer.node.dynamics)
    with torch.device("cpu"):
        assert fused_neuron.applies(x, layer.node.leak(), layer.node.dynamics)
    with _Seen() as mode:
        layer(x)
    assert "batch_norm" in mode.names
