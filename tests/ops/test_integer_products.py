"""Products with spikes in integers: close to the exact sum, equal gradients, and plain products for everything else."""

from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from braincog_transformers.export import export
from braincog_transformers.ops.kernels import integer_products
from braincog_transformers.ops.kernels.integer_products import in_integers
from braincog_transformers.runtime.packing import packed_spikes

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(not integer_products.UNITS, reason="this processor has no AMX for 8-bit integers"),
]

KINDS = {
    "conv": (nn.Conv2d, (24, 32, 3), dict(padding=1)),
    "strided, with a bias": (nn.Conv2d, (24, 40, 3), dict(stride=2, padding=1)),
    "dilated, of odd sizes": (nn.Conv2d, (7, 9, (3, 5)), dict(padding=(2, 0), dilation=(2, 1), bias=False)),
    "one pixel": (nn.Conv2d, (32, 48, 1), dict(bias=False)),
    "linear": (nn.Linear, (48, 40), {}),
    "linear without a bias": (nn.Linear, (33, 7), dict(bias=False)),
}


@pytest.fixture(autouse=True)
def small_pays(monkeypatch):
    monkeypatch.setattr(integer_products, "MIN_ROWS", {2: 1, 4: 1})
    monkeypatch.setattr(integer_products, "MIN_PRODUCTS", 1)
    monkeypatch.setattr(integer_products, "MIN_WEIGHTS", 1)


@pytest.fixture
def calls(monkeypatch):
    """A list that grows with each product in integers."""
    integer_products._adds_exactly()  # which multiplies, once
    made = []
    for name in ("_multiply_digits", "_convolve_digits"):
        own = getattr(integer_products, name)
        monkeypatch.setattr(integer_products, name, lambda *a, own=own: made.append(a[0].dtype) or own(*a))
    return made


def _layer(kind):
    torch.manual_seed(0)
    build, sizes, options = KINDS[kind]
    return build(*sizes, **options)


def _input(layer, largest=1):
    shape = (8, 24, layer.in_features) if isinstance(layer, nn.Linear) else (6, layer.in_channels, 13, 11)
    x = torch.randint(0, largest + 1, shape).float()
    return x if x.dim() == 3 else x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("largest", [1, 3, 255])
def test_closer_to_the_exact_product_than_float32_needs(calls, kind, largest):
    layer = _layer(kind)
    x = _input(layer, largest)
    found, plain = in_integers(layer, x), layer(x)
    assert calls == [torch.uint8]
    assert (found.shape, found.stride(), found.dtype) == (plain.shape, plain.stride(), plain.dtype)
    twin = _layer(kind).double()
    exact = twin(x.double())
    twin.weight.data.abs_()
    if twin.bias is not None:
        twin.bias.data.abs_()
    # half a step of each weight, and the rounding of three sums
    bound = twin(x.double()) * 2.0**-22 + x.double().sum() / len(x) * twin.weight.max() * 2.0**-23
    assert ((found - exact).abs() <= bound).all()


