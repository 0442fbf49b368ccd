"""What a checkpoint file may hold, and what it is refused for: in one line with the file's name."""

import argparse
import collections
import io
import pathlib
import zipfile

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from braincog_transformers import UserError
from braincog_transformers.checkpoints import identify, load_checkpoint, load_state, read_checkpoint, weights_of
from braincog_transformers.models import REGISTERED


@pytest.fixture(scope="module")
def network():
    return timm.create_model(
        "spikformer_4_384_cifar", embed_dim=16, depth=1, num_heads=2, img_size=16, num_classes=5
    ).requires_grad_(False)


def saved(content, path):
    torch.save(content, path)
    return path


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """Write a checkpoint's archive anew, each entry as `change` has it."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))
    return path


def refused(model, path):
    """Return the line with which a file is refused; it names the file and is short."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(model, path)
    line = str(caught.value)
    assert path.name in line
    assert "\n" not in line
    assert len(line) < 700
    return line


def test_one_flipped_bit_of_a_weight_is_noticed_on_every_load(network, tmp_path):
    path = saved(network.state_dict(), tmp_path / "flipped.pth")
    content = bytearray(path.read_bytes())
    place = content.index(network.head.weight.numpy().tobytes())
    content[place + 3] ^= 0x40  # the highest bit of a float's exponent
    path.write_bytes(content)
    assert "is damaged: the sum of its entry flipped/data/" in refused(network, path)
    with pytest.raises(UserError, match="is damaged: the sum"):
        identify(path)


def test_a_file_that_was_saved_without_sums_loads(network, tmp_path):
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this PyTorch always writes sums")
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(network.state_dict(), tmp_path / "plain.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert "loaded" in load_checkpoint(network, path)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "values that are not finite"),
        (float("inf"), "values that are not finite"),
        (-5.8e36, "a value of 5.8e+36"),
    ],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_weight_that_is_not_finite_or_beyond_all_bounds_is_named(network, tmp_path, value, told, ending):
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state["blocks.0.mlp.fc1.linear.weight"][1, 2] = value
    path = tmp_path / f"odd.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    before = network.head.weight.clone()
    assert f"blocks.0.mlp.fc1.linear.weight holds {told}" in refused(network, path)
    assert torch.equal(network.head.weight, before)


@pytest.mark.parametrize("key", [b"head.weight", 7, None, 1.5, (1, 2)], ids=str)
def test_a_weight_whose_key_is_no_text_is_named(network, tmp_path, key):
    state = dict(network.state_dict()) | {key: torch.ones(2)}
    path = saved({"state_dict": state}, tmp_path / "key.pth")
    assert f"the key {key!r} of a weight is no text" in refused(network, path)
    with pytest.raises(UserError, match=r"key\.pth: the key"):
        identify(path)


