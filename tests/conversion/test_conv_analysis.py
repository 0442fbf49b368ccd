"""Rates, operations, energy and audit of converted networks, against figures worked out by hand."""

import warnings

import numpy as np
import pytest
import torch
from small_networks import METHOD_NAMES, converted, images
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from braincog_transformers import UserError
from braincog_transformers.analysis.attention_maps import attention_maps
from braincog_transformers.analysis.audit import audit, format_audit
from braincog_transformers.analysis.doctor import diagnose
from braincog_transformers.analysis.energy import analyze, dense_energy, energy_over_steps
from braincog_transformers.analysis.firing import firing_rates
from braincog_transformers.analysis.memory import memory
from braincog_transformers.analysis.operations import count_operations
from braincog_transformers.analysis.pictures.dataflow import follow
from braincog_transformers.analysis.pictures.visualize import (
    draw_attention,
    draw_energy,
    draw_membranes,
    spike_maps,
    visualize,
)
from braincog_transformers.analysis.recorder import NodeRecord, record
from braincog_transformers.conversion import Converted, convert, prepare
from braincog_transformers.conversion.increments import BiasOnceLinear, Increment, IncrementalProduct
from braincog_transformers.nodes.valued import BurstNode, SoftResetNode, STBIFNode
from braincog_transformers.ops import planes


class Tiny(nn.Module):
    """A layer, neurons, a layer."""

    def __init__(self, node, first=None, head=None):
        super().__init__()
        self.first, self.node, self.head = first or nn.Linear(2, 2), node, head or nn.Linear(2, 3)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(2))
            self.first.bias.zero_()

    def forward(self, x):
        return self.head(self.node(self.first(x)))

    def get_classifier(self):
        return self.head


class Vectors(Converted):
    method, input_dims = "toy", 2


def tiny(node=None, step=4, **layers):
    return Vectors(Tiny(node or SoftResetNode(0.5, start=0.0), **layers), step)


# with a threshold of 0.5 the first neuron fires at the second and fourth step, the second one at each
X = torch.tensor([[0.25, 0.5]])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize("threshold", [0.5, torch.tensor([0.5, 0.5])], ids=["one", "each"])
def test_spikes_are_counted_whatever_they_are_worth(threshold):
    network = tiny(SoftResetNode(threshold, start=0.0))
    row = firing_rates(network, [X])[0]
    assert row.per_step == (0.5, 1.0, 0.5, 1.0)
    assert (row.rate, row.neurons, row.silent, row.saturated, row.real) == (0.75, 2, 0.0, 0.5, False)
    layer = analyze(network, [X]).rows[1]
    assert (layer.name, layer.inputs, layer.rate) == ("network.head", "binary", 0.75)
    assert layer.ac == 4 * (6 + 3) * 0.75
    assert layer.mac == 0


def test_thresholds_of_their_own_are_followed_through_views_scalings_and_sums():
    with planes.Planes(unrolls=False) as mode:
        worth = torch.tensor([0.3, 0.7])
        counts = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0]])
        fired = counts * worth
        mode.note_worth(fired, worth)
        for x, expected in [
            (fired.t(), counts.t()),
            (fired[1:, 1], counts[1:, 1]),
            (fired.t().reshape(3, 2), counts.t().reshape(3, 2)),
            (fired.t().contiguous() * 0.125, counts.t()),
            (fired + fired * 1.0, 2 * counts),
            (fired.roll(1, 0), counts.roll(1, 0)),
            (torch.cat([fired, fired], 1), torch.cat([counts, counts], 1)),
            (fired + fired.flip(1), counts.abs() + counts.flip(1).abs()),  # spikes of both
        ]:
            assert planes.unrolled(x).counts.tolist() == expected.tolist()
        for x in (fired + 0.1, fired @ torch.ones(2, 2), fired.mean(1)):
            assert planes.unrolled(x) is None


