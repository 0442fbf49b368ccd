"""Normalisation and neuron in one: the fused form against its definition, in value and in gradient."""

import re

import pytest
import timm
import torch
from torch import nn
from torch._inductor.utils import run_and_get_code

from braincog_transformers.layers import ConvBNNode, LinearBNNode
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.ops.kernels import fused_neuron, norm_neuron
from braincog_transformers.ops.kernels.norm_neuron import Normalisation, normalised_spikes
from braincog_transformers.ops.neuron import Dynamics
from braincog_transformers.runtime.compiler import compiled
from braincog_transformers.runtime.packing import packed_spikes

T, B, C = 4, 5, 6


def _run(backend, *, charge="lif", training=True, copies=False, dtype=torch.float64, middle=(7,), coarse=False):
    torch.manual_seed(0)
    x = 2 * torch.randn(B if copies else T * B, *middle, C, dtype=torch.float64) + 0.7
    x = (x.bfloat16() if coarse else x).to(dtype).requires_grad_()
    wide = torch.promote_types(dtype, torch.float32)
    weight = (torch.rand(C, dtype=wide) + 0.5).requires_grad_()
    bias = torch.randn(C, dtype=wide).requires_grad_()
    leak = {"lif": torch.tensor(3.0), "plif": torch.tensor(0.3, dtype=wide, requires_grad=True), "if": None}[charge]
    threshold = torch.tensor(0.8, dtype=wide, requires_grad=True)
    norm = Normalisation(weight, bias, torch.full((C,), 0.2, dtype=wide), torch.full((C,), 3.0, dtype=wide), 0.1, 1e-5,
                         training)  # fmt: skip
    alpha, dynamics = torch.tensor(4.0, dtype=wide), Dynamics(charge=charge)
    with packed_spikes():
        out = normalised_spikes(x, norm, T, leak, threshold, alpha, dynamics, copies=copies, backend=backend)
        loss = (out * torch.randn(out.shape, dtype=out.dtype)).sum() + (out * out).sum()
    loss.backward()
    learnt = [x, weight, bias, threshold, *([leak] if charge == "plif" else [])]
    return out.detach(), norm.running_mean, norm.running_var, *(tensor.grad for tensor in learnt)


@pytest.mark.parametrize("charge", ["lif", "plif", "if"])
@pytest.mark.parametrize("copies", [False, True], ids=["steps", "copies"])
def test_the_kernels_function_equals_the_definition(charge, copies):
    test_fused_equals_the_definition(charge, copies)


