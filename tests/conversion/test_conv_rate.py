"""Rate coding: the official vectors, the limit that it approaches, shared modules, files, and what is refused."""

import copy
import json

import pytest
import timm
import torch
from safetensors import safe_open
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional
from user_networks import Own, mlp

from braincog_transformers import UserError
from braincog_transformers.conversion import METHODS, convert, load_converted, prepare, save_converted
from braincog_transformers.conversion.calls import InTurn
from braincog_transformers.conversion.increments import Increment
from braincog_transformers.conversion.rate import ClippedReLU, RateOptions, normalise_as_released
from braincog_transformers.conversion.rate_coded_transformer import (
    RateCodedTextTransformer,
    RateCodedTransformer,
    from_official,
)
from braincog_transformers.nodes import SoftResetNode

VALUE = 1e-9
PAPER = {"percentile": 0.99, "start": 0.0, "strict": True}


class Shared(nn.Module):
    """A residual network with one ReLU and one pooling for all places, as torchvision's have."""

    img_size = 8

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(i, 8, 3, padding=1) for i in (4, 8, 8))
        self.act, self.pool, self.head = nn.ReLU(), nn.MaxPool2d(2), nn.Linear(8, 3)

    def forward(self, x):
        x = self.pool(self.act(self.first(x)))
        x = self.act(self.third(self.act(self.second(x))) + x)
        return self.head(self.pool(x).mean((2, 3)))


def pooled():
    return nn.Sequential(
        *(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 2), nn.ReLU6()),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )


def of_sequences():
    return nn.Sequential(
        *(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 8, 2), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3)),
    )


def resnet():
    return ResNet(BasicBlock, (1, 1, 1, 1), channels=(4, 8, 8, 8), in_chans=4, num_classes=3, stem_width=4)


MAPS, VECTORS = (6, 4, 8, 8), (6, 6)
NETWORKS = {
    "perceptron": (mlp, VECTORS),
    "max pooling": (pooled, MAPS),
    "residual": (resnet, (2, 4, 16, 16)),
    "shared": (Shared, MAPS),
    "sequences": (of_sequences, (6, 4, 20)),
}


def build(name, dtype=torch.float64):
    """Build a network, whose normalisations have seen data, and a batch for it."""
    builder, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = builder().to(dtype)
    for parameter in network.parameters():
        if parameter.dim() == 1:
            parameter.data.uniform_(-0.1, 0.5)
    x = torch.rand(shape, dtype=dtype)
    with torch.no_grad():
        network.train()(x)
    return network.eval(), x


@pytest.fixture(params=NETWORKS)
def named(request):
    return request.param


# Vectors