def test_energy_after_each_step_is_that_of_a_network_that_ends_there():
    network = tiny(head=BiasOnceLinear(2, 3))
    over = energy_over_steps(network, [X, 2 * X], e_ac=1.0)
    assert [analysis.steps for analysis in over] == [1, 2, 3, 4]
    spikes = [1, 3, 4, 6]  # of the first sample; all 8 neurons of the second one fire
    for t, analysis in enumerate(over, 1):
        rate = (spikes[t - 1] + 2 * t) / (4 * t)
        assert analysis.rows[1].ac == pytest.approx(6 * t * rate + 3 * (spikes[0] + 2) / 4)  # biases at the first step
        network.step = t
        assert analysis == analyze(network, [X, 2 * X], e_ac=1.0)
    assert [round(analysis.ann_energy, 15) for analysis in over] == [round((4 + 6) * 4.6e-9, 15)] * 4
    network.step = 4
    assert energy_over_steps(network, [X, 2 * X], steps=[2, 4], e_ac=1.0) == [over[1], over[3]]
    with pytest.raises(UserError, match="steps are from 1 to T=4; got 5"):
        energy_over_steps(network, [X], steps=[5])
    with pytest.raises(UserError, match="needs a converted network; Linear takes all steps at once"):
        energy_over_steps(nn.Linear(2, 2), [X])


@pytest.mark.parametrize("method", ["spikingformer", "sdt"])
def test_a_repeated_input_costs_its_first_layer_at_each_step_and_one_that_enters_once_does_not(method):
    class Once(Vectors):
        coding = "once"

    class Spread(Vectors):
        coding, spread = "spread", 2

    first = {"spikingformer": 4 + 2, "sdt": 4}[method]  # biases count in one of the two
    for kind, steps in ((Vectors, 4), (Once, 1), (Spread, 2)):
        rows = analyze(kind(Tiny(SoftResetNode(0.5)), 4), [X], method=method).rows
        assert rows[0].macs == 4 * steps
        assert rows[0].inputs == "real"
        biases = 2 * (4 - steps) if method == "spikingformer" else 0  # which this layer adds at each step
        assert rows[0].mac == first * steps + biases
    frames = torch.tensor([[[0.25, 0.5], [0.5, 0.25]]])  # (B, T, ...): each step reads its own
    assert analyze(Once(Tiny(SoftResetNode(0.5)), 4), [frames], method=method).rows[0].macs == 4 * 2


def test_a_bias_that_is_added_once_is_charged_once():
    layers = {"first": BiasOnceLinear(2, 2), "head": BiasOnceLinear(2, 3)}
    rows = count_operations(tiny(**layers), [X, X]).rows
    assert [row.total("biases") for row in rows] == [2 * 2, 2 * 3]
    assert [row.total("macs") for row in rows] == [2 * 4 * 4, 2 * 4 * 6]


SIGNED = torch.tensor([[[0.5, 0.5], [-0.5, 0.0], [0.5, 0.0], [0.0, -0.5]]])  # (B, T, 2): 1 1, -1 0, 1 0, 0 -1


@pytest.mark.parametrize("method", ["spikingformer", "sdt"])
def test_a_spike_of_minus_one_costs_what_one_of_one_costs(method):
    network = tiny(STBIFNode(0.5, high=2))
    rows = firing_rates(network, [SIGNED])
    assert rows[0].per_step == (1.0, 0.5, 0.5, 0.5)
    row = analyze(network, [SIGNED], method=method, **{"count_head": True} if method == "sdt" else {}).rows[1]
    assert (row.inputs, row.rate, row.mac) == ("ternary", 5 / 8, 0)
    assert row.ac == pytest.approx(4 * (6 if method == "sdt" else 9) * 5 / 8)


def test_the_audit_says_what_a_sign_means():
    network = tiny(STBIFNode(0.5, high=2))
    network.network.head, network.network.after = nn.Identity(), nn.Linear(2, 2)
    network.network.forward = lambda x: network.network.after(network.network.node(network.network.first(x)))
    network.network.get_classifier = nn.Identity
    found = audit(network, [SIGNED])
    assert found.spike_driven
    assert [(f.inputs, f.largest, f.meaning) for f in found.findings[1:]] == [
        ("ternary", 1.0, "additions and subtractions only")
    ]
    assert format_audit(found).endswith("classifier, 0 binary, 1 ternary, 0 integer, 0 real")


