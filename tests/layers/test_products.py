"""Weighted layers are PyTorch's own, wherever integers multiply: tools that look layers up by type find every one."""

import copy
import pickle
from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from braincog_transformers.layers import ConvBN, LinearBN
from braincog_transformers.ops.kernels import integer_products

thop = pytest.importorskip("thop", reason="BrainCog brings it")
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
NETWORKS = {
    "spikformer_4_384_cifar": {},
    "sdt_v2_15m": {"img_size": 32},
    "spikingresformer_digits": {},
    "sglformer_digits": {},
}
LAYERS = {
    "conv": (partial(ConvBN, 24, 32, bias=True), (6, 24, 13, 11)),
    "linear": (partial(LinearBN, 48, 40), (8, 24, 48)),
}
needs_units = pytest.mark.skipif(not integer_products.UNITS, reason="this processor has no AMX for 8-bit integers")


@pytest.fixture
def calls(monkeypatch):
    """Let integers multiply layers of any size; a list that grows with each of their products."""
    integer_products._adds_exactly()
    made = []
    for name, value in (("MIN_ROWS", {2: 1, 4: 1}), ("MIN_PRODUCTS", 1), ("MIN_WEIGHTS", 1)):
        monkeypatch.setattr(integer_products, name, value)
    for name in ("_multiply_digits", "_convolve_digits"):
        own = getattr(integer_products, name)
        monkeypatch.setattr(integer_products, name, lambda *a, own=own: made.append(1) or own(*a))
    return made


def network(name, **options):
    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    return model, torch.rand(1, model.in_chans, *model.img_size)


def weighted(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, WEIGHTED)}


def made(kind):
    torch.manual_seed(0)
    build, shape = LAYERS[kind]
    x = torch.randint(0, 2, shape).float()
    return build().eval(), x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


@pytest.mark.parametrize("name", NETWORKS)
def test_counters_by_type_find_every_layer(name):
    model, x = network(name, **NETWORKS[name])
    layers = weighted(model)
    assert {type(layer) for layer in layers.values()} <= set(WEIGHTED)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    products = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    weights = sum(flops for op, flops in products.items() if "bmm" not in op) // 2
    _, _, tree = thop.profile(model, (x,), verbose=False, ret_layer_info=True)
    found = {}

    def walk(branch, prefix=""):
        for name, (macs, parameters, below) in branch.items():
            found[prefix + name] = macs, parameters
            walk(below, f"{prefix}{name}.")

    walk(tree)
    assert sum(found[name][0] for name in layers) == weights
    for name, layer in layers.items():
        assert found[name][1] == sum(parameter.numel() for parameter in layer.parameters())


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="made for processors of x86")
@pytest.mark.filterwarnings("ignore")
def test_quantisation_by_type_changes_every_linear_layer():
    model, x = network("spikformer_digits")
    linear = [name for name, layer in weighted(model).items() if isinstance(layer, nn.Linear)]
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    kinds = {type(quantised.get_submodule(name)) for name in linear}
    assert kinds == {torch.ao.nn.quantized.dynamic.Linear}
    assert quantised(x).shape == (1, 10)
    assert len(linear) == 13


@needs_units
@pytest.mark.parametrize("kind", LAYERS)
def test_a_watched_layer_is_called_and_computes_what_it_did(calls, kind):
    block, x = made(kind)
    layer = getattr(block, kind)
    with torch.no_grad():
        expected, seen = block(x), []
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        layer.register_forward_hook(lambda _, inputs, out: seen.append(out))
        assert torch.equal(block(x), expected)
    assert len(calls) == 2
    assert [type(value) for value in seen] == [torch.Tensor] * 2
    assert torch.equal(seen[0], x)


@needs_units
@pytest.mark.parametrize("kind", LAYERS)
def test_a_weight_that_is_computed_is_computed_once(calls, kind):
    block, x = made(kind)
    asked = []

    class Half(nn.Module):
        def forward(self, weight):
            asked.append(1)
            return weight / 2

    layer = getattr(block, kind)
    plain = copy.deepcopy(layer)
    plain.weight.data /= 2
    parametrize.register_parametrization(layer, "weight", Half())
    asked.clear()
    block.bn = nn.Identity()
    torch.testing.assert_close(block(x), plain(x), rtol=1e-5, atol=1e-5)
    assert len(asked) == len(calls) == 1


@needs_units
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("way", [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
def test_copies_compute_with_their_own_weights(calls, kind, way):
    block, x = made(kind)
    expected, twin = block(x), way(block)
    assert torch.equal(twin(x), expected)
    getattr(twin, kind).weight.data.zero_()
    assert not torch.equal(twin(x), expected)
    assert torch.equal(block(x), expected)
    assert len(calls) == 4


@needs_units
@pytest.mark.parametrize("kind", LAYERS)
def test_replicas_of_other_devices_compute_with_their_own_weights(calls, kind):
    block, x = made(kind)
    layer = getattr(block, kind)
    replica, other = block._replicate_for_data_parallel(), layer._replicate_for_data_parallel()
    for name, value in layer.named_parameters():
        setattr(other, name, torch.zeros_like(value))
    replica._modules = {kind: other, "bn": nn.Identity(), "pool": nn.Identity()}
    assert replica(x).count_nonzero() == 0
    assert block(x).count_nonzero() > 0
    assert len(calls) == 2


@needs_units
@pytest.mark.parametrize("kind", LAYERS)
def test_integers_can_be_switched_off_and_a_layer_in_its_place_is_called(calls, kind):
    block, x = made(kind)
    block.integer_products = False
    block(x)
    assert not calls
    block.integer_products = True
    setattr(block, kind, nn.Identity())
    block.bn = nn.Identity()
    assert torch.equal(block(x), x)


@needs_units
def test_a_fused_layer_goes_on_in_integers(calls):
    block, x = made("conv")
    expected = block(x)
    torch.testing.assert_close(block.fuse()(x), expected, rtol=1e-4, atol=1e-5)
    assert type(block.conv) is nn.Conv2d
    assert len(calls) == 2


@needs_units
def test_a_network_switches_all_its_layers(calls):
    model, x = network("sdt_v2_digits")
    x = x.expand(4, -1, -1, -1)
    with torch.no_grad():
        expected = model(x)
        products = len(calls)
        model.set_attr("integer_products", False)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert len(calls) == products > 0
