"""STNet: the vectors of the official classes, state from frame to frame, sizes that fit together."""

import copy
import io
import json
import math
import pickle

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

from braincog_transformers.analysis.firing import firing_rates
from braincog_transformers.analysis.recorder import record
from braincog_transformers.checkpoints import load_checkpoint, load_content
from braincog_transformers.errors import UserError
from braincog_transformers.models.stnet import STNet, dynamic_threshold
from braincog_transformers.models.task_networks import TASK_NETWORKS
from braincog_transformers.runtime.batch import Batch

VALUE, GRADIENT = 1e-9, 1e-6
SIZES = {"img_size": 147, "z_size": 63, "x_size": 175}
TINY = {**SIZES, "widths": (4, 5, 16), "embed_dim": 12, "drop_path_rate": 0.0}


def _drawn(name, shape, draw):
    """Return the numbers of a parameter or buffer that a vector describes instead of storing them."""
    u = draw.random_sample(shape)
    if name.endswith("running_var") or (len(shape) < 2 and name.endswith((".weight", ".gamma", ".si"))):
        return u + 0.5
    if len(shape) < 2:
        return 0.6 * (u - 0.5)
    return (2 * u - 1) * (3 / math.prod(shape[1:])) ** 0.5 * (0.01 if name.startswith("basemodel.conv1.") else 1)


