"""What a conversion starts from: names, sizes, files under other names, and how the data are seen."""

import pytest
import timm
import torch
from cli_runs import VIT, vit

from braincog_transformers.cli import resolve
from braincog_transformers.data.registry import lookup
from braincog_transformers.errors import UserError
from braincog_transformers.training.distributed import Ranks
from braincog_transformers.training.method import method_of
from braincog_transformers.training.source import build_start, find_source, source_shape

SIZES = VIT[3:]


def options(*more, method="rate", dataset="digits", model=VIT):
    return resolve(["--convert", method, "--dataset", dataset, *model, *more])


def started(*more, **kwargs):
    """Return the start of a conversion, and what was said."""
    chosen, lines = options(*more, **kwargs), []
    shape = source_shape(chosen)
    start = build_start(chosen, shape, Ranks(torch.device("cpu")), say=lines.append, classes=lookup("digits").classes)
    return start, "\n".join(lines)


@pytest.fixture
def file(tmp_path):
    def write(content, name="weights.pth"):
        torch.save(content, tmp_path / name)
        return ["--initial-checkpoint", str(tmp_path / name)]

    return write


def test_timms_own_network_is_meant_where_braincog_has_the_name():
    build, _ = find_source("resnet18", "rate")
    assert build.__module__ == "timm.models.resnet"


@pytest.mark.parametrize(
    ("argv", "size"),
    [
        ([], (8, 8)),
        (["--img-size", "16"], (16, 16)),
        (["--dataset", "imnet", "--model", "vit_base_patch16_384", "--model-kwargs", "depth=1"], (384, 384)),
        (["--dataset", "imnet", "--img-size", "32"], (32, 32)),
    ],
)
def test_photos_have_the_networks_size_and_others_their_own(argv, size):
    assert source_shape(options("--initial-checkpoint", "x", *argv)).size == size


@pytest.mark.parametrize(
    ("method", "given", "steps"),
    [
        ("rate", [], 32), ("spikezip", [], 64), ("spikezip", ["--convert-kwargs", "levels=8"], 16),
        ("sta", ["--step", "5"], 5),
    ],
)  # fmt: skip
def test_t_is_enough_to_drain_where_it_is_left_out(method, given, steps):
    assert source_shape(options("--initial-checkpoint", "x", *given, method=method)).step == steps


def test_a_file_may_hold_its_weights_in_a_dictionary_behind_a_prefix(file):
    network = vit()
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    start, said = started(*file({"model": state, "epoch": 3}))
    assert said.startswith("loaded 20 tensors into VisionTransformer from ")
    assert start.trained
    assert start.limit is None
    assert torch.equal(start.network.head.weight, network.head.weight)


def test_tables_of_positions_are_resampled_for_another_size(file):
    start, _ = started(*file(vit().state_dict()), "--img-size", "16")
    assert start.network.pos_embed.shape == (1, 17, 16)