def test_sums_of_many_products_are_closer_than_in_floating_point():
    torch.manual_seed(0)
    x = (torch.rand(8, 384, 8, 8) < 0.2).float().contiguous(memory_format=torch.channels_last)
    layer = nn.Conv2d(384, 64, 3, padding=1, bias=False)
    exact = F.conv2d(x.double(), layer.weight.double(), padding=1)
    off, plainly_off = ((y - exact).square().mean() for y in (in_integers(layer, x), layer(x)))
    assert off < plainly_off


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True])
def test_gradients_are_those_of_the_plain_product(calls, kind, packed):
    layer = _layer(kind)
    x = _input(layer).requires_grad_()
    gradients = []
    for run in (partial(in_integers, layer), layer):
        layer.zero_grad()
        x.grad = None
        with packed_spikes() if packed else torch.enable_grad():
            y = run(x)
        y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
        gradients.append([x.grad, *(p.grad for p in layer.parameters())])
    assert len(calls) == 1
    for mine, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [lambda x: x / 2, lambda x: x - 1, lambda x: x * 256, torch.Tensor.double,
     lambda x: x.masked_fill(x > 0, torch.nan)],
    ids=["halves", "negative", "above 255", "float64", "nan"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_other_inputs_are_multiplied_as_ever(calls, kind, change):
    layer = _layer(kind)
    x = change(_input(layer))
    layer.to(x.dtype)
    torch.testing.assert_close(in_integers(layer, x), layer(x), rtol=0, atol=0, equal_nan=True)
    assert not calls


def test_groups_autocast_few_products_and_other_paddings_are_left_alone(calls, monkeypatch):
    x = _input(_layer("conv"))
    for options in (dict(groups=2), dict(padding="same"), dict(padding=1, padding_mode="reflect")):
        in_integers(nn.Conv2d(24, 32, 3, **options), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert in_integers(_layer("conv"), x).dtype == torch.bfloat16
    monkeypatch.setattr(integer_products, "MIN_PRODUCTS", 1 << 40)
    in_integers(_layer("conv"), x)
    monkeypatch.setattr(integer_products, "MIN_PRODUCTS", 1)
    monkeypatch.setattr(integer_products, "MIN_ROWS", {4: 1 << 40})
    in_integers(_layer("conv"), x)
    assert not calls
    with torch.no_grad():
        in_integers(_layer("conv"), x)  # the size of a weight that stays decides
        assert len(calls) == 1
        monkeypatch.setattr(integer_products, "MIN_WEIGHTS", 1 << 40)
        in_integers(_layer("conv"), x)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_a_sample_does_not_depend_on_the_others(kind):
    layer = _layer(kind).requires_grad_(False)
    x = _input(layer, 3)
    assert torch.equal(in_integers(layer, x)[:1], in_integers(layer, x[:1]))


def test_more_products_than_32_bits_hold_are_left_alone(calls):
    layer = nn.Linear(integer_products.MOST_PRODUCTS, 2)
    in_integers(layer, torch.ones(4, integer_products.MOST_PRODUCTS))
    assert not calls


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_digits_are_written_once_while_a_weight_stays(monkeypatch, kind):
    integer_products._adds_exactly()
    written, write = [], integer_products._digits
    monkeypatch.setattr(integer_products, "_kernel", lambda f: f)
    monkeypatch.setattr(integer_products, "_digits", lambda w: written.append(1) or write(w))
    layer = _layer(kind)
    x = _input(layer)

    def steps(*changes):
        for change in changes:
            change()
            torch.testing.assert_close(in_integers(layer, x), layer(x), rtol=1e-4, atol=1e-4)
        return len(written)

    with torch.no_grad():
        assert steps(list, list) == 1
        assert steps(lambda: layer.weight.data.mul_(2)) == 2  # of which PyTorch's counter of versions knows nothing
        assert steps(lambda: layer.weight.add_(1), list) == 3
        x = torch.cat([x, x])
        assert steps(list, list) == 4
    x = x[: len(x) // 2]
    assert steps(list, list) == 6  # in training each call
    layer.requires_grad_(False)
    assert steps(list, list) == 7


def test_digits_go_with_their_weight():
    layer = _layer("linear").requires_grad_(False)
    before = len(integer_products._written)
    in_integers(layer, _input(layer))
    assert len(integer_products._written) == before + 1
    del layer
    assert len(integer_products._written) == before


@pytest.mark.parametrize("name", ["_multiply_digits", "_convolve_digits"])
def test_units_that_saturate_are_found_out(monkeypatch, name):
    assert integer_products._adds_exactly()
    integer_products._adds_exactly.cache_clear()
    exact = getattr(integer_products, name)
    monkeypatch.setattr(integer_products, name, lambda *a: exact(*a) / 2)
    layer = _layer("conv")
    assert not integer_products.applies(_input(layer), layer.weight)
    integer_products._adds_exactly.cache_clear()


@pytest.mark.parametrize("weight", [torch.zeros(3, 5), torch.full((3, 5), 1e-38), torch.randn(3, 5) * 1e30,
                                    torch.tensor([[1.0, -1.0], [1e-7, 1.0], [-3.0, 1e-3]])])  # fmt: skip
def test_digits_make_up_the_weight(weight):
    low, middle, high, scale = integer_products._digits(weight)
    found = (high.double() * 65536 + middle.double() * 256 + low.double()) * scale.double()[:, None]
    assert ((found - weight).abs() <= weight.abs().amax(1, keepdim=True) * 2.0**-23 + 1e-37).all()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_weight_that_is_no_number_shows(wrong):
    layer = _layer("conv")
    layer.weight.data[3, 0, 0, 0] = wrong
    finite = in_integers(layer, _input(layer)).isfinite()
    assert finite.any(0).any(-1).any(-1).tolist() == [channel != 3 for channel in range(32)]


@pytest.mark.parametrize(
    "name", ["spikformer_digits", pytest.param("qkformer_digits", marks=pytest.mark.slow), "sdt_v2_digits"]
)
def test_a_network_gives_the_same_with_and_without(calls, name):
    torch.manual_seed(0)
    model = timm.create_model(name, threshold=0.5).eval()
    x = torch.rand(4, model.in_chans, *model.img_size)
    with torch.no_grad():
        found = model(x)
        assert calls
        calls.clear()
        model.set_attr("integer_products", False)
        torch.testing.assert_close(model(x), found, rtol=1e-4, atol=1e-4)
    assert not calls


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="from PyTorch 2.7 on")
def test_a_compiled_evaluation_calls_it_and_a_compiled_step_does_not(calls):
    torch.manual_seed(0)
    model = timm.create_model("spikformer_digits", threshold=0.5, depth=1).eval()
    x = torch.rand(4, model.in_chans, *model.img_size)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        expected = model(x)
        eager = len(calls)
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-4)
    assert len(calls) == 2 * eager > 0
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-4)
    assert len(calls) == 2 * eager


