"""What timm's clients do with a network: timm's own checks of every model, and the options of its factory."""

import copy

import pytest
import timm
import torch
from families import DISTINCT, EXAMPLES, batch, tiny, wake
from timm.models import get_notrace_functions, get_notrace_modules
from timm.utils import reparameterize_model
from torchvision.models.feature_extraction import create_feature_extractor

from braincog_transformers import UserError
from braincog_transformers.checkpoints import load_state

KINDS = [*EXAMPLES, "sglformer_8_384", "tim_2_256_shd"]
"""One network of each class and kind of input."""


@pytest.fixture(params=DISTINCT)
def model(request):
    return wake(tiny(request.param))


def test_new_head_and_no_head(model):
    x = batch(model)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    assert model.get_classifier().out_features == model.num_classes == 3
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)
    with pytest.raises(UserError, match="global_pool"):
        model.reset_classifier(3, "max")


def test_intermediates(model):
    model.eval()
    x = batch(model)
    means = model.forward_intermediates(x, intermediates_only=True)
    model.feature_steps = True
    final, maps = model.forward_intermediates(x)
    assert torch.equal(final, model.forward_features(x))
    for mean, by_step in zip(means, maps, strict=True):
        assert torch.equal(mean, by_step.unflatten(0, (model.unit_steps, -1)).mean(0))
    assert len(maps) == len(model.feature_info) == len(getattr(model, model.units))
    assert torch.equal(maps[-1], final if final.dim() == 4 else final.transpose(1, 2).reshape(maps[-1].shape))
    for info, features in zip(model.feature_info, maps, strict=True):
        sides = (side // info["reduction"] for side in model.img_size)
        if model.img_size[0] == 1:  # a sequence, which the stem folds into frames of its own size
            sides = model.patch_embed.grid_size
        assert features.shape == (2 * model.unit_steps, info["num_chs"], *sides)
        assert model.get_submodule(info["module"])
    tokens = model.forward_intermediates(x, indices=[0], output_fmt="NLC", stop_early=True, intermediates_only=True)
    assert torch.equal(tokens[0].transpose(1, 2).reshape(maps[0].shape), maps[0])
    assert model.prune_intermediate_layers([0]) == [0]
    assert len(getattr(model, model.units)) == 1
    assert model(x).shape == (2, model.feature_info[0]["num_chs"])


def test_features_only_wraps_the_network():
    features = tiny("spikformer_4_384_cifar", features_only=True, out_indices=(0, 1))
    image = torch.rand(2, 3, 16, 16)
    assert [m.shape for m in features(image)] == [(2, 16, 4, 4)] * 2
    assert features.feature_info.channels() == [16, 16]
    by_step = tiny("spikformer_4_384_cifar", features_only=True, out_indices=(0, 1), feature_steps=True)
    assert [m.shape for m in by_step(image)] == [(4, 16, 4, 4)] * 2


def test_parameter_groups_for_timms_optimizers(model):
    from timm.optim import create_optimizer_v2

    optimizer = create_optimizer_v2(model, opt="adamw", weight_decay=0.05, layer_decay=0.75)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] > 0 for p in group["params"]}
    assert all(p.dim() > 1 for p in model.parameters() if id(p) in decayed)
    assert len({group["lr_scale"] for group in optimizer.param_groups}) == len(getattr(model, model.units)) + 2


@pytest.mark.parametrize("name", DISTINCT)
def test_pooled_unpooled_and_headless_forms_are_as_large_as_timm_expects(name):
    model = wake(tiny(name)).eval()
    x = batch(model, 1)
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    assert features.shape[2 if model.has_tokens else 1] == model.num_features
    assert pooled.shape == (1, model.head_hidden_size)
    with torch.no_grad():
        expected = model(x)
        model.set_grad_checkpointing()
    torch.testing.assert_close(model(x), expected)
    model.reset_classifier(0)
    assert torch.equal(model(x), pooled)
    model.reset_classifier(0, "")
    unpooled = model(x)
    assert unpooled.shape == (1, *features.shape[1:])
    built = tiny(name, num_classes=0, global_pool="").eval()
    built.load_state_dict(model.state_dict())
    assert torch.equal(built(x), unpooled)
    if not hasattr(model, "pool") and not list(model.head_node.parameters()):  # nothing but a mean follows
        torch.testing.assert_close(unpooled.mean(1 if model.has_tokens else (2, 3)), pooled)


def test_every_token_has_logits_without_pooling_and_maps_have_none():
    tokens = wake(tiny("spikformer_4_384_cifar", global_pool="")).eval()
    x = batch(tokens)
    logits = tokens(x)
    assert logits.shape == (2, 16, 5)
    tokens.reset_classifier(5, "avg")
    assert tokens(x).shape == (2, 5)
    for build in (
        lambda: tiny("qkformer_4_384_cifar", global_pool=""),
        lambda: tiny("sdt_v2_15m").reset_classifier(3, ""),
    ):
        with pytest.raises(UserError, match=r"leaves maps, which its classifier can't read.*num_classes=0"):
            build()
    with pytest.raises(UserError, match="global_pool must be 'avg' or ''; got 'max'"):
        tiny("spikformer_4_384_cifar", global_pool="max")


