"""Reading checkpoint files safely and loading them, whole or not at all."""

import argparse
import logging
import os

import pytest
import timm
import torch
from safetensors.torch import save_file

from braincog_transformers import UserError
from braincog_transformers.checkpoints import load_checkpoint, load_state, read_checkpoint, weights_of
from braincog_transformers.models import Spikformer


def small(**kwargs):
    return timm.create_model(
        "spikformer_4_384_cifar",
        **{"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 16, "num_classes": 5, **kwargs},
    )


def official(model):
    """Name and shape a network's weights as the official ImageNet class does, dead keys included."""
    renamed = {}
    for name, value in model.state_dict().items():
        if name.endswith(("threshold", "alpha")):
            continue
        for ours, theirs in [
            ("patch_embed.stages.0.", "patch_embed.proj_{}."),
            ("patch_embed.rpe.", "patch_embed.rpe_{}."),
            *[(f"patch_embed.stages.{i}.", f"patch_embed.proj_{{}}{i}.") for i in (1, 2, 3)],
        ]:
            if name.startswith(ours):
                kind, rest = name.removeprefix(ours).split(".", 1)
                name = theirs.format(kind) + rest
        for part in ("q", "k", "v", "proj", "fc1", "fc2"):
            name = name.replace(f".{part}.linear.", f".{part}_conv.").replace(f".{part}.bn.", f".{part}_bn.")
        if name.endswith("_conv.weight") and value.dim() == 2:
            value = value[..., None, None] if ".mlp." in name else value[..., None]
        renamed[name.replace("blocks.", "block.")] = value.clone()
    return {
        **renamed,
        "block.0.norm1.weight": torch.rand(16),
        "norm.bias": torch.rand(16),
        "pos_embed": torch.rand(1, 4, 16),
    }


@pytest.mark.parametrize("container", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_official_files_load_bare_or_from_a_scripts_dictionary(tmp_path, container, prefix):
    source, target = small(), small()
    torch.nn.init.normal_(source.head.bias)
    state = {prefix + name: value for name, value in official(source).items()}
    content = {container: state, "epoch": 3, "args": argparse.Namespace(lr=0.1)} if container else state
    torch.save(content, tmp_path / "official.pth")
    load_checkpoint(target, tmp_path / "official.pth")
    for (name, a), b in zip(source.state_dict().items(), target.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_own_files_load_as_safetensors_too_and_thresholds_with_them(tmp_path):
    source, target = small(threshold=0.7), small()
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    load_checkpoint(target, tmp_path / "own.safetensors")
    assert target.blocks[0].mlp.fc1.node.threshold.item() == pytest.approx(0.7)


def test_the_average_is_read_as_timm_reads_it_and_the_weights_themselves_on_demand(tmp_path):
    source, target = small(), small()
    average = {name: torch.zeros_like(value) for name, value in source.state_dict().items()}
    torch.save({"state_dict": source.state_dict(), "state_dict_ema": average}, tmp_path / "run.pth.tar")
    for ema in (True, None):
        target = small()
        told = load_checkpoint(target, tmp_path / "run.pth.tar", ema=ema)
        assert target.head.weight.abs().sum() == 0
        assert "run.pth.tar: the moving average (state_dict_ema; --no-use-ema for the weights themselves)" in told
    by_timm = timm.create_model(
        "spikformer_4_384_cifar", embed_dim=16, depth=1, num_heads=2, img_size=16, num_classes=5,
        checkpoint_path=str(tmp_path / "run.pth.tar"),
    )  # fmt: skip
    assert by_timm.head.weight.abs().sum() == 0
    told = load_checkpoint(target, tmp_path / "run.pth.tar", ema=False)
    assert target.head.weight.abs().sum() > 0
    assert told.endswith("the weights themselves (state_dict), not their moving average")


def test_misfits_are_named_key_by_key_and_nothing_is_loaded(tmp_path):
    target = small()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state = official(small())
    del state["block.0.attn.q_bn.bias"]
    state["block.0.attn.extra.weight"] = torch.zeros(1)
    state["head.weight"] = torch.zeros(7, 16)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(UserError) as caught:
        load_checkpoint(target, tmp_path / "odd.pth")
    message = str(caught.value)
    assert "odd.pth" in message
    assert "1 missing: blocks.0.attn.q.bn.bias" in message
    assert "1 unexpected: blocks.0.attn.extra.weight" in message
    assert "head.weight (7, 16) for (5, 16)" in message
    assert "\n" not in message
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())


def test_classifier_of_another_size_is_replaced_when_asked(tmp_path):
    target = small()
    own = target.head.weight.clone()
    torch.save(small(num_classes=7).state_dict(), tmp_path / "seven.pth")
    assert "new classifier for 5 classes, not 7" in load_checkpoint(
        target, tmp_path / "seven.pth", replace_classifier=True
    )
    assert torch.equal(target.head.weight, own)


def test_a_network_without_classifier_takes_the_features_alone(tmp_path):
    source, target = small(num_classes=7), small(num_classes=0)
    torch.save(source.state_dict(), tmp_path / "seven.pth")
    with pytest.raises(UserError, match=r"2 unexpected: head\.bias, head\.weight"):
        load_checkpoint(target, tmp_path / "seven.pth")
    assert "without its 7 classes" in load_checkpoint(target, tmp_path / "seven.pth", replace_classifier=True)
    assert torch.equal(target.blocks[0].attn.q.linear.weight, source.blocks[0].attn.q.linear.weight)


class _Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Attack()}, "evil.pth")
    with pytest.raises(UserError, match=r"evil.pth is refused.*system"):
        read_checkpoint("evil.pth")
    assert not os.path.exists("attacked")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.pth", None, "does not exist"),
        ("text.pth", b"not a checkpoint at all", "refused|damaged"),
        ("empty.pth", b"", "damaged"),
        ("cut.safetensors", b"\x10\x00", "damaged"),
        ("zip.pth", b"PK\x03\x04 cut off", "damaged"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_checkpoint(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_file_is_named(tmp_path):
    path = tmp_path / "cut.pth"
    torch.save(small().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"cut.pth is damaged"):
        read_checkpoint(path)


def test_a_file_without_weights_is_told(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(UserError, match="no weights found: the keys are epoch"):
        load_checkpoint(small(), tmp_path / "none.pth")


def test_dead_keys_are_logged_with_their_reason(tmp_path, caplog):
    torch.save(official(small()), tmp_path / "official.pth")
    with caplog.at_level(logging.DEBUG):
        load_checkpoint(small(), tmp_path / "official.pth")
    assert "pos_embed: position table that is never added" in caplog.text


@pytest.mark.parametrize(
    ("official_name", "ours"),
    [
        ("patch_embed.proj_conv.weight", "patch_embed.stages.0.conv.weight"),
        ("patch_embed.proj_bn3.running_var", "patch_embed.stages.3.bn.running_var"),
        ("patch_embed.block1_conv.weight", "patch_embed.stages.0.conv.weight"),
        ("patch_embed.block4_bn.bias", "patch_embed.stages.3.bn.bias"),
        ("patch_embed.rpe_conv.weight", "patch_embed.rpe.conv.weight"),
        ("block.7.attn.proj_linear.bias", "blocks.7.attn.proj.linear.bias"),
        ("block.0.mlp.fc2_bn.num_batches_tracked", "blocks.0.mlp.fc2.bn.num_batches_tracked"),
        ("block.3.norm2.weight", None),
        ("head.bias", "head.bias"),
    ],
)
def test_names(official_name, ours):
    assert Spikformer.official_names.translate(official_name) == ours


@pytest.fixture(scope="module")
def digits():
    return timm.create_model("spikformer_digits", embed_dim=16, depth=1, num_heads=2, step=1)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int64, torch.bool], ids=str)
def test_weights_that_were_cast_to_whole_numbers_are_named(digits, kind):
    state = {
        name: value.to(kind) if value.is_floating_point() else value for name, value in digits.state_dict().items()
    }
    with pytest.raises(UserError, match=r"cast to whole numbers: blocks\.0"):
        load_state(digits, state)


def test_a_variance_below_0_is_named(digits):
    name = "patch_embed.stages.0.bn.running_var"
    with pytest.raises(UserError, match=f"{name} holds a variance below 0"):
        load_state(digits, {**digits.state_dict(), name: -digits.state_dict()[name]})


@pytest.mark.parametrize("around", ["_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod."])
def test_what_wraps_a_part_of_a_network_is_taken_off_its_names(digits, around):
    state = digits.state_dict()
    wrapped = {f"module.{around}" + name.replace("blocks.0.", f"blocks.0.{around}"): state[name] for name in state}
    assert weights_of({"state_dict": wrapped}).keys() == state.keys()


@pytest.mark.parametrize("name", ["ema", "ema_state_dict", "swa_state_dict"])
def test_an_average_under_another_name_is_told_and_read_on_demand(name, tmp_path):
    model, path = small(), tmp_path / "both.pth"
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, name: state | {"head.bias": state["head.bias"] + 1}}, path)
    assert "the weights themselves (state_dict), not their moving average" in load_checkpoint(model, path)
    assert f"the moving average ({name};" in load_checkpoint(model, path, ema=True)
    assert torch.equal(model.head.bias, state["head.bias"] + 1)
    torch.save({name: state}, path)
    assert f"the weights in {name}" in load_checkpoint(model, path)
