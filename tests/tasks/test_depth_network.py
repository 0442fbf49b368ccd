"""The spike transformer for depth: exact against its official code, and what it refuses."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

from braincog_transformers import UserError
from braincog_transformers.checkpoints import load_checkpoint, load_state
from braincog_transformers.models import SpikeTransformerDepth

HERE = Path(__file__).parents[1] / "golden"
EMBEDDINGS = {4: "local_global", 3: "local", 0: "patches"}


class Vector:
    """The tensors of a file, and our network with its state, in float64."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            self.meta = file.metadata()
        self.official = json.loads(self.meta["kwargs"])
        self.state = {name[6:]: value for name, value in self.tensors.items() if name.startswith("state.")}
        means = [name for name in self.state if name.endswith("running_mean")]
        for name in means:  # left out of the small vector
            self.state.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
        x = self["input"]
        if "packed" in self.meta["input_layout"]:
            x = torch.from_numpy(np.unpackbits(x.numpy())).view(2, 4, 16, 16)
        self.x = x.double()

    def __getitem__(self, name):
        return self.tensors[name]

    def network(self):
        given = self.official
        network = SpikeTransformerDepth(
            in_chans=given["num_bins_rgb"], patch_frames=given["swin_patch_size"][0],
            embed_dim=given["base_num_channels"], depths=tuple(given["swin_depths"]),
            num_heads=tuple(given["swin_num_heads"]), num_res_blocks=given["num_residual_blocks"], drop_path_rate=0.0,
            embedding=EMBEDDINGS[given["new_v"]],
        )  # fmt: skip
        load_state(network, self.state)
        return network.double()

    def loss(self, output):
        """Return what the gradients are of."""
        if "probe" in self.tensors:
            return (output * self["probe"]).sum()
        from braincog_transformers.tasks.depth.labels import to_label
        from braincog_transformers.tasks.depth.losses import DepthLoss

        return DepthLoss()(output, to_label(self["loss.depth_metres"].double()))


@pytest.fixture(scope="module", params=["spike_transformer_depth_small", "spike_transformer_depth"])
def vector(request):
    path = request.config.getoption("--golden-dir") / f"{request.param}.safetensors"
    path = path if path.is_file() else HERE / path.name
    if not path.is_file():
        pytest.skip("not in --golden-dir")
    return Vector(path)


def far(ours, theirs):
    """Return the largest difference over the largest entry, which the vectors hold in 32 or 64 bits."""
    return ((ours.detach() - theirs).abs().max() / theirs.abs().max()).item()


def test_every_value_of_the_official_network_is_met(vector):
    network = vector.network().eval()
    with torch.no_grad():
        output, maps = network(vector.x), network.encode(vector.x[:1])
        embedded = network.embed(vector.x[:1]).permute(0, 4, 1, 2, 3)
    given = vector["logits_eval"]
    assert (output[: len(given)] - given).abs().max() < (1e-12 if given.dtype == torch.float64 else 1e-7)
    inner = {f"inner.encoder_out.{i}": value for i, value in enumerate(maps)} | {"inner.patch_embed": embedded}
    for name, value in inner.items():
        if name in vector.tensors:
            assert far(value, vector[name]) < 1e-6


def test_training_meets_it_too_with_gradients_and_statistics_of_each_block_of_frames(vector):
    network = vector.network().train()
    output = network(vector.x)
    assert (output - vector["logits_train"]).abs().max() < 1e-12
    vector.loss(output).backward()
    grads = {name: value.grad for name, value in network.named_parameters()}
    ours = network.official_names.translate
    checked = [name[5:] for name in vector.tensors if name.startswith("grad.")]
    assert len(checked) >= 4
    for name in checked:
        assert far(grads[ours(name)], vector[f"grad.{name}"]) < 1e-6, name
    for name, norm in json.loads(vector.meta.get("grad_norms", "{}")).items():
        assert grads[ours(name)].norm().item() == pytest.approx(norm, rel=1e-9)
    first = {"local": network.embed.blocks[0].bn1, "global": network.embed.whole.blocks[0].bn1}
    for where, norm in first.items():
        for name in ("running_mean", "running_var"):
            assert far(getattr(norm, name), vector[f"after_train.{where}_head_bn.{name}"]) < 1e-12
    blocks = vector.official["num_bins_rgb"] // vector.official["swin_patch_size"][0]
    counts = [norm.num_batches_tracked.item() for norm in first.values()]
    assert counts == [vector.state["encoder.swin3d.patch_embed.head.weight"].new_tensor(blocks).item(), 1]