@pytest.mark.parametrize("name", DISTINCT)
def test_features_only_works_by_default_with_samples_in_front(name):
    features = tiny(name, features_only=True).eval()
    info, x = features.feature_info, batch(features.model, 1)
    maps = features(x)
    assert len(maps) == len(info.channels()) == len(info.reduction())
    for width, reduction, found in zip(info.channels(), info.reduction(), maps, strict=True):
        assert found.shape[:2] == (1, width)
        if features.model.img_size[0] > 1:  # a sequence is folded into frames of its own size
            assert found.shape[2:] == tuple(side // reduction for side in features.model.img_size)


def test_features_by_default_are_all_stages_or_the_last_three_blocks():
    assert tiny("sdt_v2_15m", features_only=True).out_indices == [0, 1, 2, 3]
    assert tiny("spikformer_8_384", depth=5, features_only=True).out_indices == [2, 3, 4]
    assert tiny("spikformer_8_384", features_only=True).out_indices == [0, 1]
    assert tiny("spikformer_8_384", features_only=True, out_indices=(-1,)).out_indices == [1]


@pytest.mark.parametrize("indices", [(0, 2), 3, -1, ()])
def test_features_that_are_not_there_are_refused_with_those_that_are(indices):
    with pytest.raises(UserError, match=r"come from blocks 0 to 1, or the last 1 to 2.* got"):
        tiny("spikformer_8_384", features_only=True, out_indices=indices)
    with pytest.raises(UserError, match="come from blocks 0 to 1"):
        tiny("spikformer_8_384").forward_intermediates(torch.rand(1, 3, 16, 16), indices=indices)


def test_a_classifier_that_reads_another_width_does_not_stay():
    model = tiny("sdt_v2_15m")
    with pytest.raises(UserError, match=r"its classifier reads \d+ channels, stages.0 gives \d+; prune_head=True"):
        model.prune_intermediate_layers([0], prune_head=False)
    assert len(model.stages) == 4
    assert model.prune_intermediate_layers([3], prune_head=False) == [3]
    assert model(batch(model)).shape == (2, 5)


@pytest.mark.parametrize("feature_cls", ["hook", "list", "dict", "fx"])
def test_feature_classes_that_would_give_steps_for_samples_are_refused(feature_cls):
    with pytest.raises(UserError, match="feature_cls must be 'getter'"):
        tiny("spikformer_8_384", features_only=True, feature_cls=feature_cls)


def test_features_keep_spikes_as_bits_and_recompute_blocks_when_asked(monkeypatch):
    model = wake(tiny("spikformer_4_384_cifar"))
    x = batch(model)
    plain = torch.autograd.grad(
        sum(m.sum() for m in model.forward_intermediates(x)[1]), model.blocks[0].attn.q.linear.weight
    )
    seen = []
    monkeypatch.setattr(
        "braincog_transformers.models.base.checkpoint_module", lambda unit, x: seen.append(unit) or unit(x)
    )
    monkeypatch.setattr(
        "braincog_transformers.models.base.packed_spikes", lambda: seen.append("packed") or torch.enable_grad()
    )
    model.set_grad_checkpointing()
    again = torch.autograd.grad(
        sum(m.sum() for m in model.forward_intermediates(x)[1]), model.blocks[0].attn.q.linear.weight
    )
    assert seen == ["packed", *model.blocks]
    torch.testing.assert_close(again, plain)


@pytest.mark.parametrize("name", KINDS)
def test_one_graph_of_torch_fx_takes_images_and_frames(name):
    model = wake(tiny(name)).eval()
    tracer = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
    last = f"{model.units}.{len(getattr(model, model.units)) - 1}"
    graph = create_feature_extractor(model, ["head", last], tracer_kwargs=tracer)
    images = [] if model.img_size[0] == 1 else [batch(model, events=False)]
    for x in (*images, batch(model, events=True)):
        with torch.no_grad():
            found = graph(x)
            torch.testing.assert_close(found["head"], model(x))
            torch.testing.assert_close(found[last], model.forward_features(x))
    with pytest.raises(ValueError, match="input must be"):
        graph(torch.zeros(2, 7, 8, 8))
    assert {n for n, _ in graph.named_parameters()} == {n for n, _ in model.named_parameters()}


def test_what_torch_fx_can_not_trace_is_refused_with_the_switch():
    model = tiny("spikformer_4_384_cifar")
    model.set_attr("layer_by_layer", False)
    with pytest.raises(UserError, match=r"torch.fx can't trace.*'layer_by_layer', True"):
        create_feature_extractor(model, ["head"], tracer_kwargs={"leaf_modules": get_notrace_modules()})


def test_torchscript_is_refused_with_what_works():
    with pytest.raises(UserError, match=r"can't be compiled by torch.jit.script.* torch.export"):
        torch.jit.script(tiny("spikformer_4_384_cifar"))


# The size of the input


@pytest.mark.parametrize("name", DISTINCT)
def test_another_input_size_gives_the_network_that_is_built_with_it(name):
    model = wake(tiny(name, step=1))
    side = 2 * model.img_size[0]
    size = (side, 2 * side)
    if name.startswith(("sglformer_digits", "sglformer_4", "sglformer_3", "stsa", "tim_ndigits", "tim_2_256_shd")):
        with pytest.raises(UserError, match=r"img_size stays|as many tokens|a sequence must have"):
            model.set_input_size(img_size=size)
        model.set_input_size(img_size=model.img_size)
        assert model(batch(model)).shape == (2, 5)
        return
    model.set_input_size(img_size=size)
    built = tiny(name, img_size=size, step=1)
    load_state(built, model.state_dict())
    assert model.img_size == size
    assert model.feature_info == built.feature_info
    x = batch(built, 1)
    assert torch.equal(model.eval()(x), built.eval()(x))


def test_input_sizes_that_do_not_fit_change_nothing():
    model = tiny("spikformer_4_384_cifar")
    with pytest.raises(UserError, match=r"multiple of 4; got \(18, 18\)"):
        model.set_input_size(18)
    with pytest.raises(UserError, match="patch_size stays 4, as built; got patch_size=8"):
        model.set_input_size(32, patch_size=8)
    with pytest.raises(UserError, match="convolutions make the patches"):
        tiny("sdt_v2_15m").set_input_size(patch_size=4)
    assert (model.img_size, model.patch_embed.grid_size) == ((16, 16), (4, 4))
    model.set_input_size(patch_size=(4, 4))
    assert model(batch(model)).shape == (2, 5)


@pytest.mark.parametrize("name", ["sdt_v2_15m", "spikformer_4_384_cifar"])
@pytest.mark.parametrize("size", [(0, 0), -32, 48.0, "32", (32,), (32, 32, 32)])
def test_sizes_that_are_none_are_refused(name, size):
    for build in (lambda: tiny(name, img_size=size), lambda: tiny(name).set_input_size(size)):
        with pytest.raises(UserError, match=r"img_size must be (at least 1|a whole number or 2 values)"):
            build()


# Arguments and inputs that no network has


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"step": 2.0}, "step must be a whole number; got 2.0"),
        ({"step": "4"}, "step must be a whole number; got '4'"),
        ({"num_classes": -1}, "num_classes must be at least 0; got -1"),
        ({"threshold": float("nan")}, "threshold must be a finite number; got nan"),
        ({"alpha": float("inf")}, "alpha must be a finite number; got inf"),
    ],
)
def test_arguments_that_no_network_has_are_refused(kwargs, message):
    with pytest.raises(UserError, match=message):
        tiny("spikformer_4_384_cifar", **kwargs)


