"""Operations and energy against the published formulas and figures, and against an independent counter."""

import csv
import json
from contextlib import suppress

import pytest
import timm
import torch
from families import FAMILIES, family_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from braincog_transformers import LIFNode, UserError
from braincog_transformers.analysis.energy import METHODS, analyze, format_energy, write_energy
from braincog_transformers.analysis.operations import count_operations, observe
from braincog_transformers.layers.products import SpikingProduct


def _awake(name, **kwargs):
    model = timm.create_model(name, **kwargs).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.weight, 3.0)
            nn.init.constant_(module.bias, 1.5)
    return model


def _by_name(analysis):
    return {row.name: row for row in analysis.rows}


@pytest.mark.parametrize(
    ("values", "kind", "rate", "mean"),
    [
        ([0, 1, 1, 0], "binary", 0.5, 0.5),
        ([0, 0, 0, 0], "binary", 0.0, 0.0),
        ([0, 2, 1, 0], "integer", 0.5, 0.75),
        ([0, -1, 1, 0], "ternary", 0.5, 0.5),
        ([0, -1, -1, 0], "ternary", 0.5, 0.5),
        ([0, -2, 1, 0], "real", 0.5, -0.25),
        ([0, -0.5, 1, 0], "real", 0.5, 0.125),
        ([0, 0.5, 1, 0], "real", 0.5, 0.375),
    ],
)
def test_what_a_tensor_holds_is_observed(values, kind, rate, mean):
    found = observe(torch.tensor(values, dtype=torch.float32))
    largest = 1 if kind == "ternary" else max(values)
    assert (found.kind, found.rate, found.mean, found.largest) == (kind, rate, mean, largest)
    if kind == "binary":
        assert observe(torch.tensor(values, dtype=torch.bool)) == found


class _Toy(nn.Module):
    """An image, a neuron, spikes with a known rate into a layer with a bias, whole numbers into a classifier."""

    step = 2

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.node = LIFNode(step=2, layer_by_layer=True)
        self.fc = nn.Linear(2 * 16, 5)

    def forward(self, x):
        spikes = self.node(self.conv(x).repeat(2, 1, 1, 1).flatten(1))
        return self.fc(spikes * 3)


def test_a_layer_costs_what_the_formulas_say():
    toy = _Toy()
    nn.init.zeros_(toy.conv.weight)
    toy.conv.bias.data.copy_(torch.tensor([4.0, 0.0]))  # half of the neurons fire at every step
    x = torch.rand(3, 1, 4, 4)
    first, dense = 2 * 2 * 16 * 9, 2 * 32 * 5
    rows = _by_name(analyze(toy, [x, x[:1]], method="spikingformer"))
    assert (rows["conv"].mac, rows["conv"].ac) == (first + 2 * 32, 0)
    assert (rows["fc"].inputs, rows["fc"].rate, rows["fc"].mac) == ("integer", 0.5, dense + 2 * 5)
    as_spikes = _by_name(analyze(toy, [x], whole_as_spikes=True))["fc"]
    assert (as_spikes.mac, as_spikes.ac) == (0, (dense + 2 * 5) * 1.5)
    rows = _by_name(analyze(toy, [x], method="sdt", e_mac=2.0, e_ac=1.0))
    assert (rows["conv"].mac, rows["fc"].ac) == (first, dense * 1.5)
    assert rows["fc"].energy == pytest.approx(dense * 1.5 / 1e9)
    assert _by_name(analyze(toy, [x], first_layer_times_steps=False))["conv"].mac == (first + 64) / 2


def test_attention_costs_the_closed_form():
    product = nn.Sequential()
    product.fc, product.product, product.node = nn.Linear(4, 4), SpikingProduct(1.0), LIFNode(step=1)
    product.forward = lambda x: product.product(x + 0 * product.fc(x), 1 - x, torch.ones_like(x))
    x = torch.zeros(2, 3, 5, 4)  # B, h, N, d
    x[..., 0] = 1
    row = _by_name(analyze(product, [x]))["product"]
    assert row.ac == pytest.approx(3 * 5 * 4**2 * (min(0.75, 1.0) + 0.25))
    assert _by_name(analyze(product, [x], method="sdt"))["product"].ac == pytest.approx(3 * 5 * 16 * (0.75 + 0.25))


