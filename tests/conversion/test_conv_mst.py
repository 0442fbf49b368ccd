"""The Masked Spiking Transformer: every vector of the official network, its sizes, its files."""

import copy
import dataclasses
import json
import re

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from timm.models.swin_transformer import SwinTransformer

from braincog_transformers import UserError
from braincog_transformers.checkpoints import load_checkpoint, load_state
from braincog_transformers.checkpoints.loading import misfits
from braincog_transformers.conversion import METHODS, SOURCES, convert, load_converted, prepare, save_converted
from braincog_transformers.conversion.attention import ExplicitAttention
from braincog_transformers.conversion.masked_spiking_transformer import MaskedSpikingTransformer
from braincog_transformers.conversion.qcfs import QCFS, SeededMasks, set_masks

VALUE, GRADIENT = 1e-9, 1e-6
TINY = {"img_size": 16, "patch_size": 2, "embed_dim": 16, "depths": (2, 1), "num_heads": (2, 4), "window_size": 4}


class Vector:
    """One file."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.meta = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        self.input, self.steps = self.tensors["input"].double(), int(self.meta["timesteps"])

    def of(self, prefix):
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    def network(self):
        kwargs = json.loads(self.meta["kwargs"])
        mlp_norm, levels = kwargs.pop("dataset") == "imagenet", int(self.meta["qcfs_levels"])
        network = MaskedSpikingTransformer(mlp_norm=mlp_norm, levels=levels, drop_path_rate=0.0, **kwargs)
        load_state(network, self.of("state."))
        return network.double()

    def mask(self, network, kind):
        """Let a network take the masks of the official run."""
        if (packed := self.tensors.get(f"mask_bits.{kind}")) is not None:
            kept, place = torch.from_numpy(np.unpackbits(packed.numpy()).astype(bool)), 0

            def take(x):
                nonlocal place
                place += x.numel()
                return kept[place - x.numel() : place].view(x.shape)

            set_masks(network, take)
        return network


def pytest_generate_tests(metafunc):
    if "vector" in metafunc.fixturenames:
        paths = sorted(metafunc.config.getoption("--golden-dir").glob("masked_spiking_transformer_*.safetensors"))
        metafunc.parametrize("vector", [Vector(path) for path in paths], ids=[path.stem for path in paths])


def test_there_is_a_vector(pytestconfig):
    assert list(pytestconfig.getoption("--golden-dir").glob("masked_spiking_transformer_*.safetensors"))


def test_evaluation_matches(vector):
    network = vector.mask(vector.network().eval(), "ann")
    with torch.no_grad():
        assert (network(vector.input) - vector.tensors["ann_out"]).abs().max() < VALUE


def test_training_matches_in_value_and_gradient(vector):
    network = vector.mask(vector.network().train(), "train")
    logits = network(vector.input)
    assert (logits - vector.tensors["logits_train"]).abs().max() < VALUE
    (logits * vector.tensors["probe"]).sum().backward()
    translate = network.official_names.translate
    for name, expected in vector.of("grad.").items():
        grad = network.get_parameter(translate(name)).grad
        assert (grad - expected).norm() / expected.norm() < GRADIENT, name
    norms = json.loads(vector.meta["grad_norms"])
    assert {translate(name) for name in norms} == {name for name, _ in network.named_parameters()}
    for name, norm in norms.items():
        grad = network.get_parameter(translate(name)).grad
        assert grad.norm().item() == pytest.approx(norm, rel=GRADIENT, abs=1e-9), name


def test_every_step_of_the_spiking_network_matches(vector):
    spiking = vector.mask(convert(vector.network(), "qcfs", step=vector.steps), "snn")
    steps = torch.arange(1, vector.steps + 1).view(-1, 1, 1)
    with torch.no_grad():
        means = spiking.forward_sequence(vector.input)
    assert (means * steps - vector.tensors["snn_accumulated"]).abs().max() < VALUE


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("masked_spiking_transformer_tiny", 1000, 28_332_638),
        ("masked_spiking_transformer_tiny_cifar", 100, 27_596_378),
        ("masked_spiking_transformer_tiny_cifar", 10, 27_527_168),
    ],
)
def test_sizes_are_the_official_ones(name, classes, parameters):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert sum(isinstance(module, QCFS) for module in network.modules()) == 124
    assert SOURCES[name].method == "qcfs"
    assert network.pretrained_cfg["input_size"] == (3, 224, 224)


# Files


@pytest.fixture
def official(pytestconfig):
    return Vector(min(pytestconfig.getoption("--golden-dir").glob("masked_spiking_transformer_*.safetensors")))


def test_an_official_file_loads(official, tmp_path):
    torch.save({"model": official.of("state."), "epoch": 3, "max_accuracy": 0.5}, tmp_path / "official.pth")
    network, expected = official.network().float(), official.network().float().state_dict()
    for parameter in network.parameters():
        parameter.data.zero_()
    assert "loaded" in load_checkpoint(network, tmp_path / "official.pth")
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_weights_without_thresholds_are_refused(official):
    without = {name: value for name, value in official.of("state.").items() if not name.endswith("q_if.up")}
    with pytest.raises(UserError, match=r"missing: layers\.0\.blocks\.0\.attn\.q_node\.threshold"):
        load_state(official.network(), without)


def small(**kwargs):
    """Return a network that fires: its weights are large, and its statistics are those of pictures."""
    torch.manual_seed(0)
    network = MaskedSpikingTransformer(**{**TINY, "num_classes": 5, "threshold": 0.4, "drop_path_rate": 0.0, **kwargs})
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 1.0
        elif isinstance(module, ExplicitAttention):
            module.score_node.threshold.data.fill_(0.02)
    network.train()(image(8))
    return network.eval()


def image(count=2):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("load", [load_state, torch.nn.Module.load_state_dict])
def test_weights_of_another_number_of_levels_are_refused_and_change_nothing(load):
    network, state = small(levels=8), small(levels=16).state_dict()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(UserError, match=r"^MaskedSpikingTransformer: .* trained with levels=16, this .* levels=8;"):
        load(network, {name: value + 1 if value.is_floating_point() else value for name, value in state.items()})
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    copy.deepcopy(network).load_state_dict(before)


def test_a_spiking_network_is_written_and_read(tmp_path):
    kwargs = {**TINY, "num_classes": 5, "levels": 8, "masking_ratio": 0.5, "img_size": 16}
    torch.manual_seed(0)
    network = timm.create_model("masked_spiking_transformer_tiny", **kwargs)
    spiking = convert(network, "qcfs", step=3)
    source = {"model": "masked_spiking_transformer_tiny", "kwargs": kwargs}
    read = load_converted(save_converted(spiking, tmp_path / "net.safetensors", source))
    assert torch.equal(read(image()), spiking(image()))


def as_its_authors_name_it(state):
    """Rename the weights of timm's Swin: the merging of patches closes a stage."""
    named = {re.sub(r"^layers\.1\.downsample", "layers.0.downsample", name): value for name, value in state.items()}
    index = torch.zeros(16, 16, dtype=torch.long)
    named |= {
        "layers.0.blocks.0.attn.relative_position_index": index,
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16),
    }
    return {name.replace("head.fc.", "head."): value for name, value in named.items()}