def test_channels_in_front_are_left_where_they_are(calls):
    layer = _layer("conv").requires_grad_(False)
    x = _input(layer).contiguous()
    found = torch.compile(in_integers, fullgraph=True)(layer, x)
    assert found.is_contiguous()
    torch.testing.assert_close(in_integers(layer, x), found, rtol=1e-5, atol=1e-5)
    assert not calls


def test_a_file_for_others_holds_plain_products(tmp_path):
    model = timm.create_model("spikformer_digits", depth=1).eval()
    written = torch.export.load(export(model, tmp_path / "network.pt2"))
    with torch.no_grad():
        own = torch.export.export(model, (torch.rand(4, model.in_chans, *model.img_size),))
    assert not [node for p in (written, own) for node in p.graph.nodes if "braincog" in str(node.target)]


def test_operations_are_counted_as_ever():
    from torch.utils.flop_counter import FlopCounterMode

    counted = []
    for kind in ("strided, with a bias", "linear"):
        layer = _layer(kind)
        for run in (partial(in_integers, layer), layer):
            with FlopCounterMode(display=False) as counter:
                run(_input(layer)).sum().backward()
            counted.append(counter.get_total_flops())
    assert counted[::2] == counted[1::2]
    assert all(counted)


def test_digits_written_in_inference_mode_serve_elsewhere():
    for kind in ("conv", "linear"):
        layer = _layer(kind).requires_grad_(False)
        x = _input(layer)
        with torch.inference_mode():
            expected = in_integers(layer, x)
        assert torch.equal(in_integers(layer, x), expected)


def test_one_kernel_serves_weights_of_all_widths(monkeypatch):
    kernel, seen = integer_products._kernel, []

    def watched(function):
        def call(*tensors):
            seen.extend(type(tensor) for tensor in tensors if tensor is not None)
            return kernel(function)(*tensors)

        return call

    monkeypatch.setattr(integer_products, "_kernel", watched)
    torch._dynamo.utils.counters.clear()
    with torch.no_grad():
        for width in range(16, 128, 8):
            for layer in (nn.Conv2d(24, width, 3), nn.Linear(24, width)):
                in_integers(layer, _input(layer))
    assert set(seen) == {torch.Tensor}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] < 8