@pytest.mark.parametrize("method", METHODS)
def test_attention_to_real_numbers_costs_multiplications(method):
    product = nn.Sequential()
    product.fc, product.product, product.node = nn.Linear(4, 4), SpikingProduct(1.0), LIFNode(step=1)
    product.forward = lambda x: product.product(x + 0 * product.fc(x), x, 0.5 * x)
    row = _by_name(analyze(product, [torch.ones(2, 3, 5, 4)], method=method))["product"]
    assert (row.inputs, row.mac, row.ac) == ("real", 2 * 3 * 5 * 4**2, 0)


@pytest.mark.parametrize(("keys", "width"), [(7, 3), (5, 4), (2, 4)])
def test_attention_to_other_tokens_is_counted_from_their_number(keys, width):
    q, k, v = torch.zeros(2, 3, 5, 4), torch.ones(2, 3, keys, 4), torch.zeros(2, 3, keys, width)
    q[..., 0], v[..., :1] = 1, 1  # rates 1/4 and 1/width
    product = nn.Sequential()
    product.fc, product.product, product.node = nn.Linear(4, 4), SpikingProduct(1.0), LIFNode(step=1)
    product.forward = lambda x: product.product(x + 0 * product.fc(x), k, v)
    row = _by_name(analyze(product, [q]))["product"]
    first, second = 3 * keys * 4 * width, 3 * 5 * 4 * width  # K^T V and Q (K^T V)
    assert row.macs == first + second
    assert row.ac == pytest.approx(first / width + second / 4)
    assert _by_name(analyze(product, [q], method="sdt"))["product"].ac == pytest.approx(first + second / 4)


@pytest.mark.parametrize(
    ("name", "blocks", "first", "second", "at_rate_1"),
    [
        ("sdt_8_384", 8, 65.03, 520.22, 16.54),
        ("sdt_6_512", 6, 86.70, 924.84, 24.97),
        ("sdt_8_768", 8, 130.06, 2080.90, 66.17),
    ],
)
def test_spike_driven_transformers_table(name, blocks, first, second, at_rate_1):
    """Millions of multiply-accumulates at one step, and mJ of four steps if every rate were 1."""
    model = timm.create_model(name, step=1, depth=1)
    analysis = analyze(model, [torch.rand(1, 3, 224, 224)], method="sdt")
    macs = {row.name: row.macs / 1e6 for row in analysis.rows}
    assert macs["patch_embed.stages.0.conv"] == pytest.approx(first, abs=5e-3)
    assert macs["patch_embed.stages.1.conv"] == pytest.approx(second, abs=5e-3)
    block = sum(value for key, value in macs.items() if key.startswith("blocks."))
    stem = sum(value for key, value in macs.items() if key.startswith("patch_embed.")) - first
    assert 0.9e-3 * 4 * (stem + blocks * block) == pytest.approx(at_rate_1, abs=0.01)


def test_spike_driven_transformer_v2_counts_fused():
    """Its totals in billions: 6.41 as trained, 14.83 with every stack and chain as the convolution that it is."""
    model = timm.create_model("sdt_v2_15m", step=1)
    x = torch.rand(1, 3, 224, 224)
    fused, trained = analyze(model, [x], method="sdt"), analyze(model, [x])
    inner = [[row.macs for row in analysis.rows if row.name not in ("patch_embed.conv", "head")]
             for analysis in (fused, trained)]  # fmt: skip
    assert sum(inner[0]) / 1e9 == pytest.approx(14.83, abs=5e-3)
    assert sum(inner[1]) / 1e9 == pytest.approx(6.41, abs=5e-3)
    assert fused.rows[0].macs == pytest.approx(59.01e6, rel=1e-4)


def test_pooling_raises_the_rate_that_a_layer_reads():
    model = _awake("spikformer_8_512", embed_dim=16, depth=1, num_heads=2, img_size=32)
    x = torch.rand(2, 3, 32, 32)
    read, published = (analyze(model, [x], method="sdt", pre_pool=pre_pool) for pre_pool in (False, True))
    name = "patch_embed.stages.1.conv"
    assert _by_name(published)[name].ac < _by_name(read)[name].ac
    assert _by_name(published)["blocks.0.mlp.fc2.linear"] == _by_name(read)["blocks.0.mlp.fc2.linear"]


