"""Spatio-Temporal Approximation: official vectors, and what holds for any vision transformer."""

import copy
import json
import math
import warnings
from functools import partial

import pytest
import timm
import torch
from safetensors import safe_open
from timm.layers import Mlp
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer, checkpoint_filter_fn
from torch import nn
from torch.nn import functional

from braincog_transformers import UserError
from braincog_transformers.analysis.operations import count_operations
from braincog_transformers.conversion import convert, load_converted, operators, prepare, save_converted, sta_thresholds
from braincog_transformers.conversion.operators import GroupOperator, fit_operator
from braincog_transformers.conversion.sta import METHOD, STAOptions
from braincog_transformers.conversion.sta_layers import OfMeans, OperatorSoftmax
from braincog_transformers.nodes import BurstNode

# The intervals on which the official operators are used in the vectors, as far as the official code cares.
INTERVALS = {"exp": (-20.0, 3.0), "inv": (0.0, 1e9), "sqrtinv": (0.0, 1e9), "gelu": (-1e9, 1e9)}
PLACES = {
    "ln_1.spike_sqrtinv": "norm1.operator.approximator.1",
    "ln_1.spike_x2x": "norm1.encoder.node",
    "attn.spike_x2x_pos": "attn.weight_node.node",
    "attn.spike_x2x": "attn.proj.0.node",
    "ln_2.spike_sqrtinv": "norm2.operator.approximator.1",
    "ln_2.spike_x2x": "norm2.encoder.node",
    "mlp.gelu": "mlp.act.approximator.1",
}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def relative(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


# Official vectors


def _read(path):
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def pytest_generate_tests(metafunc):
    kinds = {"clip_path": "SpikeModel", "neuron_path": "SpikeLinear_ReLU"}
    for fixture in kinds.keys() & {*metafunc.fixturenames}:
        paths = sorted(metafunc.config.getoption("--golden-dir").glob("sta_*.safetensors"))
        paths = [path for path in paths if _read(path)[0]["class"].startswith(kinds[fixture])]
        metafunc.parametrize(fixture, paths, ids=[path.stem for path in paths], scope="module")


class Clip:
    """A vector of a CLIP: the source, its operators, its options and what the official code computes."""

    def __init__(self, path):
        meta, self.tensors = _read(path)
        sizes, given = json.loads(meta["kwargs"]), json.loads(meta["options"])
        self.source = VisionTransformer(
            img_size=sizes["input_resolution"],
            patch_size=sizes["patch_size"],
            embed_dim=sizes["width"],
            depth=sizes["layers"],
            num_heads=sizes["heads"],
            num_classes=sizes["output_dim"],
            pre_norm=True,
            act_layer="quick_gelu",
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
        )
        state = {f"visual.{name}": value for name, value in self._under("state").items()}
        self.source.load_state_dict(checkpoint_filter_fn(state, self.source))
        self.source.double().eval()
        self.input, self.batches = self.tensors["input"].double(), list(self.tensors["calibration"].double())
        self.steps = given["T"]
        self.options = {
            "burst": given["burst_T"],
            "bipolar": given["bipolar_with_memory"],
            "per_neuron": given["neuron_wise"],
            "threshold": "mse" if given["mse"] else given["percentile"],
            "shift": "first",
            "clamp": 3.0,
            "operators": {
                name: GroupOperator.from_state(self._under(f"ugo.{name}"), *interval)
                for name, interval in INTERVALS.items()
            },
        }
        self.limit = prepare(self.source, "sta", data=self.batches, **self.options)
        self.converted = convert(self.limit, "sta", step=self.steps, data=self.batches)
        blocks = self.converted.network.blocks
        self.thresholds = []
        for name, value in self._under("threshold.transformer.resblocks").items():
            index, place = name.removesuffix(".approximator.0").split(".", 1)
            self.thresholds.append((name, blocks[int(index)].get_submodule(PLACES[place]).threshold, value))

    def _under(self, prefix):
        return {name[len(prefix) + 1 :]: v for name, v in self.tensors.items() if name.startswith(f"{prefix}.")}

    def tokens(self, network):
        """Return the class token behind the last block."""
        return network.forward_intermediates(
            self.input, indices=1, norm=False, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )[-1][1][:, 0]


@pytest.fixture(scope="module")
def clip(clip_path):
    with torch.no_grad():
        return Clip(clip_path)


def test_source_is_that_of_the_vector(clip):
    assert relative(clip.source(clip.input), clip.tensors["ann_features"]) < 1e-12


def test_gelu_by_the_official_operator_matches(clip):
    approximated = prepare(clip.source, "sta", data=clip.batches, **clip.options)
    for block, original in zip(approximated.blocks, clip.source.blocks, strict=True):
        block.norm1, block.norm2, block.attn = original.norm1, original.norm2, original.attn
        block.mlp.fc1 = original.mlp.fc1
    assert relative(clip.tokens(approximated), clip.tensors["gnn_out"]) < 1e-9


def test_limit_matches(clip):
    assert relative(clip.tokens(clip.limit), clip.tensors["fnn_out"]) < 1e-9
    assert relative(clip.limit(clip.input), clip.tensors["fnn_features"]) < 1e-9


def test_calibrated_thresholds_match(clip):
    for name, found, wanted in clip.thresholds:
        assert relative(found.flatten(), wanted.flatten()) < 1e-9, name


def test_every_step_of_the_spiking_network_matches(clip):
    # A neuron may send a negative spike if its memory is above 0, which in the official code may be the rounding error
    # of a sum that is 0. So the thresholds have to be the vector's to the last bit.
    for _, found, wanted in clip.thresholds:
        found.copy_(wanted.reshape(found.shape))
    total = 0.0
    for t in range(clip.steps):
        total = total + clip.converted.forward_step(clip.input)[:, 0]
        assert relative(total, clip.tensors["snn_accumulated"][t]) < 1e-9, t
    clip.converted.reset()
    assert relative(clip.converted(clip.input), clip.tensors["snn_features"]) < 1e-9


@pytest.mark.parametrize("burst", [0, 1, 2])
@pytest.mark.parametrize("bipolar", [False, True])
def test_neuron_matches(neuron_path, burst, bipolar):
    _, tensors = _read(neuron_path)
    node = BurstNode(tensors["threshold"].double(), burst=burst, bipolar=bipolar)
    ending = f"bipolar{int(bipolar)}.burst{burst}"
    for t, x in enumerate(tensors["input"].double()):
        torch.testing.assert_close(node(x), tensors[f"spikes.{ending}"][t], rtol=0, atol=1e-12)
        torch.testing.assert_close(node.mem, tensors[f"membrane.{ending}"][t], rtol=0, atol=1e-12)


# Operators


@pytest.mark.parametrize(
    ("function", "low", "high", "hidden", "floor", "bound"),
    [
        (torch.exp, -20, 1, 32, 0.01, 6e-3),
        (torch.exp, -20, 3, 32, 0.01, 1e-2),
        (torch.reciprocal, 1, 1000, 64, 0, 2e-3),
        (torch.rsqrt, 0.01, 1, 8, 0, 2.5e-2),
        (torch.rsqrt, 0.01, 100, 8, 0, 9e-2),
        (functional.gelu, -10, 10, 64, 1, 3e-4),
        (lambda x: x * torch.sigmoid(1.702 * x), -20, 20, 64, 1, 3e-4),
        (torch.relu, -3, 5, 64, 1, 1e-3),
    ],
    ids=["exp", "exp to 3", "inv", "sqrtinv", "sqrtinv of two decades more", "gelu", "quick gelu", "relu"],
)
def test_fitted_operators_are_within_their_bounds(function, low, high, hidden, floor, bound):
    operator = fit_operator(function, low, high, hidden, floor=floor)
    x = torch.linspace(low, high, 9999, dtype=torch.float64)
    error = ((operator(x) - function(x)).abs() / function(x).abs().clamp(min=floor)).max()
    assert operator.error < bound
    assert error <= operator.error * 1.02 + 1e-12
    assert 0 <= operator.units(x).min() <= operator.units(x).max() < 1 + 1e-12
    again = fit_operator(function, low, high, hidden, floor=floor)
    assert all(torch.equal(a, b) for a, b in zip(operator.parameters(), again.parameters(), strict=True))


def test_an_operator_is_constant_beyond_its_flat_end():
    falling, rising = fit_operator(torch.reciprocal, 1, 50, 16, floor=0), fit_operator(functional.gelu, -8, 8, 16)
    beyond = torch.tensor([50.0, 60.0, 1e4], dtype=torch.float64)
    assert falling(beyond).diff().abs().max() < 1e-12
    assert rising(-beyond).diff().abs().max() < 1e-12


@pytest.mark.parametrize(
    ("function", "low", "high", "hidden", "said"),
    [
        (torch.exp, 1, 1, 8, "low < high"),
        (torch.exp, 0, 1, 0, "hidden unit"),
        (torch.log, -1, 1, 8, "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(function, low, high, hidden, said):
    with pytest.raises(UserError, match=said):
        fit_operator(function, low, high, hidden)


def test_an_operator_is_read_from_the_official_layout_only():
    state = {
        f"approximator.{name}": v for name, v in fit_operator(torch.exp, 0, 1, 3).approximator.state_dict().items()
    }
    read = GroupOperator.from_state(state, 0, 1)
    assert (read.hidden, float(read.high), read.error) == (3, 1.0, None)
    state["approximator.2.weight"] = state["approximator.2.weight"].T
    with pytest.raises(UserError, match="of sizes"):
        GroupOperator.from_state(state, 0, 1)
    with pytest.raises(UserError, match="got nothing"):
        GroupOperator.from_state({}, 0, 1)


def _neurons(operator, channels):
    torch.manual_seed(1)
    operator.approximator[1] = BurstNode(torch.rand(1, 1, channels, operator.hidden, dtype=torch.float64))
    return operator


def _in_steps(operator, steps=4):
    torch.manual_seed(0)
    return torch.stack([operator(2 * torch.randn(3, 5, 7, dtype=torch.float64)) for _ in range(steps)])


def _by_parts(monkeypatch, operator):
    """Let it take few rows at once, and count how often it does."""
    monkeypatch.setattr(operators, "_AT_ONCE", {"cpu": 4 * 7 * operator.hidden})
    calls, by_parts = [], operator._by_parts
    monkeypatch.setattr(GroupOperator, "_by_parts", lambda self, x: calls.append(x) or by_parts(x))
    return calls


@pytest.mark.parametrize("spiking", [False, True])
def test_an_operator_by_parts_is_the_same(monkeypatch, spiking):
    operator = fit_operator(functional.gelu, -6, 6, 16)
    operator = _neurons(operator, 7) if spiking else operator
    wanted = _in_steps(operator)
    state = operator.approximator[1]._state if spiking else ()
    _neurons(operator, 7) if spiking else None
    calls = _by_parts(monkeypatch, operator)
    assert relative(_in_steps(operator), wanted) < 1e-12
    assert len(calls) == 4
    if spiking:
        for found, kept in zip(operator.approximator[1]._state, state, strict=True):
            assert torch.equal(found, kept)


def test_who_watches_the_hidden_neurons_sees_them_in_the_midst_of_a_stream(monkeypatch):
    operator = _neurons(fit_operator(functional.gelu, -6, 6, 16), 7)
    wanted = _in_steps(operator, 2)[1]
    operator.approximator[1].n_reset()
    _by_parts(monkeypatch, operator)
    torch.manual_seed(0)
    operator(2 * torch.randn(3, 5, 7, dtype=torch.float64))
    seen = []
    with operator.approximator[1].register_forward_hook(lambda _m, _i, out: seen.append(out.shape)):
        assert relative(operator(2 * torch.randn(3, 5, 7, dtype=torch.float64)), wanted) < 1e-12
    assert seen == [(3, 5, 7, 16)]


@pytest.mark.kernels
def test_a_compiled_operator_takes_the_same_steps(monkeypatch):
    operator = _neurons(fit_operator(functional.gelu, -6, 6, 16), 7)
    wanted = _in_steps(operator)
    operator.approximator[1].n_reset()
    _by_parts(monkeypatch, operator)
    monkeypatch.setattr(operators.fused_neuron, "MIN_ELEMENTS", 1)
    assert relative(_in_steps(operator), wanted) < 1e-12


# Any vision transformer


def vit(seed=0, cls=VisionTransformer, **options):
    """Return a tiny network in float64 whose weights are large enough for its attention to differ from a mean."""
    torch.manual_seed(seed)
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    network = cls(**{**sizes, "num_classes": 5, **options}).double().eval()
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.4)
        elif name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return network


def images(count=4, seed=0):
    return torch.rand(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def distance(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


SMALL = {"gelu_hidden": 12, "sqrtinv_hidden": 16}
"""Operators for tests that run many steps."""

VARIANTS = {
    "as it is": {},
    "mean of the patches": {"global_pool": "avg", "class_token": False},
    "mean behind the final norm": {"global_pool": "avg", "fc_norm": False},
    "layer scale": {"init_values": 0.5},
    "without bias of q, k, v": {"qkv_bias": False},
    "norm in front": {"pre_norm": True, "act_layer": "quick_gelu"},
    "registers": {"reg_tokens": 2, "no_embed_class": True},
    "tanh": {"act_layer": "gelu_tanh"},
    "attention pooling": {"global_pool": "map"},
    "without classifier": {"num_classes": 0},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_spiking_network_nears_its_limit_and_that_the_source(options):
    source, x = vit(**options), images()
    limit = prepare(source, "sta", data=x, **SMALL)
    assert distance(limit(x), source(x)) < 0.03
    few, many = (distance(convert(limit, "sta", step=steps, data=x)(x), limit(x)) for steps in (4, 32))
    assert many < 0.1
    assert many < few


def test_the_error_falls_with_the_steps_of_one_network():
    x = images(2)
    limit = prepare(vit(), "sta", data=x, **SMALL)
    answers = convert(limit, "sta", step=128, data=x).forward_sequence(x)
    errors = [distance(answers[t - 1], limit(x)) for t in (2, 8, 32, 128)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


@pytest.mark.parametrize("blocks", [(0,), (1,), (0, 2)])
def test_parts_that_stay_analog_do_not_keep_it_from_its_limit(blocks):
    source, x = vit(depth=3), images(2)
    limit = prepare(source, "sta", data=x, blocks=blocks, **SMALL)
    converted = convert(limit, "sta", step=64, data=x)
    assert distance(converted(x), limit(x)) < 0.03
    spiking = {name.split(".")[2] for name in converted.nodes}
    assert spiking == {*map(str, blocks)}
    assert isinstance(converted.network.blocks[1], OfMeans) == (blocks != (1,))


def test_a_stream_gives_the_same_as_a_call_block_by_block():
    x = images()
    converted = convert(vit(), "sta", step=5, data=x)
    wanted, total = converted.forward_sequence(x), 0.0
    for t in range(5):
        total = total + converted.forward_step(x)
        assert torch.equal(converted.readout(total, t + 1), wanted[t])
    converted.reset()
    assert torch.equal(converted(x), wanted[-1])
    assert torch.equal(converted(x.unsqueeze(1).expand(-1, 5, -1, -1, -1)), wanted[-1])


def test_only_the_block_that_runs_holds_states():
    x, resting = images(), []
    converted = convert(vit(), "sta", step=2, data=x)
    first, second = converted.network.blocks
    nodes = [module for module in first.modules() if isinstance(module, BurstNode)]
    with second.register_forward_pre_hook(lambda *_: resting.extend(node.mem is None for node in nodes)):
        converted(x)
    assert len(resting) == 2 * 7
    assert all(resting)


def test_a_sample_depends_neither_on_its_batch_nor_on_the_call_before():
    x = images(6)
    converted = convert(vit(), "sta", step=6, data=x)
    together = converted(x)
    assert torch.equal(converted(x), together)
    alone = torch.cat([converted(one) for one in x.split(1)])
    assert relative(alone, together) < 1e-9
    assert all(node.mem is None for node in converted.nodes.values())


def test_the_source_stays_and_type_is_kept():
    source, x = vit().float().train(), images().float()
    before = {name: value.clone() for name, value in source.state_dict().items()}
    limit = prepare(source, "sta", data=x)
    converted = convert(limit, "sta", step=4, data=x)
    assert source.training
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())
    assert converted(x).dtype is torch.float32
    assert {p.dtype for p in converted.parameters()} == {torch.float32}
    half = convert(source.bfloat16(), "sta", step=4, data=x)
    assert half(x.bfloat16()).dtype is torch.bfloat16
    assert distance(half(x.bfloat16()).float(), limit.eval()(x)) < 0.3


@pytest.mark.parametrize("options", [{}, {"per_neuron": False, "threshold": "max", "gelu_hidden": 9, "blocks": (1,)}])
def test_a_network_built_without_data_takes_the_state(options):
    x = images()
    converted = convert(vit(), "sta", step=4, data=x, **options)
    chosen = STAOptions(**converted.settings["options"])
    rebuilt = METHOD.spiking(METHOD.limit(vit(seed=1), chosen, None), 4, chosen, None, converted.settings)
    rebuilt.double().load_state_dict(converted.state_dict())
    assert torch.equal(rebuilt(x), converted(x))


def test_a_file_gives_the_network_back(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=12, depth=1, num_classes=3, num_heads=2)
    x = torch.rand(2, 3, 32, 32)
    operator = fit_operator(functional.gelu, -50, 50, 5)
    converted = convert(source, "sta", step=3, data=x, operators={"gelu": operator})
    arguments = {"img_size": 32, "embed_dim": 12, "depth": 1, "num_classes": 3, "num_heads": 2}
    built = {"model": "vit_tiny_patch16_224", "kwargs": arguments}
    read = load_converted(save_converted(converted, tmp_path / "net.safetensors", built))
    assert torch.equal(read(x), converted(x))
    assert read.settings["options"]["gelu_hidden"] == 5


# Options


def thresholds(converted):
    return torch.cat([node.threshold.flatten() for node in converted.nodes.values()])


def test_thresholds_follow_their_options():
    x = images(8)
    limit = partial(prepare, vit(depth=1), "sta", data=x, gelu_hidden=8)

    def found(step=8, data=x, **options):
        return thresholds(convert(limit(**options), "sta", step=step, data=data))

    largest = found(threshold="max")
    assert torch.equal(found(threshold=1.0), largest)
    assert (found(threshold=0.9) <= largest).all()
    assert (found() <= largest * (1 + 1e-12)).all()
    assert not torch.equal(found(), largest)
    assert not torch.equal(found(step=4), found(step=16))
    assert found(per_neuron=False).numel() == 7
    first, second = (found(threshold="max", data=[part]) for part in x.split(4))
    together = found(threshold="max", data=list(x.split(4)), momentum=0.75)
    torch.testing.assert_close(together, 0.75 * first + 0.25 * second)


def test_a_quantile_lies_between_samples_as_pytorch_says():
    x = images(8)
    limit = prepare(vit(), "sta", data=x, threshold=0.77, per_neuron=False)
    seen = []
    with limit.blocks[0].norm1.encoder.node.register_forward_hook(lambda _m, _i, out: seen.append(out)):
        converted = convert(limit, "sta", step=4, data=x)
    wanted = torch.quantile(seen[0].flatten(), 0.77)
    torch.testing.assert_close(converted.network.blocks[0].norm1.encoder.node.threshold.data, wanted)


def test_softmax_measures_from_the_largest_or_the_first_score():
    source, x = vit(), images()
    largest, first = (prepare(source, "sta", data=x, shift=shift)(x) for shift in ("max", "first"))
    assert distance(first, source(x)) < 0.05
    assert not torch.equal(largest, first)
    cut = prepare(source, "sta", data=x, shift="first", clamp=1.1)
    assert distance(cut(x), source(x)) > 2 * distance(first, source(x))


def test_weights_that_saturate_the_inverse_are_repaired_once():
    exp, inv = fit_operator(torch.exp, -20, 1, 32, floor=0.01), fit_operator(torch.reciprocal, 1, 20, 64, floor=0)
    scores = torch.zeros(1, 1, 1, 30, dtype=torch.float64)  # their exponentials add up to 81, four times what inv knows
    torch.testing.assert_close(OperatorSoftmax(exp, inv, "max")(scores), scores + 1 / 30, rtol=0.02, atol=0)


def test_scores_far_below_have_no_weight():
    exp, inv = fit_operator(torch.exp, -20, 1, 4), fit_operator(torch.reciprocal, 1, 20, 64, floor=0)
    weights = OperatorSoftmax(exp, inv, "max")(torch.tensor([[[[0.0, -20.5, -22.0]]]], dtype=torch.float64))
    assert weights.count_nonzero() == 2  # the operator itself is not 0 down there


def test_thresholds_are_the_same_whatever_is_searched_at_once(monkeypatch):
    x = images()
    limit = prepare(vit(), "sta", data=x, **SMALL)
    wanted = thresholds(convert(limit, "sta", step=4, data=x))
    monkeypatch.setattr(sta_thresholds, "_AT_ONCE", 500)
    torch.testing.assert_close(thresholds(convert(limit, "sta", step=4, data=x)), wanted, rtol=1e-12, atol=0)


def test_burst_and_bipolar_reach_the_neurons():
    x = images()
    nodes = convert(vit(), "sta", step=4, data=x, burst=3, bipolar=False).nodes.values()
    assert {(node.burst, node.bipolar) for node in nodes} == {(3, False)}


def test_an_epsilon_is_part_of_the_fitted_operator():
    source, x = vit(), images()
    for norm in (source.blocks[0].norm1, source.blocks[1].norm2):
        norm.eps = 0.5
    assert distance(prepare(source, "sta", data=x)(x), source(x)) < 0.02


# What the analysis sees


def test_linear_layers_are_seen_to_read_spikes():
    x = images()
    converted = convert(vit(), "sta", step=4, data=x, bipolar=False)
    fired = []
    encoder = converted.network.blocks[0].norm1.encoder.node
    with encoder.register_forward_hook(lambda _m, _i, out: fired.append(encoder.counts(out).abs().sum(-1))):
        counted = {row.name: row for row in count_operations(converted, [x]).rows}
    block = "network.blocks.0."
    for name in ("attn.qkv", "attn.proj.1", "mlp.fc1", "norm1.operator.approximator.2", "mlp.act.approximator.2"):
        assert counted[block + name].kind in ("binary", "integer"), name
    for name in (
        "norm1.operator.approximator.0",
        "mlp.act.approximator.0",
        "mlp.fc2",
        "attn.softmax.exp.approximator.0",
    ):
        assert counted[block + name].kind == "real", name
    mean = torch.stack(fired[-4:]).mean()
    assert counted[block + "attn.qkv"].average("mean") == pytest.approx(float(mean))


# Bad input


class OtherFeatures(VisionTransformer):
    """One with something else behind its blocks."""

    def forward_features(self, x, **masks):
        return super().forward_features(x, **masks).flip(1)


class OtherBlock(Block):
    """One without its second residual sum."""

    def forward(self, x, **masks):
        x = x + self.attn(self.norm1(x), **masks)
        return self.mlp(self.norm2(x))


class OtherMlp(Mlp):
    """One that doubles."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: SwinTransformer(img_size=8, patch_size=2, in_chans=1, embed_dim=8, depths=(1,), num_heads=(2,)),
         "conversion: sta takes VisionTransformer, not SwinTransformer, and doesn't know the"),
        (lambda: vit(cls=OtherFeatures), "the network is a OtherFeatures with a forward_features of its own"),
        (lambda: vit(block_fn=OtherBlock), "blocks.0 is a OtherBlock with a forward of its own"),
        (lambda: vit(mlp_layer=OtherMlp), "blocks.0.mlp is a OtherMlp with a forward of its own"),
        (lambda: vit(block_fn=ResPostBlock), "doesn't know the layer norm in blocks.0.norm1"),
        (lambda: vit(norm_layer="rmsnorm"), "the rsqrt in blocks.0.norm1"),
        (lambda: vit(qk_norm=True), "doesn't know the layer norm in blocks.0.attn.q_norm"),
        (lambda: vit(act_layer="mish"), "doesn't know the mish in blocks.0.mlp.act"),
        (lambda: vit(mlp_layer=timm.layers.SwiGLU), "doesn't know the gelu in blocks.0.mlp.act"),
    ],
)  # fmt: skip
def test_what_it_cannot_convert_is_named(build, said):
    with pytest.raises(UserError, match=said):
        prepare(build().double(), "sta", data=images())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"burst": -1}, "burst"),
        ({"burst": True}, "burst"),
        ({"threshold": "median"}, "threshold"),
        ({"threshold": 0.0}, "threshold"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": "a"}, "momentum"),
        ({"shift": "key"}, "shift"),
        ({"clamp": 3.0}, "clamp"),
        ({"shift": "first", "clamp": 1.0}, "clamp"),
        ({"gelu_hidden": 0}, "gelu_hidden"),
        ({"blocks": []}, "blocks"),
        ({"blocks": [0, 0]}, "blocks"),
        ({"blocks": 1}, "blocks"),
        ({"blocks": [2]}, "blocks 0 to 1"),
        ({"operators": {"sqrt": None}}, "unknown operator of sta 'sqrt'; did you mean sqrtinv"),
        ({"operators": {"exp": math.exp}}, "GroupOperator"),
    ],
    ids=str,
)
def test_options_are_checked(options, said):
    with pytest.raises(UserError, match=said):
        prepare(vit(), "sta", data=images(), **options)


def test_data_and_steps_are_needed():
    limit = prepare(vit(), "sta", data=images())
    with pytest.raises(UserError, match="needs data"):
        convert(vit(), "sta")
    with pytest.raises(UserError, match="needs data"):
        convert(limit, "sta", step=4)
    with pytest.raises(UserError, match=r"not finite reach blocks\.0\.norm1"):
        convert(prepare(vit(), "sta"), "sta", step=4, data=images())
    with pytest.raises(UserError, match="number of steps"):
        convert(limit, "sta", step=0, data=images())
    with pytest.raises(UserError, match="holds no step"):
        convert(limit, "sta", step=4, data=images())(torch.zeros(1, 0, 1, 8, 8))


def test_data_on_which_the_source_is_not_finite_are_refused():
    x = images()
    with pytest.raises(UserError, match=r"not finite reach blocks\.0\."):
        prepare(vit(), "sta", data=torch.cat((x, 1e200 * x)))


def test_an_operator_that_does_not_hold_on_the_data_is_refused():
    x, exp = images(), fit_operator(torch.exp, -20, 1.5, 32, floor=0.01)
    with pytest.raises(UserError, match="sqrtinv that was handed in holds from 1e-06 to 1e-05, but blocks"):
        prepare(vit(), "sta", data=x, operators={"sqrtinv": fit_operator(torch.rsqrt, 1e-6, 1e-5, 8)})
    with pytest.raises(UserError, match=r"exp that was handed in holds from -20 to 1\.5, but blocks"):
        prepare(vit(), "sta", data=x, shift="first", operators={"exp": exp})
    cut = prepare(vit(), "sta", data=x, shift="first", clamp=1.4, operators={"exp": exp})
    assert float(cut.blocks[0].attn.softmax.exp.high) == pytest.approx(1.4)


def test_scores_far_above_the_first_need_the_largest():
    source, x = vit(), images()
    source.blocks[1].attn.qkv.weight.mul_(20)
    with pytest.raises(UserError, match=r'exp in blocks\.1\.exp has to hold from -20 to .*shift="max"'):
        prepare(source, "sta", data=x, shift="first")
    assert distance(prepare(source, "sta", data=x, sqrtinv_hidden=32)(x), source(x)) < 0.05


def test_other_steps_than_the_thresholds_are_for_are_told():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 16, 16)
    network = VisionTransformer(img_size=16, patch_size=8, num_classes=5, depth=1, embed_dim=24, num_heads=2)
    converted = convert(prepare(network, "sta", data=[x]), "sta", step=4, data=[x])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted.step = 4
    with pytest.warns(UserWarning, match="T is 8 now, and the thresholds stay those that were found for 4"):
        converted.step = 8
    assert copy.deepcopy(converted).step == 8