ODD = {
    "sparse": lambda: torch.eye(5, 16).to_sparse(),
    "sparse in rows": lambda: torch.eye(5, 16).to_sparse_csr(),
    "meta": lambda: torch.empty(5, 16, device="meta"),
    "complex": lambda: torch.ones(5, 16, dtype=torch.complex64),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("kind", ODD)
def test_a_tensor_that_is_no_plain_array_is_named(network, tmp_path, kind):
    state = dict(network.state_dict()) | {"head.weight": ODD[kind]()}
    told = f"head.weight is a {kind.split()[0]} tensor"
    assert told in refused(network, saved({"model": state}, tmp_path / "odd.pth"))
    with pytest.raises(UserError, match=told):
        load_state(network, state)


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_a_quantised_tensor_is_named(network, tmp_path):
    odd = torch.quantize_per_tensor(torch.ones(5, 16), 0.1, 0, torch.qint8)
    path = saved(dict(network.state_dict()) | {"head.weight": odd}, tmp_path / "odd.pth")
    assert "head.weight is a quantised tensor" in refused(network, path)


def test_a_tensor_of_another_shape_is_named_before_its_values_are_looked_at(network, tmp_path):
    huge = torch.zeros(1).as_strided((5, 2**40), (0, 0))
    for odd, shape in ((huge, "(5, 1099511627776)"), (torch.tensor(1.0), "()")):
        path = saved(dict(network.state_dict()) | {"head.weight": odd}, tmp_path / "odd.pth")
        assert f"1 of another shape: head.weight {shape} for (5, 16)" in refused(network, path)
        with pytest.raises(UserError):
            load_checkpoint(network, path, replace_classifier=False)


class _Settings(dict):
    pass


def test_plain_things_that_training_scripts_save_beside_weights_load(network, tmp_path):
    defaults = collections.defaultdict(list)
    defaults["loss"].append(0.5)
    beside = {
        "best_acc": np.float64(0.5), "epoch": np.int32(7), "done": np.bool_(True), "name": np.str_("é"),
        "half": np.float16(2), "complex": np.complex64(1j), "swapped": np.dtype(">f8").type(3),
        "history": defaults, "order": collections.OrderedDict(a=1), "count": collections.Counter("aab"),
        "args": argparse.Namespace(lr=0.1, size=torch.Size([1, 2]), device=torch.device("cpu")),
        "folder": pathlib.PurePosixPath("/a/b"), "drive": pathlib.PureWindowsPath("c:/x"), "here": pathlib.Path("x"),
        "type": torch.float16, "set": {1, 2},
    }  # fmt: skip
    content = read_checkpoint(saved(beside | {"state_dict": network.state_dict()}, tmp_path / "full.pth"))
    found = {name: content[name] for name in ("best_acc", "epoch", "done", "name", "half", "complex", "swapped")}
    plain = {"best_acc": 0.5, "epoch": 7, "done": True, "name": "é", "half": 2.0, "complex": 1j, "swapped": 3.0}
    assert found == plain
    assert [type(value) for value in found.values()] == [type(value) for value in plain.values()]
    assert content["history"] == {"loss": [0.5]}
    assert content["args"] == beside["args"]
    assert str(content["folder"]) == "/a/b"
    assert content["drive"] == pathlib.PureWindowsPath("c:/x")
    assert weights_of(content).keys() == network.state_dict().keys()


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_either_numpy_load(tmp_path, module):
    path = saved({"best": np.float64(0.25), "weight": torch.ones(2)}, tmp_path / "best.pth")

    def renamed(name, content):
        return content.replace(type(np.float64(1)).__reduce__(np.float64(1))[0].__module__.encode(), module.encode())

    assert read_checkpoint(rewritten(path, renamed))["best"] == 0.25


def test_a_numpy_type_takes_nothing_but_its_code_and_its_order_from_a_file(tmp_path):
    path = saved({"best": np.float64(0.25)}, tmp_path / "best.pth")
    pointers = rewritten(path, lambda name, content: content.replace(b"X\x02\x00\x00\x00f8", b"X\x02\x00\x00\x00O8"))
    with pytest.raises(UserError, match=r"best\.pth is damaged.*neither a number nor a text"):
        read_checkpoint(pointers)


@pytest.mark.parametrize(
    "value", [np.zeros(3), np.datetime64("2020-01-01"), _Settings(a=1)], ids=["array", "date", "class"]
)
def test_what_else_a_file_would_load_is_refused(tmp_path, value):
    with pytest.raises(UserError, match=r"else\.pth is (refused: it is no plain data, it would load|damaged)"):
        read_checkpoint(saved({"x": value}, tmp_path / "else.pth"))


def test_a_type_of_python_can_be_named_and_never_called(tmp_path):
    path = saved({"x": collections.defaultdict(int)}, tmp_path / "type.pth")
    assert read_checkpoint(path) == {"x": {}}
    called = rewritten(
        path, lambda name, content: content.replace(b"ccollections\ndefaultdict\n", b"c__builtin__\nint\n")
    )
    with pytest.raises(UserError, match=r"type\.pth is damaged or no checkpoint \(a call of a built-in type\)"):
        read_checkpoint(called)


def test_a_compressed_archive_loads_within_bounds(network, tmp_path):
    path = saved(network.state_dict(), tmp_path / "packed.pth")
    assert "loaded" in load_checkpoint(network, rewritten(path, lambda _, content: content, zipfile.ZIP_DEFLATED))
    bomb = rewritten(
        path,
        lambda name, content: content + bytes(5 * 2**24) if name.endswith("data.pkl") else content,
        zipfile.ZIP_DEFLATED,
    )
    assert bomb.stat().st_size < 2**20
    assert "bytes would become" in refused(network, bomb)


def test_an_archive_whose_entries_share_their_bytes_is_refused(network, tmp_path):
    path = saved({"weight": torch.zeros(2**20)}, tmp_path / "shared.pth")
    with zipfile.ZipFile(path, "a") as archive:
        entry = next(one for one in archive.infolist() if one.filename.endswith("data/0"))
        for number in range(1, 40):
            copy = zipfile.ZipInfo(f"shared/data/{number}")
            for name in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(copy, name, getattr(entry, name))
            archive.filelist.append(copy)
        archive._didModify = True
    assert "bytes would become" in refused(network, path)


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "module.model.", "_orig_mod.net.encoder."])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_the_prefix_of_any_wrapper_is_taken_off_when_all_weights_fit_without_it(network, tmp_path, prefix, ending):
    state = {prefix + name: value.clone() for name, value in network.state_dict().items()}
    state[f"{prefix}head.bias"] += 1
    path = tmp_path / f"wrapped.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save({"state_dict": state}, path)
    target = timm.create_model("spikformer_4_384_cifar", embed_dim=16, depth=1, num_heads=2, img_size=16, num_classes=5)
    told = load_checkpoint(target, path)
    assert torch.equal(target.head.bias, network.head.bias + 1)
    bare = prefix.replace("module.", "").replace("_orig_mod.", "")
    assert f"; without the prefix {bare} from" in told