def test_events_charge_the_first_layer_by_its_pixels():
    model = _awake("spikformer_ndigits")
    x = torch.zeros(1, 4, 2, 16, 16)
    x[..., :4] = 1
    dense, sparse = (analyze(model, [frames], method="sdt").rows[0] for frames in (torch.ones_like(x), x))
    assert sparse.mac == dense.mac / 4
    assert sparse.macs == dense.macs


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.EXAMPLE)
@pytest.mark.parametrize("method", METHODS)
def test_every_family_and_the_network_is_left_as_it_was(family, method):
    model = _awake(family.EXAMPLE, **family_of(family.EXAMPLE).TINY).train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    shape = (
        (3, model.step, model.in_chans, *model.img_size)
        if model.in_chans == 2
        else (3, model.in_chans, *model.img_size)
    )
    x = torch.rand(shape)
    analysis = analyze(model, [(x[:2], None), (x[2:], None)], method=method)
    assert analysis.samples == 3
    assert analysis.ac > 0
    assert {row.type for row in analysis.rows} & {"product", "matmul", "sum", "transform"}
    assert model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not [m for m in model.modules() if m._forward_hooks]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.EXAMPLE)
def test_dense_operations_equal_an_independent_counters(family):
    model = _awake(family.EXAMPLE, **family_of(family.EXAMPLE).TINY)
    x = torch.rand(2, model.in_chans, *model.img_size)
    counted = count_operations(model, [x])
    ours = sum(call.macs for row in counted.rows if row.type in ("conv", "linear") for call in row.calls)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    flops = counter.get_flop_counts()["Global"]
    assert 2 * ours == sum(count for op, count in flops.items() if "bmm" not in str(op))


_WAYS = {
    "one by one": lambda x: [sample[None] for sample in x],
    "3 and 5": lambda x: [x[:3], x[3:]],
    "backwards": lambda x: [x[5:], x[:5].flip(0)],
}


def _uneven(model):
    """Return eight samples of which some say little: what a layer reads is then of another kind in some batches."""
    shape = (8, model.step, 2) if model.in_chans == 2 else (8, model.in_chans)
    x = torch.rand(*shape, *model.img_size)
    x[:3] *= 0.2
    x[5:] = 0
    return x


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.EXAMPLE)
@pytest.mark.parametrize("method", METHODS)
def test_energy_does_not_depend_on_how_the_samples_are_batched(family, method):
    """In float64: a processor may round otherwise for another size of the batch, and a spike may then flip."""
    model = timm.create_model(family.EXAMPLE, **family.TINY).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.constant_(module.weight, 1.5)
            nn.init.constant_(module.bias, 0.3)
    x = _uneven(model).double()
    with torch.no_grad():
        model(x)
    at_once = analyze(model, [x], method=method)
    once = {"method": method, "first_layer_times_steps": False}
    first_once = analyze(model, [x], **once).energy
    found = {name: analyze(model, cut(x), method=method) for name, cut in _WAYS.items()}
    with suppress(UserError):  # of a network whose blocks read all steps at once
        model.set_attr("layer_by_layer", False)
        assert analyze(model, [x], **once).energy == pytest.approx(first_once, rel=1e-9)
        found["step by step"] = analyze(model.eval(), [x], method=method)
    for way, analysis in found.items():
        assert analysis.energy == pytest.approx(at_once.energy, rel=1e-9), way
        assert analysis.ann_energy == pytest.approx(at_once.ann_energy, rel=1e-9), way
        rows = _by_name(analysis)  # step by step, a layer that the first step has not comes later
        assert rows.keys() == _by_name(at_once).keys(), way
        for name, expected in _by_name(at_once).items():
            row = rows[name]
            assert row.inputs == expected.inputs, (way, name)
            figures = [row.rate, row.macs, row.mac, row.ac]
            assert figures == pytest.approx([expected.rate, expected.macs, expected.mac, expected.ac], rel=1e-9), way


class _Product(nn.Sequential):
    """Read a sample's first row as it is, and multiply spikes whose rates are another sample's by turns."""

    def __init__(self):
        super().__init__()
        self.fc, self.product, self.node = nn.Linear(4, 4), SpikingProduct(1.0), LIFNode(step=1)

    def forward(self, x):
        return self.product(self.fc(x) * 0, x[:, :, :1] % 2, 1 - x[:, :, :1] % 2)


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_and_a_product_are_charged_by_what_they_read_over_all_data(method):
    x = torch.zeros(4, 3, 5, 4)  # B, h, N, d
    x[1], x[2], x[3, :, 0] = 1, 2, 0.5
    whole = analyze(_Product(), [x], method=method)
    apart = analyze(_Product(), [sample[None] for sample in x], method=method)
    assert [row.inputs for row in apart.rows] == ["real", "real"]
    assert [(row.mac, row.ac) for row in apart.rows] == [(row.mac, row.ac) for row in whole.rows]