def test_a_rate_of_dropped_paths_is_a_probability():
    for rate, rule in ((1.5, "at most 1"), (-0.1, "at least 0"), (float("nan"), "a finite number")):
        with pytest.raises(ValueError, match=f"Spikformer: drop_path_rate must be {rule}; got {rate}$"):
            tiny("spikformer_4_384_cifar", drop_path_rate=rate)


@pytest.mark.parametrize("name", ["spikformer_4_384_cifar", "tim_2_256_shd"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_inputs_of_whole_numbers_are_refused_with_what_to_do(name, dtype):
    model = tiny(name)
    with pytest.raises(ValueError, match=r"input must be floating point.* got torch.*\(x.float\(\)\)"):
        model(batch(model).to(dtype))


# Other calls of timm's tools


@pytest.mark.parametrize("name", KINDS)
def test_timms_tools_leave_the_logits_as_they_are(name):
    model = wake(tiny(name))
    x = batch(model)
    model(x)
    expected = model.eval()(x)
    torch.testing.assert_close(reparameterize_model(model)(x), expected)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x), expected)
    for dtype in (torch.float16, torch.bfloat16):
        logits = copy.deepcopy(model).to(dtype)(x.to(dtype))
        assert logits.dtype == dtype
        assert torch.isfinite(logits).all()


def test_the_factorys_options_do_what_they_do_in_timm(tmp_path):
    model = tiny("sdt_2_256_dvs", as_released=True)
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    loaded = tiny("sdt_2_256_dvs", checkpoint_path=str(path), exportable=True, scriptable=True, drop_rate=0.5)
    assert loaded.as_released
    assert loaded.head_drop.p == 0.5
    x = batch(model)
    assert torch.equal(loaded.eval()(x), model.eval()(x))
    assert timm.create_model("spikformer_digits", pretrained_cfg_overlay={"num_classes": 7}).num_classes == 7
    with pytest.raises(TypeError, match="unexpected argument output_stride"):
        tiny("sdt_v2_15m", features_only=True, output_stride=8)