def test_a_prefix_stays_where_something_would_not_fit(network, tmp_path):
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    for odd in ({"model.extra.weight": torch.ones(1)}, {"loss.weight": torch.ones(1)}):
        assert "unexpected: " in refused(network, saved(state | odd, tmp_path / "odd.pth"))


def test_identify_sees_through_the_prefix_of_a_wrapper(tmp_path, monkeypatch):
    few = {name: REGISTERED[name] for name in ("sdt_digits", "spikformer_digits")}
    monkeypatch.setattr("braincog_transformers.checkpoints.matching.REGISTERED", few)
    state = {f"model.{name}": value for name, value in timm.create_model("spikformer_digits").state_dict().items()}
    assert str(identify(saved({"state_dict": state}, tmp_path / "wrapped.pth"))[0]) == "fits spikformer_digits"


@pytest.mark.parametrize(
    "around",
    [
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"checkpoint": {"model": state}, "epoch": 3},
        lambda state: {"weights_of_today": state, "optimizer": {"exp": torch.ones(2)}, "lr": 0.1},
        lambda state: {"state_dict": {}, "net": state},
    ],
    ids=["twice", "checkpoint", "another name", "empty one first"],
)
def test_weights_are_found_within_what_lies_around_them(network, tmp_path, around):
    path = saved(around(network.state_dict()), tmp_path / "nested.pth")
    assert weights_of(read_checkpoint(path)).keys() == network.state_dict().keys()


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {}}, {"a": {"b": {"c": {"d": {"e": {}}}}}}])
def test_a_file_without_weights_is_told_with_its_keys(network, tmp_path, content):
    assert "no weights found: the keys are" in refused(network, saved(content, tmp_path / "none.pth"))