def test_the_positions_of_a_window_are_the_official_ones(vector):
    if "aux.relative_position_index" in vector.tensors:
        index = vector.network().stages[0].blocks[0].attn.relative_position_index
        assert torch.equal(index, vector["aux.relative_position_index"].long())


@pytest.mark.parametrize(
    ("given", "parameters"),
    [({}, 20_545_951), ({"embedding": "local"}, 20_877_727), ({"embedding": "patches"}, 20_114_239)],
    ids=["local_global", "local", "patches"],
)
def test_the_published_network_has_its_number_of_parameters(given, parameters):
    with torch.device("meta"):
        network = timm.create_model("spike_transformer_depth", **given)
    assert sum(value.numel() for value in network.parameters()) == parameters
    if not given:
        parts = {"resblocks": network.residual, "decoders": network.decoders, "pred": network.pred}
        counts = {name: sum(value.numel() for value in part.parameters()) for name, part in parts.items()}
        assert counts == {"resblocks": 5_309_952, "decoders": 2_419_536, "pred": 49}


@pytest.mark.parametrize("embedding", ["local_global", "local", "patches"])
@pytest.mark.parametrize("sides", [(8, 24), (16, 8), (40, 64)], ids=["8x24", "16x8", "40x64"])
def test_pictures_of_any_fitting_size_become_depth_of_that_size(embedding, sides):
    network = timm.create_model("spike_transformer_depth_small", embedding=embedding).eval()
    x = torch.rand(2, 32, *sides).round()
    with torch.no_grad():
        depth = network(x)
        alone = network(x[1:])
    assert depth.shape == (2, 1, *sides)
    assert ((depth > 0) & (depth < 1)).all()
    assert torch.allclose(depth[1:], alone, atol=1e-6)


def test_it_says_that_it_does_not_spike():
    from braincog_transformers.analysis.recorder import is_spiking

    network = timm.create_model("spike_transformer_depth_small")
    assert network.status == "doesn't spike"
    assert "does not spike" in SpikeTransformerDepth.__doc__
    assert not is_spiking(network)


def test_all_embeddings_learn_all_their_weights():
    for embedding in EMBEDDINGS.values():
        network = timm.create_model("spike_transformer_depth_small", embedding=embedding)
        network(torch.rand(2, 32, 16, 16).round()).square().sum().backward()
        assert [name for name, value in network.named_parameters() if value.grad is None] == []


