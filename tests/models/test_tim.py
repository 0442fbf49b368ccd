"""What the vectors can't show of TIM: sizes, sounds, released thresholds, state."""

import copy
import threading

import pytest
import timm
import torch
from families.tim import TINY
from test_fidelity import Vector
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from braincog_transformers import UserError
from braincog_transformers.analysis.recorder import record
from braincog_transformers.checkpoints import load_state
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.models.tim import TemporalInteraction, cochlear_frames


def tiny(name="tim_ndigits", **kwargs):
    torch.manual_seed(0)
    model = timm.create_model(name, **{**TINY, **kwargs})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias, 1.0, 0.7)
    return model


def neuron(threshold):
    return NodeOptions(threshold=threshold).constructor(step=4)


def interaction(alpha, bias):
    module = TemporalInteraction(4, alpha, in_node=neuron(0.3), out_node=neuron(0.5))
    torch.nn.init.zeros_(module.conv.weight)
    torch.nn.init.constant_(module.conv.bias, bias)
    return module


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"img_size": 32}, "8x8=64 tokens, embed_dim/num_heads=32/2=16"),
        ({"pool_to": 24}, "6x6=36 tokens"),
        ({"pool_to": 18}, "pool_to=18, patch_size=4"),
        ({"tim_alpha": 1.5}, "0 to 1; got 1.5"),
        ({"img_size": (1, 300), "in_chans": 1}, "in_chans=1, img_size=.1, 300."),
    ],
)
def test_impossible_networks_are_refused_with_the_numbers(kwargs, message):
    with pytest.raises(UserError, match=message):
        tiny(**kwargs)


def test_frames_of_another_size_are_averaged():
    own, other = tiny(), tiny(img_size=(36, 20), pool_to=16)
    frames = torch.rand(3, 2, 2, 36, 20)
    pooled = adaptive_avg_pool2d(frames.flatten(0, 1), 16).unflatten(0, (3, 2))
    torch.testing.assert_close(other.eval()(frames), own.eval()(pooled))


def test_sounds_are_folded_into_frames():
    x = torch.rand(3, 2, 700)
    expected = interpolate(x.reshape(6, 2, 350), size=256, mode="nearest").reshape(3, 2, 2, 16, 16)
    assert torch.equal(cochlear_frames(x), expected)
    model = tiny("tim_2_256_shd").eval()
    logits = model(x * 5)
    assert torch.equal(model(x[:, :, None] * 5), logits)
    assert torch.equal(model(x[:, :, None, None] * 5), logits)
    assert not torch.equal(model(x.flip(-1) * 5), logits)


@pytest.mark.parametrize("shape", [(2, 3, 700), (2, 2, 350), (2, 700), (2, 2, 2, 700)])
def test_sounds_of_another_shape_say_what_would_fit(shape):
    with pytest.raises(ValueError, match=r"\(B, T, 700\) with T=2"):
        tiny("tim_2_256_shd")(torch.rand(shape))


def test_mix_that_reaches_the_threshold_exactly_fires():
    q = torch.ones(3, 2, 4, 5)
    assert interaction(0.6, bias=9.0)(q, step=3).all()


def test_query_of_the_past_alone_and_of_the_present_alone():
    q = (torch.rand(4, 2, 4, 5) < 0.5).float()
    past = interaction(1.0, bias=9.0)(q, step=4)
    assert torch.equal(past[0], q[0])
    assert past[1:].all()
    present = interaction(0.0, bias=9.0)(q, step=4)
    assert torch.equal(present[1], q[1])


def test_released_thresholds_silence_the_recurrent_query():
    torch.manual_seed(0)
    for as_released in (False, True):
        model = tiny(as_released=as_released, step=4).eval()
        with torch.no_grad(), record(model) as records:
            model(torch.rand(1, 4, 2, 16, 16) * 9)
        fired = records["blocks.0.attn.tim.out_node"].spikes
        assert fired.shape[:2] == (4, 1)
        assert bool(fired.any()) != as_released
    thresholds = {name.split("attn.")[-1]: node.threshold.item() for name, node in tiny(threshold=0.8).nodes.items()}
    assert thresholds["tim.in_node"] == pytest.approx(0.24)
    model.set_as_released(False)
    assert sorted({node.threshold.item() for node in model.nodes.values()}) == pytest.approx([0.3, 0.5, 1.0])


def test_official_file_says_which_thresholds_it_holds(pytestconfig):
    folder = pytestconfig.rootpath / "tests/golden"
    for name, released in (("tim_dvs_released_thresholds", True), ("tim_dvs", False)):
        vector = Vector(folder / f"{name}.safetensors")
        for before in (False, True):
            model = tiny(img_size=64, patch_size=16, depth=1, num_classes=10, as_released=before)
            told = load_state(model, vector.state)
            assert model.as_released == released
            assert ("released code" in told) == (released and not before)
            assert ("the paper" in told.split(":")[0]) == (before and not released)
            node = model.get_submodule("blocks.0.attn.attn_node")
            assert node.threshold.item() == (1.0 if released else 0.5)
    again = tiny(img_size=64, patch_size=16, depth=1, num_classes=10)
    again.load_state_dict(model.state_dict())
    assert again.as_released == model.as_released


def test_nothing_is_left_behind_but_what_was_recorded():
    model = tiny()
    model.set_requires_fp(True)
    model(torch.rand(2, 2, 2, 16, 16)).sum().backward()
    for node in model.nodes.values():
        assert node.mem is None
        assert [spikes.shape[0] for spikes in node.feature_map] == [2, 2]
    model.set_requires_fp(False)
    model.reset()
    model(torch.rand(2, 2, 2, 16, 16))
    copy.deepcopy(model)


def test_single_steps_give_the_recurrent_query_and_a_reset_begins_anew():
    torch.manual_seed(0)
    module = TemporalInteraction(4, 0.5, in_node=neuron(0.3), out_node=neuron(0.5))
    torch.nn.init.normal_(module.conv.weight)
    q = (torch.rand(5 * 3, 2, 4, 7) < 0.4).float()
    expected = module(q, step=5)
    assert expected[3:].any()
    for _ in range(2):
        assert torch.equal(torch.cat([module.step(frame) for frame in q.chunk(5)]), expected)
        for part in module.modules():
            if hasattr(part, "n_reset"):
                part.n_reset()


@torch.no_grad()
def test_a_second_thread_waits_for_the_call_of_the_first():
    module = interaction(0.6, 0.8)
    queries = [(torch.rand(6 * 2, 2, 4, 7) < rate).float() for rate in (0.3, 0.6)]
    expected = [module(q, step=6) for q in queries]
    assert not torch.equal(*expected)
    found, calls = [None, None], []

    def second():
        with torch.no_grad():
            found[1] = module(queries[1], step=6)

    thread = threading.Thread(target=second)

    def in_the_middle(*_):
        calls.append(None)
        if len(calls) == 3:
            thread.start()
            thread.join(timeout=0.2)  # it can't end before this call does

    module.out_node.register_forward_hook(in_the_middle)
    found[0] = module(queries[0], step=6)
    thread.join()
    assert all(torch.equal(got, right) for got, right in zip(found, expected, strict=True))


@pytest.mark.kernels(compiler=False)
def test_compiled_and_checkpointed_statistics_are_updated_once():
    torch._dynamo.reset()
    models, x = [tiny(), tiny()], torch.rand(2, 2, 2, 16, 16) * 3
    models[0].set_grad_checkpointing()
    torch.compile(models[0], backend="aot_eager")(x).square().sum().backward()
    models[1](x).square().sum().backward()
    for a, b in zip(*(model.buffers() for model in models), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