class Product(nn.Module):
    """Two neurons, whose running sums are multiplied."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.softmax = nn.Linear(3, 3), nn.Linear(3, 3), Increment(nn.Softmax(-1))
        self.q_node, self.k_node = STBIFNode(0.11, low=-4, high=4), STBIFNode(0.07, low=-4, high=4)
        self.product, self.head = IncrementalProduct(), BiasOnceLinear(4, 2)

    def forward(self, x):
        q, k = self.q_node(self.q(x)), self.k_node(self.k(x))
        return self.head(self.softmax(self.product(q * 0.5, k.transpose(-2, -1)))).mean(1)


class Tokens(Converted):
    method, input_dims, coding = "toy", 3, "once"


def test_products_of_running_sums_are_driven_by_the_spikes_of_the_step():
    torch.manual_seed(0)
    network, x = Tokens(Product(), 12), torch.randn(3, 4, 3)
    counted = count_operations(network, [x[:2], x[2:]])
    rows = {row.name: row for row in counted.rows}
    first, second = rows["network.product.matmul"], rows["network.product.matmul1"]
    assert [first.total("macs"), second.total("macs")] == [3 * 48 * 12, 3 * 48 * 11]
    kinds = [[row._kind_of(place) for place in (0, 1)] for row in (first, second)]
    assert kinds == [["integer", "ternary"], ["ternary", "integer"]]
    assert [first.driving, second.driving] == [1, 0]
    assert rows["network.head"].kind == "real"
    energy = {row.name: row for row in analyze(network, [x]).rows}
    k_rate, q_rate = (row.rate for row in (energy["network.product.matmul"], energy["network.product.matmul1"]))
    rates = {row.name: row for row in firing_rates(network, [x])}
    assert k_rate == pytest.approx(rates["network.k_node"].rate)
    assert q_rate == pytest.approx(sum(rates["network.q_node"].per_step[1:]) / 11)
    assert energy["network.product.matmul"].ac == pytest.approx(48 * 12 * k_rate)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sums_of_many_spikes_are_whole_numbers_in_spite_of_rounding(dtype):
    node = STBIFNode(0.0371, low=-60, high=60).to(dtype)
    node.layer_by_layer = False
    generator = torch.Generator().manual_seed(0)
    with planes.Planes(unrolls=False), torch.no_grad():
        total = 0
        for _ in range(200):
            fired = node(torch.randn(2000, generator=generator).to(dtype) * 0.1)
            assert planes.unrolled(fired) is not None
            total = total + fired
        whole = dtype is not torch.bfloat16  # whose sums have an error of whole spikes
        assert (planes.unrolled(total) is not None) is whole
        if whole:
            assert torch.equal(planes.unrolled(total).counts, node.tracer.to(dtype))
        assert planes.unrolled(total + torch.rand(2000, generator=generator).to(dtype)) is None


class Stopping(Vectors):
    """It has nothing left to do once what entered is used up."""

    coding = "once"

    def settled(self):
        return bool((self.network.node.mem < 0.5).all())


def test_where_a_network_stops_does_not_change_what_is_counted():
    x = torch.tensor([[0.5, 0.5], [2.0, 0.5]])
    network = Stopping(Tiny(SoftResetNode(0.5, start=0.0)), 6)
    calls = []
    hook = network.network.register_forward_hook(lambda *_: calls.append(1))
    network(x[:1])
    hook.remove()
    assert len(calls) == 1  # it does stop
    whole, apart = (firing_rates(network, batches)[0] for batches in ([x], [x[:1], x[1:]]))
    assert whole == apart
    assert whole.per_step == (1.0, 0.25, 0.25, 0.25, 0.0, 0.0)
    assert analyze(network, [x]) == analyze(network, [x[:1], x[1:]])
    assert analyze(network, [x]).steps == 6
    assert network.stops
    with record(network) as records:
        network(x)
    assert records["network.node"].spikes.shape == (6, 2, 2)


def test_what_a_network_does_once_at_its_end_is_counted_once():
    class Tail(Vectors):
        def __init__(self, network, tail, step):
            super().__init__(network, step)
            self.tail = tail

        def readout(self, total, steps):
            return self.tail(total / steps)

    network = Tail(Tiny(SoftResetNode(0.5, start=0.0)), nn.Linear(3, 5), 4)
    over = energy_over_steps(network, [X])
    assert [analysis.rows[2].macs for analysis in over] == [15] * 4
    assert over[3] == analyze(network, [X])
    assert over[0].ann_energy == pytest.approx((4 + 6 + 15) * 4.6e-9)


def test_the_energy_of_the_source_is_that_of_its_products():
    source = Tiny(nn.ReLU())
    assert dense_energy(source, [X, X]) == pytest.approx((4 + 6) * 4.6e-9)
    assert dense_energy(source, [X], e_mac=1.0) == pytest.approx(10e-9)


def test_recorded_spikes_are_whole_numbers():
    network = tiny(SoftResetNode(torch.tensor([0.5, 0.25]), start=0.0))
    with record(network, membranes=True) as records:
        network(X)
    found = records["network.node"]
    assert found.spikes[:, 0].tolist() == [[0, 1], [1, 1], [0, 1], [1, 1]]
    assert found.threshold == 1  # potentials are counted in thresholds
    network = tiny(BurstNode(torch.tensor([0.5, 0.25])))
    with record(network, membranes=True) as records:
        network(X)
    assert records["network.node"].threshold == pytest.approx(0.375)
    assert set(records["network.node"].spikes.unique().tolist()) <= {0, 1, 2, 3, 4}


def test_pictures_are_drawn(tmp_path):
    network = Tokens(Product(), 3)
    x = torch.randn(2, 4, 3)
    assert len(visualize(network, x, tmp_path)) == 2  # no maps: nothing here has a place
    assert draw_energy(analyze(network, [x]), tmp_path).exists()


def test_memory_is_measured_as_of_any_network():
    network = tiny()
    need = memory(lambda: network(X), forget=network.reset, backward=False, device=torch.device("cpu"))
    assert need.peak > 0


def test_what_needs_training_or_one_call_for_all_steps_is_refused():
    with pytest.raises(UserError, match="Vectors is not trained; check its source"):
        diagnose(tiny(), (X, torch.tensor([1])))
    with pytest.raises(UserError, match="no diagram of Vectors"):
        follow(tiny())


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_is_counted_as_pytorch_counts_it(method):
    network, x = converted(method), images()
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(x[:2])
    rows = count_operations(network, [x]).rows
    assert {row.type for row in rows} == {"conv", "linear", "matmul"}
    empty = 2 * rows[0].total("macs") if network.coding == "once" else 0.0  # its first layer reads zeros at two steps
    counted = (sum(row.total("macs") for row in rows) + empty) / len(x)
    assert counted == counter.get_total_flops() / 2 / 2
    over = energy_over_steps(network, [x])
    assert over[-1] == analyze(network, [x])
    assert [analysis.energy for analysis in over] == sorted(analysis.energy for analysis in over)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_figures_of_every_method_do_not_depend_on_the_batches(method):
    network, x = converted(method), images()
    whole, apart = (analyze(network, batches) for batches in ([x], [x[:1], x[1:]]))
    assert whole.energy == pytest.approx(apart.energy, rel=1e-6)
    assert whole.ann_energy == pytest.approx(apart.ann_energy)
    rates = [firing_rates(network, batches) for batches in ([x], [x[:1], x[1:]])]
    for one, other in zip(*rates, strict=True):
        assert one.rate == pytest.approx(other.rate, abs=1e-4)
        assert (one.neurons, len(one.per_step), one.real) == (other.neurons, 3, False)
        assert 0 <= one.rate <= 1


KINDS = {
    "qcfs": {"binary"},
    "rate": {"real", "binary"},
    "spikezip": {"ternary", "binary"},
    "sta": {"real", "integer"},
}


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_the_audit_knows_what_the_layers_of_every_method_read(method):
    found = audit(converted(method), [images()])
    assert {f.inputs for f in found.findings if f.role == "inner"} <= KINDS[method]
    assert found.spike_driven == (not KINDS[method] & {"real", "integer"})


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_the_attention_of_every_method_has_maps(method):
    maps = attention_maps(converted(method), images())
    assert [(each.name, each.values.shape) for each in maps] == [("network.blocks.0.attn", (3, 2, 2, 2))]
    assert all((each.values >= 0).all() for each in maps)
    assert 0 < maps[0].values.sum(axis=(2, 3)).max() <= 1 + 1 / 16  # rounded to levels of a sixteenth at least


def test_maps_of_changes_of_the_weights_are_added_up():
    network, fired = converted("spikezip"), []
    node = network.get_submodule("network.blocks.0.attn.weight_node")
    hook = node.register_forward_hook(lambda _m, _i, out: fired.append(out.mean(-2)[0, :, 1:].reshape(2, 2, 2)))
    maps = attention_maps(network, images())
    hook.remove()
    assert maps[0].values == pytest.approx(torch.stack(fired).cumsum(0).numpy(), abs=1e-6)


def test_pictures_have_maps_of_tokens_and_of_attention(tmp_path):
    network = converted("spikezip")
    assert [path.name for path in visualize(network, images(), tmp_path)][1] == "spike_maps.png"
    assert draw_attention(network, images(), tmp_path).exists()
    assert draw_membranes(network, images(), tmp_path).exists()


def test_maps_of_tokens_leave_out_the_class_token():
    tokens = torch.zeros(2, 1, 5, 3)
    tokens[:, :, 0], tokens[0, 0, 2], tokens[1, 0, 4, 0] = 1, torch.tensor([1.0, -1, 0]), -1
    windows = torch.zeros(2, 1, 2, 4, 3)
    records = {"tokens": NodeRecord("tokens", 1.0, [tokens]), "windows": NodeRecord("windows", 1.0, [windows])}
    maps = spike_maps(records, (16, 16), grid=(2, 2), others=1)
    assert list(maps) == ["tokens"]
    assert maps["tokens"] == pytest.approx(np.array([[[0, 2 / 3], [0, 0]], [[0, 0], [0, 1 / 3]]]))
    channels_last = {"map": NodeRecord("map", 1.0, [torch.ones(1, 1, 8, 8, 3)])}
    assert spike_maps(channels_last, (16, 16))["map"].shape == (1, 8, 8)


class Windows(nn.Module):
    """Neurons in two windows of each sample, and in none."""

    def __init__(self):
        super().__init__()
        self.first, self.node, self.head = nn.Linear(2, 2), SoftResetNode(0.5, start=0.0), nn.Linear(2, 2)
        nn.init.eye_(self.first.weight)
        nn.init.zeros_(self.first.bias)

    def forward(self, x):
        return self.head(self.node(self.first(x.reshape(-1, 2, 2)))).reshape(len(x), -1)


def test_windows_are_neurons_of_their_sample():
    network = Tokens(Windows(), 2)
    network.coding = "constant"
    x = torch.tensor([[[0.5, 0.0], [0.0, 0.0], [0.5, 0.5], [0.0, 0.25]], [[0.0] * 2] * 4])
    rows = firing_rates(network, [x])
    assert (rows[0].neurons, rows[0].per_step) == (8, (3 / 16, 4 / 16))
    assert firing_rates(network, [x[:1], x[1:]]) == rows
    with record(network) as records:
        network(x)
    assert records["network.node"].spikes.shape == (2, 2, 2, 2, 2)


def test_the_energy_of_a_drained_network_does_not_fall():
    network = VisionTransformer(img_size=16, patch_size=8, num_classes=5, depth=1, embed_dim=24, num_heads=2)
    torch.manual_seed(0)
    x = torch.randn(4, 3, 16, 16)
    converted = convert(prepare(network, "spikezip", data=[x]), "spikezip", step=24)
    energies = [analysis.energy for analysis in energy_over_steps(converted, [x])]
    # once nothing enters any more; before, the kinds of what layers read are still being found out
    assert sorted(energies[12:]) == energies[12:]
    assert energies[-1] == energies[-2]  # biases enter at the first step, and nothing happens in the last