class Vector:
    """One file: the official network at small widths, its inputs and what it computed."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.meta = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is no mapping
        self.kwargs = json.loads(self.meta["kwargs"])
        self.state, self.input, self.probe = self._draw() if "state_shapes" in self.meta else self._stored()
        self.grads = {name[5:]: value for name, value in self.tensors.items() if name.startswith("grad.")}
        fixed = {name[11:]: value for name, value in self.tensors.items() if name.startswith("grad_fixed.")}
        self.grads |= fixed
        self.norms = json.loads(self.meta["grad_norms_fixed"])

    def _stored(self):
        layout, crops = json.loads(self.meta["input_layout"]), []
        for name in ("z", "x"):
            shape = layout[f"{name}_shape"]
            bits = np.unpackbits(self.tensors[f"input.{name}_bits"].numpy())[: math.prod(shape)]
            colours = torch.tensor(layout["channel_values"], dtype=torch.float64).view(3, 1, 1)
            crops.append(torch.from_numpy(bits.reshape(shape)).double().unsqueeze(3) * colours)
        state = {name[6:]: value for name, value in self.tensors.items() if name.startswith("state.")}
        return state, Batch(template=crops[0], search=crops[1]), self.tensors["probe"]

    def _draw(self):
        draw, shapes = np.random.RandomState(int(self.meta["seed"])), json.loads(self.meta["state_shapes"])
        state = {name: torch.tensor(_drawn(name, shapes[name], draw), dtype=torch.float32) for name in sorted(shapes)}
        state |= {name.replace("running_var", "num_batches_tracked"): torch.tensor(0) for name in shapes
                  if name.endswith("running_var")}  # fmt: skip
        colours, crops = np.array([255.0, 200.0, 150.0]).reshape(3, 1, 1), []
        for side in (self.kwargs["z_size"], self.kwargs["x_size"]):
            crops.append(torch.from_numpy((draw.random_sample((2, 2, 5, 1, side, side)) < 0.1) * colours))
        probe = draw.random_sample(tuple(self.tensors["logits_train"].shape)) - 0.5
        return state, Batch(template=crops[0], search=crops[1]), torch.from_numpy(probe)

    def network(self):
        kwargs = {name: tuple(value) if isinstance(value, list) else value for name, value in self.kwargs.items()}
        n, stride = kwargs.pop("score_size"), kwargs.pop("total_stride")
        network = STNet(**kwargs, drop_path_rate=0.0)
        assert (network.score_size, network.total_stride, network.step) == (n, stride, 5)
        load_content(network, {"model_state_dict": self.state}, "official.pkl")
        return network.double()


def pytest_generate_tests(metafunc):
    if "vector" in metafunc.fixturenames:
        paths = sorted(metafunc.config.getoption("--golden-dir").glob("stnet*.safetensors"))
        paths = [path for path in paths if "pipeline" not in path.stem]
        metafunc.parametrize("vector", paths, ids=[path.stem for path in paths], indirect=True, scope="module")


@pytest.fixture(scope="module")
def vector(request):
    return Vector(request.param)


@pytest.fixture(scope="module")
def tiny():
    """Return a network in evaluation mode whose outputs depend on every part; tests copy it if they change it."""
    torch.manual_seed(0)
    network = STNet(**TINY).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(("conv.weight", "gamma")):
            nn.init.normal_(parameter, std=0.3)
    network.spiking.convs[0].weight.data *= 0.01  # grey levels up to 255 enter
    return network


def crops(network, samples=1, seed=0):
    draw, side = torch.Generator().manual_seed(seed), (network.z_size, network.x_size)
    shapes = [(samples, 2, network.step, network.in_chans, s, s) for s in side]
    return Batch(**{name: 255.0 * (torch.rand(shape, generator=draw) < 0.1) for name, shape in
                    zip(("template", "search"), shapes, strict=True)})  # fmt: skip


def joined(out):
    return torch.cat((out.cls, out.ctr, out.boxes), -1)


def scored(out):
    return torch.cat((out.cls.sigmoid() * out.ctr.sigmoid(), out.boxes), -1)


# The vectors


def test_there_is_a_vector(pytestconfig):
    assert list(pytestconfig.getoption("--golden-dir").glob("stnet*.safetensors"))


def test_evaluation_matches(vector):
    network, seen = vector.network().eval(), {"transformer": [], "fusion": []}
    network.transformer.register_forward_hook(lambda _module, _inputs, out: seen["transformer"].append(out))
    network.fusion.register_forward_hook(lambda _module, inputs, out: seen["fusion"].append((*inputs, out)))
    with torch.no_grad():
        out = network(vector.input)
    assert (joined(out) - vector.tensors["logits_eval"]).abs().max() < VALUE
    thresholds = [nodes[i].get_thres() for nodes in (network.spiking.template_nodes, network.spiking.search_nodes)
                  for i in range(3)]  # fmt: skip
    expected = vector.tensors.get("inner.thresholds", vector.tensors.get("thresholds"))
    assert (torch.stack(thresholds).view(2, 3) - expected[:, None]).abs().max() < VALUE
    if "inner.tem_z" in vector.tensors:
        for found, name in zip(seen["fusion"][0], ("tem_z", "spa_z", "fused_z"), strict=True):
            assert (found - vector.tensors[f"inner.{name}"]).abs().max() < VALUE, name
        features = seen["transformer"][0][:1]
        torch.testing.assert_close(features.float(), vector.tensors["inner.transformer_z"], rtol=1e-6, atol=1e-6)


def test_training_matches_in_value_and_gradient(vector):
    network = vector.network().train()
    out = joined(network(vector.input))
    assert (out - vector.tensors["logits_train"]).abs().max() < VALUE
    (out * vector.probe).sum().backward()
    translate = network.official_names.translate
    for name, expected in vector.grads.items():
        grad = network.get_parameter(translate(name)).grad
        assert (grad - expected).norm() / expected.double().norm() < GRADIENT, name
    learnt = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {translate(name) for name, norm in vector.norms.items() if norm is not None} == learnt
    assert {translate(name) for name, norm in vector.norms.items() if norm is None} == {None}
    for name, norm in vector.norms.items():
        if norm is not None:
            grad = network.get_parameter(translate(name)).grad
            assert grad.norm().item() == pytest.approx(norm, rel=GRADIENT, abs=1e-9), name


def test_tracking_matches_with_the_state_carried(vector):
    network, x = vector.network().eval(), vector.input
    with torch.no_grad():
        kernels = network.embed_template(x.template[:1])
        frames = [scored(network.track(x.search[i : i + 1], kernels)) for i in (0, 1)]
    for i, frame in enumerate(frames, 1):
        if f"track.frame{i}.box" in vector.tensors:
            expected = [vector.tensors[f"track.frame{i}.{part}"] for part in ("score", "box")]
            assert (frame - torch.cat(expected, -1)).abs().max() < VALUE
        elif f"track.frame{i}" in vector.tensors:
            assert (frame - vector.tensors[f"track.frame{i}"]).abs().max() < VALUE
    found = torch.stack([value.mean() for node in network.spiking.search_nodes for value in (node.mem, node.spike)])
    names = [f"track.final_state.c{i}_{part}.mean" for i in (1, 2, 3) for part in ("mem", "spike")]
    expected = vector.tensors.get("track.final_state")
    expected = torch.cat([vector.tensors[name] for name in names]) if expected is None else expected
    assert (found - expected).abs().max() < VALUE


# The published network and its files


def test_parameters_are_the_published_ones():
    """20,534,919 less those that the official classes never use."""
    with torch.device("meta"):
        network = timm.create_model("stnet")

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)

    dead = 131_328 + 2 + 262_656 + 192
    assert count(network) == 20_534_919 - dead
    assert count(network.spiking, network.to_template) == 12_714_626 - 131_328 - 2
    assert count(network.to_template.conv) == 11_075_840
    assert count(network.transformer) == 1_639_647 - 192
    assert count(network.fusion) == 275_218 - 262_656
    assert count(network.head) == 3_543_060
    adjusting = (network.template_cls, network.template_box, network.search_cls, network.search_box)
    assert [count(module) for module in adjusting] == 4 * [590_592]
    assert (network.score_size, network.z_size, network.x_size, network.step) == (17, 127, 303, 5)


def test_locations_are_those_of_the_published_head(tiny):
    with torch.device("meta"):
        assert timm.create_model("stnet").head.centres.shape == (289, 2)
    published = STNet(widths=(1, 1, 16), embed_dim=6)
    assert published.head.centres[[0, 1, 17, 288]].tolist() == [[87, 87], [95, 87], [87, 95], [215, 215]]
    assert tiny.score_size == 9
    assert tiny.head.centres[[0, -1]].tolist() == [[55, 55], [119, 119]]  # (174 - 64) // 2


def test_weights_begin_as_published():
    torch.manual_seed(0)
    network = STNet(**TINY)
    assert torch.equal(network.head.cls.conv.bias, torch.tensor([-math.log(99)]))
    assert network.head.ctr.conv.bias.abs() < 0.25  # 1 / sqrt(fan-in)
    for module in network.head.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.abs().max() < 1e-3
    for adjust in (network.template_cls, network.template_box, network.search_cls, network.search_box):
        assert adjust.conv.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert network.fusion.over_channels.gamma == network.fusion.over_places.gamma == network.head.shift == 0
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in STNet(**{**TINY, "drop_path_rate": 0.2})
             .transformer.stages for block in stage]  # fmt: skip
    assert rates == pytest.approx([0, 0.2 / 3, 0.4 / 3, 0.2])


def test_an_official_file_loads_and_a_foreign_name_is_refused(vector, tmp_path):
    path = tmp_path / "fe240.pkl"
    index = {"transfor.layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.long)}
    torch.save({"model_state_dict": {**vector.state, **index}, "epoch": 20}, path)
    network, expected = vector.network().float(), vector.network().float().state_dict()
    for parameter in network.parameters():
        parameter.data.zero_()
    assert "loaded" in load_checkpoint(network, path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected[name]) or "nodes" in name, name
    torch.save({"model_state_dict": {**vector.state, "basemodel.conv4.weight": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match=r"basemodel\.conv4\.weight"):
        load_checkpoint(network, path)


@pytest.mark.parametrize("name", ["stnet", "stnet_small"])
def test_names_are_registered_for_tracking(name):
    found = TASK_NETWORKS[name]
    assert (found.task, found.entry.cls) == ("track", STNet)
    with torch.device("meta"):
        network = timm.create_model(name)
    assert network.pretrained_cfg["input_size"] == (3, network.x_size, network.x_size)


def test_the_small_network_trains():
    torch.manual_seed(0)
    network = timm.create_model("stnet_small")
    out = network(crops(network, 2))
    n = network.score_size
    assert [tuple(value.shape) for value in out.tensors()] == [(2, n * n, 1), (2, n * n, 1), (2, n * n, 4)]
    joined(out).square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]


def test_half_precision_keeps_potentials_threshold_and_boxes_in_32_bits():
    torch.manual_seed(0)
    network = STNet(**TINY)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(crops(network, 2))
    node = network.spiking.search_nodes[0]
    assert {out.boxes.dtype, node.mem.dtype, node.get_thres().dtype} == {torch.float32}
    assert out.cls.dtype is torch.bfloat16
    joined(out.map(torch.Tensor.float)).square().mean().backward()
    assert network.spiking.convs[0].weight.grad.isfinite().all()


# State


@torch.no_grad()
def test_a_call_starts_from_zeros_and_tracking_goes_on(tiny):
    network, x, later = copy.deepcopy(tiny), crops(tiny), crops(tiny, seed=1)
    first = joined(network(x))
    assert torch.equal(joined(network(x)), first)
    network.reset()
    kernels = network.embed_template(x.template)
    assert torch.equal(joined(network.track(x.search, kernels)), first)
    second = joined(network.track(later.search, kernels))
    network.reset()
    assert not torch.equal(joined(network.track(later.search, kernels)), second)


@torch.no_grad()
def test_a_template_is_read_from_zeros(tiny):
    x = crops(tiny)
    first, second = (tiny.embed_template(x.template) for _ in range(2))
    assert torch.equal(first.cls, second.cls)
    assert torch.equal(first.box, second.box)


@torch.no_grad()
def test_a_new_template_leaves_the_state_of_the_search_area(tiny):
    x, later, ends = crops(tiny), crops(tiny, seed=1), []
    for again in (False, True):
        network = copy.deepcopy(tiny)
        kernels = network.embed_template(x.template)
        network.track(x.search, kernels)
        if again:
            network.embed_template(later.template)
        ends.append(joined(network.track(later.search, kernels)))
    assert torch.equal(*ends)


def _pickled(network):
    return pickle.loads(pickle.dumps(network))


def _saved(network):
    buffer = io.BytesIO()
    torch.save(network, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, _pickled, _saved])
def test_a_copy_goes_on_with_the_state(tiny, copied):
    network, x = copy.deepcopy(tiny), crops(tiny)
    kernels = network.embed_template(x.template)  # with gradients: a copy takes values only
    network.track(x.search, kernels)
    other = copied(network)
    assert torch.equal(joined(other.track(x.search, kernels)), joined(network.track(x.search, kernels)))
    assert other.state_dict().keys() == tiny.state_dict().keys()


@torch.no_grad()
def test_samples_of_a_batch_share_a_threshold(tiny):
    network, x = copy.deepcopy(tiny), crops(tiny, 2)
    threshold = []
    for part in (x, x.map(lambda value: value[:1])):
        network(part)
        threshold.append(network.spiking.search_nodes[0].get_thres())
    assert threshold[0] != threshold[1]


# The threshold


def test_the_threshold_is_that_of_the_histogram():
    torch.manual_seed(0)
    for width in (5, 33):
        features = torch.rand(3, 4, width, width, dtype=torch.float64)
        x = (features * features.mean((2, 3), keepdim=True)).mean(1)
        places = x.mean(0)
        places = (places - places.min()) / (places.max() - places.min()) * 255
        share = torch.histc(places, 256, 0, 255) / width**2
        entropy = -(share * (share + 1e-8).log()).sum() / (share > 0).sum()
        expected = 0.3 * (x.sigmoid().mean() + 10 * entropy)
        assert dynamic_threshold(features).item() == pytest.approx(expected.item(), abs=1e-12)


def test_a_map_that_is_the_same_everywhere_has_no_entropy():
    assert dynamic_threshold(torch.zeros(2, 3, 4, 4)).item() == pytest.approx(0.15, abs=1e-6)
    assert dynamic_threshold(torch.full((1, 3, 4, 4), float("nan"))).isnan()
    assert not dynamic_threshold(torch.rand(1, 3, 4, 4, requires_grad=True)).requires_grad
    assert dynamic_threshold(torch.rand(1, 3, 4, 4, dtype=torch.bfloat16)).dtype is torch.float32


# What goes in


@torch.no_grad()
def test_grey_levels_may_be_bytes(tiny):
    x = crops(tiny)
    assert torch.equal(joined(tiny(x.map(torch.Tensor.byte))), joined(tiny(x)))


@pytest.mark.parametrize("name", ["template", "search"])
@pytest.mark.parametrize("broken", ["side", "step", "axes", "swapped"])
def test_crops_of_another_shape_are_refused(tiny, name, broken):
    x = crops(tiny)
    changed = {"side": x[name][..., :-1], "step": x[name][:, :, :-1], "axes": x[name][0], "swapped":
               x["search" if name == "template" else "template"]}[broken]  # fmt: skip
    parts = {"template": x.template, "search": x.search, name: changed}
    with pytest.raises(UserError, match=rf"STNet: {name} must be .* = \(B, 2, 5, 3, \d+, \d+\); got"):
        tiny(Batch(**parts))


def test_each_search_area_needs_a_template(tiny):
    network, x = copy.deepcopy(tiny), crops(tiny, 2)
    kernels = network.embed_template(x.template[:1])
    with pytest.raises(UserError, match="each search area has a template; got 2 and 1"):
        network.track(x.search, kernels)
    network.track(x.search[:1], kernels)
    with pytest.raises(ValueError, match="between sequences"):
        network.track(x.search, network.embed_template(x.template))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z_size": 67}, "img_size=147 takes z_size from 59 to 66 and x_size from 171 to 178, got 67 and 175"),
        ({"x_size": 170}, "img_size=147 takes z_size from 59 to 66 and x_size from 171 to 178, got 63 and 170"),
        ({"img_size": 144}, "img_size must be at least 145; got 144"),
        ({"num_conv3x3": 8}, "img_size=147 takes at most 7 layers, got 8"),
        ({"num_conv3x3": 2}, "head_conv_bn has a value for each of the num_conv3x3=2 layers"),
        ({"widths": (4, 4, 15)}, "the last of widths must be at least 16"),
        ({"widths": (4, 0, 16)}, "widths must be at least 1"),
        ({"num_heads": (5, 6)}, "num_heads must divide embed_dim=12 and its double"),
        ({"depths": (2, 2, 2)}, "depths must be 2 values"),
        ({"window_size": 0}, "window_size must be at least 1"),
        ({"drop_path_rate": 1.5}, "drop_path_rate must be at most 1"),
        ({"img_size": 147.5}, "img_size must be a whole number"),
        ({"num_classes": 10}, "num_classes must be 0, got 10"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(change, message):
    with pytest.raises(UserError, match=message) as refusal:
        STNet(**{**TINY, **change})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("z", "x", "s", "layers", "n"), [(127, 303, 280, 3, 17), (91, 235, 216, 2, 15)])
def test_sizes_of_the_specification_fit(z, x, s, layers, n):
    sizes = {"z_size": z, "x_size": x, "img_size": s, "num_conv3x3": layers, "head_conv_bn": (False,) * layers}
    with torch.device("meta"):
        network = STNet(**{**TINY, **sizes})
    assert network.score_size == n == (x - z) // 8 + 1 - 2 * layers


@pytest.mark.parametrize(("attr", "value"), [("step", 4), ("layer_by_layer", True)])
def test_steps_stay_as_built(tiny, attr, value):
    with pytest.raises(UserError, match=rf"{attr} stays"):
        tiny.set_attr(attr, value)


# What the analysis sees


@torch.no_grad()
def test_the_recorder_sees_both_branches_step_by_step(tiny):
    network, x = copy.deepcopy(tiny), crops(tiny, 2)
    with record(network) as records:
        network(x)
    assert list(records) == [f"spiking.{kind}_nodes.{i}" for kind in ("template", "search") for i in range(3)]
    shapes = [tuple(entry.spikes.shape) for entry in records.values()]
    assert shapes == [(5, 2, 4, 27, 27), (5, 2, 5, 10, 10), (5, 2, 16, 3, 3), (5, 2, 4, 83, 83), (5, 2, 5, 38, 38),
                      (5, 2, 16, 17, 17)]  # fmt: skip
    rows = firing_rates(network, [(x, None)])
    assert [row.name for row in rows] == list(records)
    for row in rows:
        assert row.rate == pytest.approx(records[row.name].spikes.mean().item())
        assert not row.real