def test_official_names_of_clip_are_translated(file):
    model = ["--model", "vit_base_patch32_clip_224", "--model-kwargs", *SIZES[:4]]
    chosen = options("--initial-checkpoint", "x", model=model, method="sta")
    kwargs = dict(patch_size=4, embed_dim=16, depth=1, num_heads=2, img_size=8, in_chans=1, num_classes=10)
    state, official = timm.create_model("vit_base_patch32_clip_224", **kwargs).state_dict(), {}
    names = (
        ("blocks.", "transformer.resblocks."), ("patch_embed.proj.", "conv1."), ("norm_pre.", "ln_pre."),
        ("norm1.", "ln_1."), ("norm2.", "ln_2."), ("mlp.fc1.", "mlp.c_fc."), ("mlp.fc2.", "mlp.c_proj."),
        ("attn.qkv.", "attn.in_proj_"), ("attn.proj.", "attn.out_proj."), ("pos_embed", "positional_embedding"),
    )  # fmt: skip
    for name, value in state.items():
        if name.startswith("head."):
            continue
        value = value[0] if name == "pos_embed" else value.flatten() if name == "cls_token" else value
        name = name.replace("norm.", "ln_post.") if name.startswith("norm.") else name
        name = name.replace("cls_token", "class_embedding")
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        official[f"visual.{name}"] = value
    official["visual.proj"] = state["head.weight"].T.clone()
    start, said = started(*file(official), model=model, method="sta")
    assert source_shape(chosen).num_classes == 10
    assert "loaded" in said
    assert torch.equal(start.network.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    assert torch.equal(start.network.head.weight, state["head.weight"])


def test_another_number_of_classes_gets_a_new_classifier_only_where_it_is_trained(file):
    state = vit().state_dict()
    state["head.weight"], state["head.bias"] = torch.zeros(7, 16), torch.zeros(7)
    given = file(state)
    start, said = started(*given, method="qcfs")
    assert "; new classifier for 10 classes" in said
    assert start.network.head.weight.any()
    for method, more in (("rate", []), ("qcfs", ["--calibrate-only"])):
        with pytest.raises(UserError, match=r"2 of another shape: head.bias \(7,\) for \(10,\)"):
            started(*given, *more, method=method)


def test_classes_in_another_order_are_refused_unless_they_are_trained(file):
    names = lookup("digits").classes
    content = {
        "state_dict": vit().state_dict(),
        "classes": names[::-1],
        "options": {"dataset": "digits", "dataset_source": ""},
    }
    given = file(content)
    with pytest.raises(UserError, match="the same classes in another order"):
        started(*given)
    assert "in another order" in started(*given, method="qcfs")[1]


def test_weights_that_are_not_finite_are_refused(file):
    state = vit().state_dict()
    state["head.bias"][3] = float("nan")
    with pytest.raises(UserError, match=r"weights\.pth: head\.bias holds values that are not finite"):
        started(*file(state))


def test_how_published_weights_see_photos_is_said_where_this_run_differs(file):
    kwargs = dict(patch_size=56, embed_dim=16, depth=1, num_heads=2, act_layer="relu")
    state = timm.create_model("vit_tiny_patch16_224", **kwargs).state_dict()
    model = ["--model", "vit_tiny_patch16_224", "--model-kwargs", "patch_size=56", *SIZES[1:]]
    given = file(state)
    said = started(*given, model=model, dataset="imnet")[1]
    assert said.splitlines()[-1] == (
        "the published weights of vit_tiny_patch16_224 are for --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5 --crop-pct 0.9"
    )
    told = ["--mean", "0.5", "0.5", "0.5", "--std", "0.5", "0.5", "0.5", "--crop-pct", "0.9"]
    assert "are for" not in started(*given, *told, model=model, dataset="imnet")[1]


@pytest.mark.parametrize(
    ("method", "given", "expected"),
    [
        ("qcfs", ["levels=8", "percentile=1"], {"levels": 8, "percentile": 1}),
        ("sta", ["blocks=[0,1]", "threshold=0.99"], {"blocks": (0, 1), "threshold": 0.99}),
        ("sta", ["clamp=None", "shift=first"], {"clamp": None, "shift": "first"}),
        ("rate", ["calls={'act': 2}"], {"calls": {"act": 2}}),
    ],
)
def test_options_of_a_method_have_their_types(method, given, expected):
    chosen = options("--initial-checkpoint", "x", "--convert-kwargs", *given, method=method)
    assert method_of(chosen)[1] == expected


@pytest.mark.parametrize(
    ("method", "given", "got"),
    [
        ("qcfs", "levels=8.0", "8.0"), ("qcfs", "levels=True", "True"), ("spikezip", "relu=1", "1"),
        ("sta", "blocks=3", "3"), ("sta", "threshold=most", "'most'"), ("rate", "calls=3", "3"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named(method, given, got):
    name = given.partition("=")[0]
    with pytest.raises(UserError, match=rf"^--convert-kwargs {name}: {method} takes .*; got {got}$"):
        method_of(options("--initial-checkpoint", "x", "--convert-kwargs", given, method=method))