def saved(path, **more):
    """Write a checkpoint as the official trainer does, and return its weights under our names."""
    torch.manual_seed(3)
    network = timm.create_model("spike_transformer_depth_small")
    ours = network.state_dict()
    names = [
        (r"embed.whole.blocks.", "encoder.swin3d.patch_embed.global_residual_encoding.resblock"),
        (r"embed.blocks.", "encoder.swin3d.patch_embed.residual_encoding.resblock"),
        (r"embed.whole.", "encoder.swin3d.patch_embed.global_"),
        (r"embed.", "encoder.swin3d.patch_embed."),
    ]
    official = {}
    for name, value in ours.items():
        new = name
        for start, theirs in names:
            if name.startswith(start):
                new = theirs + name.removeprefix(start)
                break
        if "resblock" in new and name.startswith("embed"):
            head, _, tail = new.partition("resblock")
            new = f"{head}resblock{int(tail[0]) + 1}{tail[1:]}"
        parts = new.split(".")
        if parts[0] == "stages" and parts[2] == "blocks":
            new = "encoder.swin3d.layers." + ".".join(parts[1:])
        elif parts[0] == "stages" and parts[2] == "norm":
            new = f"encoder.swin3d.norm{parts[1]}.{parts[3]}"
        elif parts[0] == "stages":
            new = f"encoder.conv_layers.{parts[1]}." + ".".join(parts[4:])
        elif parts[0] == "merges":
            new = f"encoder.swin3d.layers.{parts[1]}.downsample." + ".".join(parts[2:])
        elif parts[0] == "residual":
            new = "resblocks." + ".".join(parts[1:])
        elif parts[0] in ("decoders", "pred"):
            new = ".".join([*parts[:-1], "conv2d", parts[-1]])
        official[f"module.{new}"] = value
    official["module.encoder.swin3d.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(98, 98).long()
    content = {"arch": "S2DepthTransformerUNetConv", "epoch": 3, "logger": None, "monitor_best": np.float64(0.1)}
    torch.save({**content, "state_dict": official, "config": {"name": "x"}, **more}, path)
    return ours


def test_an_official_checkpoint_loads(tmp_path):
    ours = saved(tmp_path / "model_best.pth.tar")
    network = timm.create_model("spike_transformer_depth_small")
    assert "loaded" in load_checkpoint(network, tmp_path / "model_best.pth.tar")
    assert all(torch.equal(value, ours[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("module", "loads"), [("logger.logger", True), ("trainer.state", False)])
def test_a_checkpoint_with_the_trainers_logger_loads_and_other_objects_are_refused(
    tmp_path, monkeypatch, module, loads
):
    for name in (module.partition(".")[0], module):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    kind = sys.modules[module].Logger = type("Logger", (), {"__module__": module})
    logger = kind()
    logger.entries = {1: {"loss": 0.5}}
    saved(tmp_path / "model_best.pth.tar", logger=logger)
    network = timm.create_model("spike_transformer_depth_small")
    if loads:
        assert "loaded" in load_checkpoint(network, tmp_path / "model_best.pth.tar")
        return
    with pytest.raises(UserError, match=r"model_best.pth.tar is refused: it is no plain data, it would load trainer"):
        load_checkpoint(network, tmp_path / "model_best.pth.tar")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"patch_frames": 7}, "patch_frames must divide in_chans=32; got 7"),
        ({"embed_dim": 18}, "embed_dim must be even and a multiple of the 4 blocks of frames; got 18"),
        ({"num_heads": (1, 2)}, "num_heads must have a number for each of the 3 depths"),
        ({"num_heads": (1, 2, 5)}, "embed_dim must be a multiple of num_heads"),
        ({"window": (2, 0, 7)}, "window must be three sides of 1 or more"),
        ({"embedding": "locl"}, "did you mean"),
        ({"num_classes": 10}, "it has no classifier; num_classes must be 0, got 10"),
        ({"depths": (1, 0, 1)}, "depths must be at least 1"),
        ({"num_res_blocks": -1}, "num_res_blocks must be from 0 to 1000"),
    ],
    ids=lambda value: next(iter(value)) + str(next(iter(value.values()))) if isinstance(value, dict) else "",
)
def test_arguments_that_contradict_each_other_are_one_line(given, line):
    with pytest.raises(UserError, match=r"SpikeTransformerDepth") as caught:
        timm.create_model("spike_transformer_depth_small", **given)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(1, 31, 16, 16),
        torch.zeros(1, 32, 12, 16),
        torch.zeros(32, 16, 16),
        torch.zeros(1, 32, 16, 16).int(),
    ],
    ids=["frames", "side", "axes", "type"],
)
def test_inputs_that_do_not_fit_are_named(x):
    network = timm.create_model("spike_transformer_depth_small")
    assert isinstance(network, nn.Module)
    with pytest.raises(ValueError, match="SpikeTransformerDepth: input must be"):
        network(x)