@pytest.mark.parametrize("names", [dict, as_its_authors_name_it])
def test_a_swin_is_a_start(names):
    swin, network = SwinTransformer(**TINY, num_classes=5, drop_path_rate=0.0), small()
    before = copy.deepcopy(network.state_dict())
    line = load_state(network, names(swin.state_dict()))
    assert line.endswith("; from a Swin Transformer, with new thresholds and statistics of normalisation")
    ours, theirs = network.state_dict(), as_its_authors_name_it(swin.state_dict())
    taken = ours.keys() & theirs.keys()
    assert len(taken) == len(swin.state_dict())
    assert all(torch.equal(ours[name], theirs[name]) for name in taken)
    assert all(torch.equal(ours[name], before[name]) for name in ours.keys() - taken)
    with pytest.raises(UserError, match=r"1 missing: .*layers\.0\.blocks\.1\.norm2\.bias"):
        load_state(
            network, {name: v for name, v in swin.state_dict().items() if name != "layers.0.blocks.1.norm2.bias"}
        )


def test_timms_own_swin_fits():
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=10)
    with torch.device("meta"):
        network = timm.create_model("masked_spiking_transformer_tiny", num_classes=10)
    assert not any(misfits(network, network.adopt(swin.state_dict())[0]).values())


# Masks