def test_images_and_frames_in_one_count_and_single_steps_are_refused():
    model = timm.create_model("spikformer_ndigits")
    frames, image = torch.rand(2, 4, 2, 16, 16), torch.rand(2, 2, 16, 16)
    for batches in ([frames, image], [image, frames]):
        with pytest.raises(UserError, match="both images and frames"):
            analyze(model, batches)
    model.set_streaming()
    with pytest.raises(UserError, match=r"is streaming.* set_streaming\(False"):
        analyze(model, frames.unbind(1))


class _Changed(nn.Module):
    """Layers with something in between that leaves no other tensor; one by keyword, one on changed spikes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.node = LIFNode(step=1, layer_by_layer=True)
        self.c, self.d = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        spikes = self.node(self.b(input=self.a(x).relu_()))
        read = self.c(spikes)
        return read + self.d(spikes.add_(1.5))


def test_what_is_changed_in_place_is_another_tensor():
    rows = _by_name(analyze(_Changed(), [torch.rand(2, 4)], method="sdt"))
    assert [row.macs for row in rows.values()] == [16] * 4
    assert [rows[name].inputs for name in "cd"] == ["binary", "real"]
    assert {row.type for row in rows.values()} == {"linear"}


def test_two_linear_layers_in_a_row_are_one():
    toy = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2), LIFNode(step=1, layer_by_layer=True))
    assert [row.macs for row in analyze(toy, [torch.rand(2, 4)], method="sdt").rows] == [0, 8]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.GRU(4, 4), (2, 3, 4)), (nn.LSTM(4, 4), (2, 3, 4))],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_that_is_not_counted_is_named(layer, shape):
    toy = nn.Sequential(LIFNode(step=1, layer_by_layer=True), layer)
    with pytest.raises(UserError, match=f"1 is a {type(layer).__name__}, whose operations are not counted"):
        analyze(toy, [torch.rand(shape)])


def test_attention_of_pytorchs_is_named_within_an_encoder_too():
    toy = nn.Sequential(LIFNode(step=1, layer_by_layer=True), nn.TransformerEncoderLayer(8, 2, 16))
    with pytest.raises(UserError, match=r"1\.self_attn is a MultiheadAttention, whose operations are not counted"):
        analyze(toy, [torch.rand(2, 3, 8)])


def test_a_layer_that_each_step_calls_twice_counts_twice_in_an_ordinary_network():
    toy = nn.Sequential()
    toy.step, toy.fc, toy.node = 3, nn.Linear(4, 4), LIFNode(step=3, layer_by_layer=True)
    toy.forward = lambda x: toy.node(toy.fc(toy.fc(x.transpose(0, 1).flatten(0, 1)).relu()))
    assert analyze(toy, [torch.rand(2, 3, 4)]).ann_energy == pytest.approx(2 * 16 * 4.6e-9)


def test_a_table_and_two_files(tmp_path):
    analysis = analyze(_awake("spikformer_digits"), [torch.rand(2, 1, 8, 8)])
    lines = format_energy(analysis).splitlines()
    assert "4.6 pJ" in lines[0]
    assert lines[-2].startswith("all") or lines[-3].startswith("all")
    table, data = write_energy(analysis, tmp_path)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [row.name for row in analysis.rows]
    content = json.loads(data.read_text())
    assert content["total"]["energy_mj"] == pytest.approx(sum(float(row["energy"]) for row in rows))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"method": "sdtt"}, "did you mean sdt"),
        ({"method": "sdt", "whole_as_spikes": True}, "sdt has no whole_as_spikes"),
        ({"count_head": True, "pre_pool": True}, "spikingformer has no pre_pool and no count_head"),
    ],
)
def test_mistakes_are_one_line(kwargs, message):
    with pytest.raises(UserError, match=message):
        analyze(_Toy(), [torch.rand(1, 1, 4, 4)], **kwargs)


def test_nothing_to_measure():
    for batches in ([], [torch.rand(0, 1, 4, 4)]):
        with pytest.raises(UserError, match="no batch"):
            analyze(_Toy(), batches)
    with pytest.raises(UserError, match="no convolution"):
        analyze(LIFNode(step=1, layer_by_layer=True), [torch.rand(1, 1, 4, 4)])