def test_other_averages_are_found_where_scripts_put_them(network, tmp_path):
    average = {f"module.{name}": value * 0 for name, value in network.state_dict().items()}
    average["n_averaged"] = torch.tensor(3)
    content = {"model": network.state_dict(), "model_ema": average}
    path = saved(content, tmp_path / "official.pth")
    found = {ema: weights_of(read_checkpoint(path), ema)["head.weight"] for ema in (None, True, False)}
    assert not found[None].any()
    assert not found[True].any()
    assert torch.equal(found[False], network.head.weight)
    bare = saved(network.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(UserError, match=r"bare\.pth: no moving average found"):
        load_checkpoint(network, bare, ema=True)
    only = saved({"model_ema": average}, tmp_path / "only.pth")
    with pytest.raises(UserError, match=r"only\.pth: no weights found"):
        load_checkpoint(network, only, ema=False)


def test_two_names_for_one_weight_are_refused(network, tmp_path):
    state = dict(network.state_dict())
    twice = saved(state | {"module.head.bias": torch.ones(5)}, tmp_path / "twice.pth")
    assert "head.bias is there twice" in refused(network, twice)
    both = saved(state | {"block.0.mlp.fc1_linear.bias": torch.ones(64)}, tmp_path / "both.pth")
    refused(network, both)


def _as_spikingjelly(state):
    """Name our Spike-driven Transformer's weights as SpikingJelly does, whose stem has biases."""
    renamed = {}
    for name, value in state.items():
        if name.endswith(("threshold", "alpha", "_extra_state")):
            continue
        parts = name.split(".")
        if parts[:2] == ["patch_embed", "stages"]:
            stage = "final_stage" if parts[2] == "3" else f"stages.{parts[2]}"
            name = ".".join(["patch_embed", stage, {"conv": "0", "bn": "1"}[parts[3]], *parts[4:]])
        elif parts[:2] == ["patch_embed", "rpe"]:
            name = f"patch_embed.rpe_{'.'.join(parts[2:])}"
        elif parts[2:3] == ["attn"]:
            kind = {"linear": "conv", "bn": "bn"}[parts[4]]
            name = ".".join([*parts[:3], f"{parts[3]}_{kind}", *parts[5:]])
        elif parts[2:3] == ["mlp"]:
            kind = {"linear": parts[3], "bn": f"bn{parts[3][-1]}"}[parts[4]]
            name = ".".join([*parts[:3], kind, *parts[5:]])
        if parts[-2] == "linear" and parts[-1] == "weight":
            value = value[..., None, None]
        renamed[name] = value.clone()
    for stage in ("stages.0", "stages.1", "stages.2", "final_stage"):
        mean = renamed[f"patch_embed.{stage}.1.running_mean"]
        renamed[f"patch_embed.{stage}.0.bias"] = torch.arange(len(mean)).to(mean) / 8
        mean += torch.arange(len(mean)).to(mean) / 8
    return renamed


def test_spikingjellys_spike_driven_transformer_is_the_same_network():
    def build():
        return timm.create_model("sdt_8_384", embed_dim=16, depth=2, num_heads=2, img_size=32, num_classes=5, step=2)

    source, target = (build().double().eval() for _ in range(2))
    for module in source.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.5, 0.5)
            torch.nn.init.uniform_(module.weight, 1.0, 3.0)
            torch.nn.init.uniform_(module.bias, 0.0, 1.0)
        elif getattr(module, "weight", None) is not None:
            torch.nn.init.kaiming_normal_(module.weight)
    renamed = _as_spikingjelly(source.state_dict())
    assert not {name for name in renamed if "linear" in name or name in target.state_dict()} - {
        "head.weight",
        "head.bias",
    }
    load_state(target, renamed)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        wanted, found = source(x), target(x)
    assert wanted.std(0).any()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("patch_embed.stages.0.conv_bn.block.0.weight", "head.weight"), "SpikingJelly's Spikformer, another network"),
        (
            ("patch_embed1.conv1.weight", "stage1.0.attn.qk_conv_bn.0.weight"),
            "SpikingJelly's QKFormer, another network",
        ),
        (
            ("patch_embed1.conv1.weight", "stage1.0.dwconv.weight"),
            "SpikingJelly's MaxFormer, of which this package has",
        ),
    ],
    ids=["Spikformer", "QKFormer", "MaxFormer"],
)
def test_other_networks_of_spikingjelly_say_what_they_are(network, tmp_path, names, told):
    path = saved({name: torch.ones(2, 2) for name in names}, tmp_path / "jelly.pth")
    assert told in refused(network, path)
    with pytest.raises(UserError, match=told):
        identify(path)


def test_paths_that_are_no_files_are_told_in_one_line(network, tmp_path):
    for path, told in ((tmp_path, "it is a folder"), (tmp_path / ("x" * 300), "File name too long"), ("a\0b", "")):
        with pytest.raises(UserError, match="does not exist") as caught:
            read_checkpoint(path)
        assert told in str(caught.value)
        assert len(str(caught.value)) < 700


def test_a_bare_tensor_or_a_list_is_told(tmp_path):
    for content, kind in ((torch.ones(2), "Tensor"), ([torch.ones(2)], "list")):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        (tmp_path / "bare.pth").write_bytes(buffer.getvalue())
        with pytest.raises(UserError, match=f"holds a {kind}, not a dictionary of weights"):
            read_checkpoint(tmp_path / "bare.pth")