def test_masked_runs_repeat_and_another_seed_gives_others():
    spiking = convert(small(masking_ratio=0.5), "qcfs", step=4)
    first = spiking(image())
    assert torch.equal(spiking(image()), first)
    assert torch.equal(copy.deepcopy(spiking)(image()), first)
    set_masks(spiking, SeededMasks(0.5, seed=1))
    second = spiking(image())
    assert not torch.equal(second, first)
    assert torch.equal(spiking(image()), second)


def test_masks_are_drawn_for_q_k_and_scores_in_turn():
    shapes = []
    network = small(masking_ratio=0.25)
    set_masks(network, lambda x: shapes.append(tuple(x.shape)) or torch.ones_like(x))
    network(image(1))
    heads_and_tokens = [(4, 2, 16, 8), (4, 2, 16, 8), (4, 2, 16, 16)] * 2
    assert shapes == [*heads_and_tokens, (1, 4, 16, 8), (1, 4, 16, 8), (1, 4, 16, 16)]
    plain = small()
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network(image(1)), plain(image(1)))


def test_a_ratio_masks_its_share_and_rescales_nothing():
    kept = SeededMasks(0.75, seed=0)(torch.ones(400, 100))
    assert kept.float().mean() == pytest.approx(0.25, abs=0.01)
    mask = small(masking_ratio=0.75).layers[0].blocks[0].attn.q_mask
    assert set(mask(torch.full((50,), 3.0)).tolist()) == {0.0, 3.0}


def test_ratio_0_draws_nothing():
    network = small().train()
    before = torch.get_rng_state()
    network(image())
    assert torch.equal(torch.get_rng_state(), before)


# As a source of conversion, and as timm's


def test_it_is_ready_as_it_is_built(monkeypatch):
    monkeypatch.setitem(METHODS, "other", dataclasses.replace(METHODS["qcfs"], name="other"))
    network = small(levels=4)
    limit = prepare(network, "qcfs")
    assert limit is not network
    assert torch.equal(limit(image()), network(image()))
    with pytest.raises(UserError, match=r"prepared with levels=4; got levels=8"):
        prepare(network, "qcfs", levels=8)
    with pytest.raises(UserError, match=r"MaskedSpikingTransformer was prepared for qcfs"):
        prepare(network, "other")


def test_timms_calls():
    network = small()
    assert network.get_classifier() is network.head
    assert network.forward_features(image()).shape == (2, 4, 4, 32)
    assert network.forward_head(network.forward_features(image()), pre_logits=True).shape == (2, 32)
    assert len(network.no_weight_decay()) == 3
    network.reset_classifier(3)
    assert network(image()).shape == (2, 3)
    network.reset_classifier(0)
    assert network(image()).shape == (2, 32)


def test_checkpointing_changes_no_gradient_and_no_statistics():
    plain, again = small().train(), small().train()
    again.set_grad_checkpointing()
    for network in (plain, again):
        network(image()).sum().backward()
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-5), name
    for (name, one), other in zip(plain.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_heads": (2, 5)}, r"num_heads must have a number for each stage"),
        ({"num_heads": (2,)}, r"num_heads must have a number for each stage"),
        ({"levels": 0}, r"levels must be a whole number from 1; got 0"),
        ({"masking_ratio": 1.0}, r"masking_ratio must be at least 0 and below 1"),
        ({"embed_dim": 0}, r"embed_dim must be at least 1"),
        ({"drop_path_rate": 2.0}, r"drop_path_rate must be at most 1"),
    ],
)
def test_arguments_that_fit_nothing_are_named(kwargs, message):
    with pytest.raises(UserError, match=message):
        small(**kwargs)
