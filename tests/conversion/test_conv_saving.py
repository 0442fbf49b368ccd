"""Files of converted networks: what is written is what is read, and what can't be read back is never written."""

import json
import struct

import pytest
import small_networks
import timm
import torch
from small_networks import METHOD_NAMES, source_of
from torch import nn
from toy_conversion import TOY

from braincog_transformers import UserError, analyze
from braincog_transformers.conversion import (
    METHODS,
    convert,
    is_converted,
    load_converted,
    save_converted,
)

TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 5}
SOURCE = {"model": "vit_tiny_patch16_224", "kwargs": TINY}
KEY = "braincog_transformers.converted"


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(METHODS, "toy", TOY)


def images(count=2):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def converted():
    torch.manual_seed(0)
    return convert(timm.create_model(SOURCE["model"], **TINY), "toy", step=3, data=images())


@pytest.fixture
def path(converted, tmp_path):
    return save_converted(converted, tmp_path / "net.safetensors", SOURCE)


def changed(path, change):
    """Write the file anew with other settings."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    settings = json.loads(header["__metadata__"][KEY])
    header["__metadata__"][KEY] = change if isinstance(change, str) else json.dumps(settings | change)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


def refused(path, source=None):
    """Return the line with which a file is refused."""
    with pytest.raises(UserError) as caught:
        load_converted(path, source)
    line = str(caught.value)
    assert path.name in line
    assert "\n" not in line
    assert len(line) < 500
    return line


def test_a_file_gives_the_network_back(converted, path):
    loaded = load_converted(path)
    assert is_converted(path)
    assert type(loaded) is type(converted)
    assert loaded.step == 3
    assert torch.equal(loaded(images()), converted(images()))
    assert torch.equal(loaded.forward_sequence(images()), converted.forward_sequence(images()))
    assert loaded.num_classes == 5
    assert loaded.pretrained_cfg["architecture"] == "vit_tiny_patch16_224"
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training


def test_what_is_analysed_is_written_as_before(converted, path, tmp_path):
    analyze(converted, [images()])
    converted.stops = False
    again = save_converted(converted, tmp_path / "again.safetensors", SOURCE)
    assert again.read_bytes() == path.read_bytes()
    assert load_converted(again).stops


def test_options_and_t_are_those_of_the_network(tmp_path):
    network = convert(timm.create_model(SOURCE["model"], **TINY), "toy", data=images(), high=7, sizes=(4, 5))
    network.step = 6
    loaded = load_converted(save_converted(network, tmp_path / "net.safetensors", SOURCE))
    assert loaded.step == 6
    assert loaded.settings["options"] == {"high": 7, "sizes": (4, 5)}
    assert {type(node).__name__ for node in loaded.nodes.values()} == {"STBIFNode"}


def test_the_type_of_the_weights_stays(converted, tmp_path):
    loaded = load_converted(save_converted(converted.double(), tmp_path / "net.safetensors", SOURCE))
    assert {value.dtype for value in loaded.state_dict().values() if value.is_floating_point()} == {torch.float64}
    assert torch.equal(loaded(images().double()), converted(images().double()))
    assert not any(value.data_ptr() % 64 for value in loaded.state_dict().values())  # else sums may differ in a bit


def test_what_is_in_no_state_dict_has_the_type_too(tmp_path):
    swin = {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 4, "depths": [2], "num_heads": [2]}
    model = timm.create_model("swin_tiny_patch4_window7_224", **swin, num_classes=3).double()
    network = convert(model, "toy", step=2, data=images().double(), allow_silent=True)
    source = {"model": "swin_tiny_patch4_window7_224", "kwargs": {**swin, "num_classes": 3}}
    loaded = load_converted(save_converted(network, tmp_path / "net.safetensors", source))
    masks = [buffer for name, buffer in loaded.named_buffers() if name.endswith("attn_mask")]
    assert [mask.dtype for mask in masks] == [torch.float64]
    assert torch.equal(loaded(images().double()), network(images().double()))


def test_a_loaded_network_knows_its_source(path, tmp_path):
    again = save_converted(load_converted(path), tmp_path / "again.safetensors")
    assert torch.equal(load_converted(again)(images()), load_converted(path)(images()))


def test_saving_and_loading_draw_no_random_numbers(converted, tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    load_converted(save_converted(converted, tmp_path / "net.safetensors", SOURCE))
    assert torch.equal(torch.rand(1), expected)


def test_what_timm_left_on_a_network_names_its_source(tmp_path):
    model = timm.create_model("test_vit", num_classes=4)
    network = convert(model, "toy", step=1, data=torch.randn(1, 3, 160, 160))
    loaded = load_converted(save_converted(network, tmp_path / "net.safetensors"))
    assert loaded.settings["source"] == {"model": "test_vit.r160_in1k", "kwargs": {"num_classes": 4}}


def test_a_file_that_could_not_be_read_back_is_not_written(converted, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(UserError, match=r"is not written.* pass source="):
        save_converted(converted, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"num_heads": 4}, "attn.num_heads is 2, there 4"),
        ({"class_token": False, "global_pool": "avg"}, "network.cls_token is too much"),
        ({"depth": 2}, "network.blocks.1.attn.proj.bias is missing"),
        ({"num_heads": 3}, "can't be built"),
    ],
    ids=["heads", "class token", "depth", "impossible"],
)
def test_a_source_that_is_another_network_is_named(converted, tmp_path, other, named):
    with pytest.raises(UserError, match="is not written") as caught:
        save_converted(converted, tmp_path / "net.safetensors", {**SOURCE, "kwargs": TINY | other})
    assert named in str(caught.value)


def test_dropout_and_drop_path_of_the_source_do_not_count(tmp_path):
    model = timm.create_model(SOURCE["model"], **TINY, drop_path_rate=0.2, proj_drop_rate=0.1)
    network = convert(model, "toy", step=2, data=images(), allow_silent=True)
    loaded = load_converted(save_converted(network, tmp_path / "net.safetensors", SOURCE))
    assert torch.equal(loaded(images()), network(images()))


class Plain(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.first, self.act, self.head = nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.act(self.first(x)))


def test_a_source_that_timm_does_not_know_is_given_again(tmp_path):
    source, x = Plain(), torch.randn(2, 4)
    network = convert(source, "toy", step=4, data=x)
    path = save_converted(network, tmp_path / "net.safetensors", source)
    assert torch.equal(load_converted(path, Plain())(x), network(x))
    assert "its source is a Plain, no network of timm; give a network like it as source=" in refused(path)
    assert "it was made from a Plain, not a Linear" in refused(path, nn.Linear(4, 3))
    assert "is (6, 4), not (7, 4)" in refused(path, Plain(7))
    with pytest.raises(UserError, match="not named; give a network like it"):
        save_converted(network, path)


def test_only_converted_networks_are_saved_and_under_the_right_ending(converted, tmp_path):
    with pytest.raises(UserError, match="only what convert"):
        save_converted(Plain(), tmp_path / "net.safetensors")
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        save_converted(converted, tmp_path / "net.pth", SOURCE)
    with pytest.raises(UserError, match="can't write"):
        save_converted(converted, tmp_path / "none" / "net.safetensors", SOURCE)


def test_weights_that_are_not_finite_are_neither_written_nor_read(converted, path, tmp_path):
    converted.network.head.bias[0] = float("nan")
    with pytest.raises(UserError, match=r"head\.bias holds values that are not finite"):
        save_converted(converted, tmp_path / "other.safetensors", SOURCE)
    content = bytearray(path.read_bytes())
    content[-4:] = struct.pack("<f", float("inf"))
    path.write_bytes(content)
    assert "not finite" in refused(path)


def test_other_files_are_no_converted_networks(tmp_path, path):
    from safetensors.torch import save_file

    plain = tmp_path / "weights.safetensors"
    save_file({"head.weight": torch.zeros(2, 2)}, plain)
    assert not is_converted(plain)
    assert "is no converted network" in refused(plain)
    assert not is_converted(tmp_path / "missing.safetensors")
    assert "does not exist" in refused(tmp_path / "missing.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:-10])
    assert not is_converted(broken)
    assert "damaged or no safetensors file" in refused(broken)
    assert not is_converted(tmp_path)
    assert not is_converted(tmp_path / "net.pth.tar")


def source_with(**changes):
    return {"source": {**SOURCE, **changes}}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("[" * 100_000, "its settings are damaged"),
        ("7", "method is None"),
        ({"method": "toys"}, "unknown method of conversion 'toys'; did you mean toy?"),
        ({"method": ["toy"]}, "method is ('toy',)"),
        ({"step": 0}, "a whole number from 1; got 0"),
        ({"step": True}, "a whole number from 1; got True"),
        ({"step": 2.5}, "step is 2.5"),
        ({"options": {"high": -1}}, "high must be at least 0; got -1"),
        ({"options": {"higher": 1}}, "unknown option of toy 'higher'; did you mean high?"),
        ({"options": {"high": "x"}}, "toy: high must be a whole number; got 'x'"),
        ({"dtype": "load"}, "dtype is 'load'"),
        ({"source": None}, "source is None"),
        ({"source": {}}, "its source is not named"),
        (source_with(model="hf-hub:some/where"), "is not known to timm"),
        (source_with(model="../vit_tiny_patch16_224"), "is not known to timm"),
        (source_with(model="vit_tiny_patch16_224.none"), "unknown weights of model vit_tiny_patch16_224 'none'"),
        (
            source_with(kwargs=TINY | {"checkpoint_path": "/etc/passwd"}),
            "checkpoint_path, which would read other files",
        ),
        (source_with(kwargs=TINY | {"pretrained": True}), "pretrained, which would read other files"),
        (source_with(kwargs=TINY | {"embed_dim": 1 << 14}), "far larger than its weights"),
        (source_with(kwargs=TINY | {"depth": 1 << 14}), "far larger than its weights"),
        (source_with(kwargs=TINY | {"depth": 1 << 40}), "hold 1099511627776, which no network of its size has"),
        (source_with(kwargs=TINY | {"img_size": [16, 10**400]}), "hold a whole number of 1329 bits, which no network"),
        (source_with(kwargs=TINY | {"nonsense": 1}), "can't be built (TypeError"),
        (source_with(kwargs=TINY | {"num_classes": 6}), "network.head.bias is (5,), not (6,)"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "",
)
def test_settings_that_contradict_or_attack_are_one_line(path, change, named):
    assert named in refused(changed(path, change))


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_file_of_each_method_gives_the_network_back(method, tmp_path):
    network = small_networks.converted(method)
    path = save_converted(network, tmp_path / "net.safetensors", source_of(method))
    loaded = load_converted(path)
    assert torch.equal(loaded.forward_sequence(images(4)), network.forward_sequence(images(4)))
    assert loaded.settings["options"] == network.settings["options"]
    assert (type(loaded), loaded.step, loaded.coding) == (type(network), 3, network.coding)
    assert save_converted(loaded, tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    other = {**source_of(method), "kwargs": source_of(method)["kwargs"] | {"num_heads": 4}}
    with pytest.raises(UserError, match="is not written"):
        save_converted(network, tmp_path / "other.safetensors", other)