class Vector:
    """A file: the released network, and what it computes."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            meta = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        given, self.step = json.loads(meta["kwargs"]), int(meta["timesteps"])
        sizes = {
            "embed_dim": given["d_model"],
            "depth": given["num_multi_head_attention_modules"],
            "num_heads": given["num_heads"],
            "mlp_ratio": given["mlp_dim"] / given["d_model"],
            "num_classes": given["num_classes"],
            "as_released": True,
        }
        text = "vocab_size" in given
        network = (
            RateCodedTextTransformer(vocabulary=given["vocab_size"], length=given["maxlen"], **sizes)
            if text
            else RateCodedTransformer(**sizes)
        )
        self.input, self.calibration = (
            x if text else x.double().permute(0, 3, 1, 2)
            for x in (self.tensors["input"], self.tensors["calibration"][::10])
        )
        network.load_state_dict({**network.state_dict(), **self.state("state.")})
        self.network = network.double().eval()

    def state(self, prefix):
        return from_official({k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)})

    def differs(self, name, value):
        return (self.tensors[name] - value).abs().max()


def pytest_generate_tests(metafunc):
    if "vector" in metafunc.fixturenames:
        paths = sorted(metafunc.config.getoption("--golden-dir").glob("stn_rate_coded_*.safetensors"))
        metafunc.parametrize("vector", paths, ids=[path.stem for path in paths], indirect=True, scope="module")


@pytest.fixture(scope="module")
def vector(request):
    return Vector(request.param)


def test_there_are_vectors(pytestconfig):
    assert list(pytestconfig.getoption("--golden-dir").glob("stn_rate_coded_*.safetensors"))


@torch.no_grad()
def test_the_released_network_has_the_logits_of_the_vectors(vector):
    logits = vector.network(vector.input)
    assert vector.differs("ann_logits", logits) < VALUE
    assert vector.differs("ann_probs", logits.softmax(-1)) < VALUE


@torch.no_grad()
def test_weights_are_normalised_as_in_the_vectors(vector):
    network = copy.deepcopy(vector.network)
    normalise_as_released(network, [vector.calibration], PAPER["percentile"])
    own, expected = network.state_dict(), vector.state("normalized.")
    assert expected.keys() == own.keys() - {"_extra_state"}
    for name, value in expected.items():
        assert (own[name] - value).abs().max() < VALUE, name
    assert vector.differs("ann_logits_normalized", network(vector.input)) < VALUE


def test_every_step_and_every_count_of_spikes_is_that_of_the_vectors(vector):
    spiking = convert(vector.network, "rate", step=vector.step, data=vector.calibration, as_released=True, **PAPER)
    fired = {node: [] for node in spiking.nodes.values()}
    for node, seen in fired.items():
        node.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out.flatten(1)))
    steps = torch.arange(1, vector.step + 1).view(-1, 1, 1)
    accumulated = spiking.forward_sequence(vector.input) * steps
    assert vector.differs("snn_accumulated_logits", accumulated) < VALUE
    assert vector.differs("snn_probs", accumulated.softmax(-1)) < VALUE
    for number, seen in enumerate(fired.values()):
        assert vector.differs(f"spike_count.{number}", sum(seen)) == 0
    assert f"spike_count.{len(fired)}" not in vector.tensors


# The limit


def test_one_hidden_layer_is_off_by_half_a_spike_at_most():
    network, x = build("perceptron")
    limit, spiking = prepare(network, "rate", data=x), convert(network, "rate", step=64, data=x)
    half = network[2].weight.abs().sum(1) * limit[1].threshold / 2
    error = (spiking.forward_sequence(x) - limit(x)).abs().amax(1)
    assert (error <= half / torch.arange(1, 65).view(-1, 1) + 1e-12).all()
    assert error[0].max() > 0.1 * half.max()


@pytest.mark.parametrize("options", [{}, PAPER], ids=["default", "paper"])
def test_the_error_falls_as_one_over_the_number_of_steps(named, options):
    network, x = build(named)
    limit = prepare(network, "rate", data=x, **options)
    sequence = convert(network, "rate", step=512, data=x, allow_silent=True, **options).forward_sequence(x)
    errors = (sequence - limit(x)).abs().amax((1, 2)) * torch.arange(1, 513)
    # error times T is bounded: where it did not fall, it would be eightfold
    assert errors[64:].max() <= 1.5 * errors[:64].max()
    assert errors[-1] / 512 < 0.05 * (limit(x).amax() - limit(x).amin())


def test_the_limit_clips_at_the_thresholds_and_a_high_percentile_clips_nothing(named):
    network, x = build(named)
    assert torch.allclose(prepare(network, "rate", data=x, percentile=1.0)(x), network(x), rtol=0, atol=1e-12)
    limit = prepare(network, "rate", data=x, levels=1)
    assert (limit(x) - network(x)).abs().max() > 1e-3
    spiking = convert(network, "rate", data=x, levels=1)
    thresholds = [m.threshold for m in limit.modules() if isinstance(m, ClippedReLU)]
    assert thresholds == [node.get_thres() for node in spiking.nodes.values()]


def test_a_threshold_of_the_paper_is_the_robust_maximum_of_the_channels():
    network, x = build("sequences")
    maxima = network[:3](x).amax((0, 2)).sort().values
    for percentile, index in ((1.0, 7), (0.99, 6), (0.5, 3)):
        assert prepare(network, "rate", data=x.split(2), percentile=percentile)[2].threshold == maxima[index]


@pytest.mark.parametrize("levels", [1, 4, 8])
def test_another_threshold_rounds_the_activations_no_better(levels):
    network, x = build("max pooling")
    activations = network[:3](x)
    found = prepare(network, "rate", data=x.split(2), levels=levels)[2].threshold

    def error(threshold):
        rounded = (activations / threshold * levels + 0.5).floor().clamp(0, levels) * threshold / levels
        return (rounded - activations).square().mean()

    assert 0 < found <= activations.max()
    others = torch.linspace(0.05, 1, 60, dtype=torch.float64) * activations.max()
    assert error(found) <= 1.01 * min(error(other) for other in others)


def test_a_strict_neuron_does_not_fire_at_its_threshold():
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    for parameter in network.parameters():
        nn.init.constant_(parameter, float(parameter.dim() == 2))
    x = torch.ones(1, 1)
    for strict, spikes in ((True, [0.0, 0.5]), (False, [1.0, 1.0])):
        spiking = convert(network, "rate", step=2, data=x, percentile=1.0, start=0.0, strict=strict)
        assert spiking.forward_sequence(x).flatten().tolist() == spikes


def test_relu6_is_clipped_at_6():
    network, x = nn.Sequential(nn.Linear(6, 6), nn.ReLU6()), 100 * torch.rand(20, 6)
    assert network(x).max() == 6
    limit = prepare(network, "rate", data=x, percentile=1.0)
    assert limit[1].threshold == 6
    assert torch.equal(limit(x), network(x))


def test_spikes_are_those_of_a_network_with_normalised_weights():
    network, x = build("max pooling")
    spiking = convert(network, "rate", step=16, data=x, **PAPER)
    layers = copy.deepcopy(spiking.network)
    nodes = [module for module in layers if isinstance(module, SoftResetNode)]
    scales = [1.0, *(float(node.get_thres()) for node in nodes), 1.0]
    for layer, before, scale in zip((layers[0], layers[4], layers[8]), scales, scales[1:], strict=False):
        layer.weight.mul_(before / scale)
        layer.bias.div_(scale)
    layers[1].running_mean.div_(scales[1])  # a normalisation behind the layer is scaled with it
    layers[1].running_var.div_(scales[1] ** 2)
    layers[1].eps /= scales[1] ** 2
    layers[1].weight.data.div_(scales[1])
    layers[1].bias.data.div_(scales[1])
    for node in nodes:
        node.set_n_threshold(1.0)
    for _ in range(16):
        assert torch.allclose(layers(x), spiking.forward_step(x), rtol=0, atol=1e-9)


def test_max_pooling_puts_out_spikes():
    network, x = build("max pooling")
    spiking = convert(network, "rate", step=32, data=x)
    pool, node = spiking.network[3], spiking.network[2]
    assert isinstance(pool, Increment)
    seen = []
    pool.register_forward_hook(lambda _m, _i, out: seen.append(out / node.get_thres()))
    spiking(x)
    spikes = torch.stack(seen)
    assert ((spikes - spikes.round()).abs() < 1e-9).all()
    assert set(spikes.round().unique().tolist()) == {0.0, 1.0}


# What is the same for all conversions


def test_the_source_stays_as_it_is(named):
    network, x = build(named)
    before, state = network(x), copy.deepcopy(network.state_dict())
    spiking = convert(network.train(), "rate", data=x)
    assert network.training
    assert not spiking.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(network.eval()(x), before)


def test_calls_copies_samples_and_files_agree(named, tmp_path):
    network, x = build(named)
    spiking = convert(network, "rate", step=12, data=x)
    answer = spiking(x)
    assert torch.equal(spiking(x), answer)
    assert torch.equal(spiking.forward_sequence(x)[-1], answer)
    assert torch.equal(copy.deepcopy(spiking)(x), answer)
    assert torch.allclose(spiking(x[:1]), answer[:1], rtol=0, atol=1e-12)
    frames = x.unsqueeze(1).expand(-1, 12, *x.shape[1:])
    assert torch.equal(spiking(frames), answer)
    path = save_converted(spiking, tmp_path / "net.safetensors", network)
    loaded = load_converted(path, NETWORKS[named][0]())
    assert torch.equal(loaded(x), answer)
    assert torch.equal(loaded(frames), answer)


def test_a_structure_built_without_data_takes_the_state():
    network, x = build("shared", torch.float32)
    spiking, method, options = convert(network, "rate", step=8, data=x), METHODS["rate"], RateOptions()
    empty = method.spiking(method.limit(Shared(), options, None), 8, options, None, {})
    empty.load_state_dict(spiking.state_dict())
    assert torch.equal(empty(x), spiking(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_type_is_kept(dtype):
    network, x = build("max pooling", torch.float32)
    network, x = network.to(dtype), x.to(dtype)
    spiking = convert(network, "rate", step=4, data=x)
    assert {value.dtype for value in spiking.state_dict().values() if value.is_floating_point()} == {dtype}
    assert spiking(x).dtype == dtype


# Modules that are called several times


def test_each_call_of_a_shared_module_has_a_neuron_and_a_threshold_of_its_own():
    network, x = build("shared")
    spiking = convert(network, "rate", step=8, data=x, percentile=1.0)
    assert [*spiking.nodes] == [f"network.act.calls.{i}" for i in range(3)]
    assert len({float(node.get_thres()) for node in spiking.nodes.values()}) == 3
    assert [type(pool) for pool in spiking.network.pool.calls] == [Increment] * 2
    assert spiking.settings["options"]["calls"] == {"act": 3, "pool": 2}


def test_one_module_in_two_places_has_a_neuron_for_each():
    act = nn.ReLU()
    network = nn.Sequential(nn.Linear(6, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 3)).double()
    x = torch.rand(6, 6, dtype=torch.float64)
    spiking = convert(network, "rate", step=1024, data=x, percentile=1.0)
    assert [*spiking.nodes] == ["network.1", "network.3"]
    assert (spiking(x) - network(x)).abs().max() < 0.01


def test_a_pass_that_failed_does_not_shift_the_next():
    network, x = build("shared")
    spiking, limit = convert(network, "rate", step=4, data=x), prepare(network, "rate", data=x)
    answers = [each(x) for each in (spiking, limit)]
    for each, answer in zip((spiking, limit), answers, strict=True):
        broken = next(m for m in each.modules() if isinstance(m, InTurn)).calls[1]
        hook = broken.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            each(x)
        hook.remove()
        assert torch.equal(each(x), answer)


def test_a_pass_with_more_calls_than_were_found_is_refused():
    class Repeats(nn.Module):
        times = 2

        def __init__(self):
            super().__init__()
            self.layer, self.act = nn.Linear(6, 6), nn.ReLU()

        def forward(self, x):
            for _ in range(self.times):
                x = self.act(self.layer(x))
            return x

    network = Repeats()
    limit = prepare(network, "rate", data=torch.rand(4, 6))
    limit.times = 3
    with pytest.raises(UserError, match=r"a pass calls a ClippedReLU more often than the 2 times"):
        limit(torch.rand(4, 6))


# Networks of timm and of the paper


def test_a_vision_transformer_with_relu_converts():
    torch.manual_seed(0)
    network = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3, act_layer=nn.ReLU
    )
    nn.init.normal_(network.head.weight)
    spiking = convert(network, "rate", step=8, data=torch.rand(4, 3, 16, 16))
    assert [*spiking.nodes] == ["network.blocks.0.mlp.act", "network.blocks.1.mlp.act"]
    assert spiking(torch.rand(2, 3, 16, 16)).shape == (2, 3)


def test_the_networks_of_the_paper_have_their_sizes():
    networks = {
        "rate_coded_transformer_mnist": 548_234,  # spec of the paper's network for MNIST
        "rate_coded_transformer_digits": 53_098,
    }
    for name, count in networks.items():
        assert sum(p.numel() for p in timm.create_model(name).parameters()) == count
    assert sum(p.numel() for p in RateCodedTextTransformer().parameters()) == 667_586  # and for IMDb


def picture_network(**options):
    torch.manual_seed(0)
    return RateCodedTransformer(img_size=8, patch_size=2, embed_dim=8, depth=3, num_heads=2, **options)


def text_network(**options):
    torch.manual_seed(0)
    return RateCodedTextTransformer(vocabulary=9, length=6, embed_dim=8, depth=3, num_heads=2, **options)


@pytest.mark.parametrize(
    ("network", "x"),
    [(picture_network, torch.rand(4, 1, 8, 8)), (text_network, torch.arange(24).view(4, 6) % 9)],
    ids=["pictures", "text"],
)
def test_the_networks_of_the_paper_learn_and_spike(network, x, tmp_path):
    net = network()
    net(x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in net.named_parameters() if ".k.bias" not in name)
    plain = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    net.set_grad_checkpointing()
    net(x).square().sum().backward()
    assert all(torch.allclose(parameter.grad, plain[name]) for name, parameter in net.named_parameters())
    released = network(as_released=True)
    assert (released(x) - net(x)).abs().max() > 1e-4
    net.load_state_dict(released.state_dict())
    assert torch.equal(net(x), released(x))
    spiking = convert(net.eval(), "rate", step=16, data=x, allow_silent=True)
    assert len(spiking.nodes) == 3 + (2 if x.dim() == 2 else 1)
    loaded = load_converted(save_converted(spiking, tmp_path / "net.safetensors", net), network(as_released=True))
    assert torch.equal(loaded(x), spiking(x))
    assert spiking(x).shape == (4, net.num_classes)
    net.reset_classifier(5)
    assert net(x).shape == (4, net.num_classes) == (4, 5)
    assert net.get_classifier().out_features == 5
    net.reset_classifier(0)
    assert net(x).shape == (4, net.num_features)


def test_heads_have_all_tokens_in_a_part_of_the_width_and_as_released_the_reverse():
    x = torch.randint(9, (1, 6), generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[0, 1] = (x[0, 1] + 1) % 9
    for released in (False, True):
        net = text_network(as_released=released)
        changed = (net.forward_features(x) != net.forward_features(other)).any(-1)[0].tolist()
        assert changed == ([False, True] * 3 if released else [True] * 6)


def test_no_weight_decay_names_embeddings():
    assert picture_network().no_weight_decay() == {"pos_embed", "cls_token"}
    assert text_network().no_weight_decay() == {"pos_embed", "token_embed.weight"}


# What is refused


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: Own(lambda net, x: net.head(functional.relu(net.first(x)))), "the relu in the forward of Own"),
        (lambda: Own(lambda net, x: net.head(torch.relu(net.act(net.first(x)))), act=nn.ReLU()), "the relu in the for"),
        (lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.SiLU()), "the silu in 3 "),
        (lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.GroupNorm(2, 6)), "the group norm in 2 "),
        (lambda: mlp(nn.Identity), "rate found nothing to convert in Sequential"),
    ],
    ids=["function", "second function", "silu", "group norm", "nothing"],
)
def test_what_is_not_known_is_named(network, message):
    with pytest.raises(UserError, match=message) as caught:
        convert(network().eval(), "rate", data=torch.rand(4, 6) - 0.5)
    assert "\n" not in str(caught.value)


def test_poolings_that_can_not_be_converted_are_named():
    class Functional(nn.Module):
        def forward(self, x):
            return functional.max_pool2d(x, 2)

    for pool, message in (
        (Functional(), "doesn't know the max pooling in 2 "),
        (nn.MaxPool2d(2, return_indices=True), "2 returns the indices of its maxima"),
    ):
        layers = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), pool)
        network = Own(lambda net, x: out if isinstance(out := net.layers(x), torch.Tensor) else out[0], layers=layers)
        with pytest.raises(UserError, match=message.replace("2", "layers.2", 1)):
            convert(network, "rate", data=torch.rand(MAPS))


def test_missing_data_dead_layers_and_weights_that_are_not_finite_are_named():
    network, x = build("perceptron")
    with pytest.raises(UserError, match=r"rate calibrates its thresholds, so it needs data; give data="):
        convert(network, "rate")
    dead = copy.deepcopy(network)
    dead[0].bias.data.fill_(-100.0)
    for options in ({}, PAPER):
        with pytest.raises(
            UserError, match=r"these layers never fire on 6 samples of the data: network.1 \(threshold 1"
        ):
            convert(dead, "rate", data=x, **options)
        assert not convert(dead, "rate", data=x, allow_silent=True, **options).network[1](torch.zeros(2, 6)).any()
    network[0].weight.data.fill_(100.0)
    x[1] = 1e307
    with pytest.raises(
        UserError, match=r"^rate: 1 is not finite on the calibration data; check the weights and the data$"
    ):
        prepare(network, "rate", data=x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, "levels must be a whole number from 1; got 0"),
        ({"levels": 2.0}, "levels must be a whole number from 1; got 2.0"),
        ({"levels": 8, "percentile": 0.9}, "two rules for the thresholds"),
        ({"percentile": 99}, "percentile must be above 0 and at most 1; got 99"),
        ({"percentile": 0.0}, "percentile must be above 0"),
        ({"start": 1.0}, "start must be at least 0 and below 1"),
        ({"as_released": True}, "give it"),
        ({"threshold": 1.0}, "unknown option of rate 'threshold'"),
    ],
)
def test_bad_options_are_named(options, message):
    network, x = build("perceptron")
    with pytest.raises(UserError, match=message):
        convert(network, "rate", data=x, **options)


def test_as_released_needs_a_layer_in_front_of_each_relu():
    options = {"as_released": True, "percentile": 0.99}
    network, x = build("max pooling")
    with pytest.raises(UserError, match=r"and 2 does not read what a layer puts out"):
        prepare(network, "rate", data=x, **options)
    network, x = build("shared")
    with pytest.raises(UserError, match=r"and act is called more than once"):
        prepare(network, "rate", data=x, **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RateCodedTransformer(embed_dim=10, num_heads=4), "embed_dim must be a multiple of num_heads"),
        (lambda: RateCodedTransformer(img_size=30), "img_size must be a multiple of 4"),
        (lambda: RateCodedTransformer(depth=0), "depth must be at least 1"),
        (
            lambda: RateCodedTextTransformer(length=5, as_released=True),
            "length must be a multiple of num_heads; got 5, 2",
        ),
        (lambda: text_network()(torch.zeros(1, 5, dtype=torch.long)), r"texts must have 6 words; got \(1, 5\)"),
    ],
)
def test_sizes_that_do_not_fit_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