@pytest.mark.kernels
@pytest.mark.parametrize(("charge", "copies"), [("lif", False), ("plif", True)])
def test_fused_equals_the_definition(charge, copies):
    for one, other in zip(*(_run(b, charge=charge, copies=copies) for b in ("reference", "fused")), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "settings", [{"training": False}, {"dtype": torch.float32}, {"middle": (3, 2)}, {"middle": ()}], ids=str
)
def test_other_settings(settings):
    tolerance = 1e-5 if "dtype" in settings else 1e-9
    for one, other in zip(*(_run(b, **settings) for b in ("reference", "fused")), strict=True):
        torch.testing.assert_close(other, one, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("how", ["eager", pytest.param("compiled", marks=[pytest.mark.kernels, pytest.mark.slow])])
def test_sixteen_bits_are_no_worse_than_the_definition(how):
    """The potentials between normalisation and neuron are rounded there, and not here."""
    exact = _run("reference", dtype=torch.float32, coarse=True, middle=(400,))
    reference, fused = (_run(b, dtype=torch.bfloat16, middle=(400,)) for b in ("reference", "fused"))
    wrong = [int((found[0].float() != exact[0]).sum()) for found in (reference, fused)]
    assert wrong[1] < wrong[0]
    assert wrong[1] < 5


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_sixteen_bits_keeps_its_potentials_in_float32(monkeypatch, dtype, training):
    """Given what the layer in front rounds to, not a spike differs from those of double precision."""
    monkeypatch.setattr(norm_neuron, "compiled", lambda function, *_: function)  # what is computed, not how fast
    torch.manual_seed(0)
    x = torch.randn(T * 20, 30, C).to(dtype)
    weight, bias = (torch.rand(C) + 0.5).to(dtype), torch.randn(C).to(dtype)
    found, running = {}, {}
    for kind in (dtype, torch.float64):
        norm = Normalisation(weight.to(kind, copy=True).requires_grad_(), bias.to(kind, copy=True).requires_grad_(), *(
            torch.full((C,), value, dtype=dtype).to(kind) for value in (0.2, 0.9)), 0.1, 1e-5, training)  # fmt: skip
        numbers = [torch.tensor(value, dtype=dtype).to(kind) for value in (2.0, 0.8, 4.0)]
        own = x.to(kind, copy=True).requires_grad_()
        spikes = normalised_spikes(own, norm, T, *numbers, Dynamics())
        (spikes * x).float().sum().backward()
        found[kind] = spikes, own.grad, norm.weight.grad, norm.bias.grad
        running[kind] = norm.running_mean, norm.running_var
        assert all(value.dtype == kind for value in (*found[kind], *running[kind]))
    spikes, *grads = found[dtype]
    assert torch.equal(spikes.double(), found[torch.float64][0])
    for grad, exact in zip(grads, found[torch.float64][1:], strict=True):
        torch.testing.assert_close(grad.double(), exact, rtol=2e-2, atol=1e-2 * exact.abs().max().item())
    for value, exact in zip(running[dtype], running[torch.float64], strict=True):
        torch.testing.assert_close(value.double(), exact, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


def test_running_statistics_that_move_on_leave_the_gradient_of_an_evaluation(monkeypatch):
    monkeypatch.setattr(norm_neuron, "compiled", lambda function, *_: function)
    x, ones = torch.randn(T * B, 7, C).double(), torch.ones(C).double()
    grads = []
    for moves in (False, True):
        own, weight = x.clone().requires_grad_(), ones.clone().requires_grad_()
        norm = Normalisation(weight, 0 * ones, 0 * ones, 1 * ones, 0.1, 1e-5, False)
        numbers = [torch.tensor(value).double() for value in (2.0, 0.8, 4.0)]
        loss = normalised_spikes(own, norm, T, *numbers, Dynamics()).sum()
        if moves:
            norm.running_mean.add_(3), norm.running_var.mul_(3)
        grads.append(torch.autograd.grad(loss, [own, weight]))
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


def _layers(kind):
    torch.manual_seed(0)
    node = NodeOptions(threshold=0.5).constructor(step=T)
    if kind == "linear":
        return LinearBNNode(8, 6, node=node), torch.randn(T * B, 9, 8)
    return ConvBNNode(3, 6, node=node, pool="after"), torch.randn(T * B, 3, 8, 8)


@pytest.fixture
def eager(monkeypatch):
    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 0)
    return monkeypatch


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("copies", [1, T])
def test_layers_take_it_and_change_nothing(eager, kind, copies):
    if kind == "linear" and copies > 1:
        pytest.skip("copies meet convolutions only")
    found = []
    for fused in (True, False):
        if not fused:
            eager.setattr(fused_neuron, "compiler_works", lambda _: False)
        layer, x = _layers(kind)
        x = x[:B] if copies > 1 else x
        x.requires_grad_()
        assert layer.node.fuses(layer.bn, x, copies) == fused
        out = layer(x, copies) if kind == "conv" else layer(x)
        out.square().sum().backward()
        layer.eval()
        found.append([out, x.grad, *(p.grad for p in layer.parameters() if p.grad is not None), *layer.buffers(),
                      layer(x, copies) if kind == "conv" else layer(x)])  # fmt: skip
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def _hooked(layer):
    layer.bn.register_forward_hook(lambda *_: None)


def _recorded(layer):
    layer.node.requires_fp = True


def _cumulative(layer):
    layer.bn.momentum = None


def _streamed(layer):
    layer.node.layer_by_layer = False


def _synchronised(layer):
    layer.bn = nn.SyncBatchNorm(6)


@pytest.mark.parametrize("change", [_hooked, _recorded, _cumulative, _streamed, _synchronised])
def test_stays_apart_where_something_looks_in_between(eager, change):
    layer, x = _layers("linear")
    assert layer.node.fuses(layer.bn, x)
    change(layer)
    assert not layer.node.fuses(layer.bn, x)


def test_a_network_trains_alike(eager):
    """Packed spikes and fused normalisation against plain layers: the same losses over a few steps."""
    losses = []
    for fused in (True, False):
        if not fused:
            eager.setattr(fused_neuron, "compiler_works", lambda _: False)
        torch.manual_seed(0)
        model = timm.create_model("spikformer_digits", threshold=0.5).double()
        model.pack_spikes = fused
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(1)
        for _ in range(3):
            loss = nn.functional.cross_entropy(model(torch.rand(4, 1, 8, 8).double()), torch.arange(4))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-9)


@pytest.mark.slow
@pytest.mark.kernels
def test_kernels_write_nothing_but_their_results():
    """All steps are in one loop: the compiler would write float32 potentials between two."""
    x = torch.randn(12, 640, 32).bfloat16().requires_grad_()
    ones, zeros = torch.ones(32), torch.zeros(32)
    norm = Normalisation(ones.clone().requires_grad_(), zeros.clone().requires_grad_(), zeros, ones, 0.1, 1e-5, True)

    def step():
        with packed_spikes():
            spikes = normalised_spikes(x, norm, 3, *(torch.tensor(n) for n in (2.0, 1.0, 4.0)), Dynamics())
        spikes.sum().backward()

    compiled.cache_clear()
    with torch._inductor.config.patch(force_disable_caches=True):
        _, codes = run_and_get_code(step)
    kernels = re.findall(r"cpp_pybinding\(\[(.*?)\]", "".join(codes))
    assert len(kernels) == 2
    assert not any("'float*'" in arguments for arguments in kernels)
