"""What the vectors can't show of SpikingResformer: running rates at their edges, other sizes, transfer."""

import pytest
import timm
import torch
from families.spikingresformer import TINY

from braincog_transformers import UserError
from braincog_transformers.checkpoints import load_state
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.models.spikingresformer import DualSpikeSelfAttention, FiringRate


def tiny(**kwargs):
    torch.manual_seed(0)
    model = timm.create_model("spikingresformer_cifar", **{**TINY, **kwargs})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.bias, 0.7)
    return model


def bits(*shape):
    return (torch.rand(shape) < 0.3).float()


def test_running_rate_starts_at_the_batchs_and_then_moves_by_a_thousandth():
    rate, first, second = FiringRate(2), bits(6, 2, 4, 5), bits(6, 2, 4, 5)
    a, b = (spikes.mean((0, 2, 3)) for spikes in (first, second))
    torch.testing.assert_close(rate(first).flatten(), a)
    torch.testing.assert_close(rate(second).flatten(), 0.999 * a + 0.001 * b)
    before = rate.rate.clone()
    rate.eval()(first)
    assert torch.equal(rate.rate, before)


def test_rate_of_zero_counts_as_one():
    rate = FiringRate(3).eval()
    assert rate(bits(2, 3, 4, 4)).flatten().tolist() == [1, 1, 1]
    rate.rate[0, 0, 1] = 0.25
    assert rate(bits(2, 3, 4, 4)).flatten().tolist() == [1, 0.25, 1]
    silent = torch.zeros(2, 3, 4, 4)
    assert FiringRate(3)(silent).flatten().tolist() == [1, 1, 1]
    model = tiny().eval()
    outputs = []
    for module in model.modules():
        if isinstance(module, DualSpikeSelfAttention):
            module.attn_node.register_forward_hook(lambda m, inputs, out: outputs.append(inputs[0]))
    model(torch.rand(2, 3, 16, 16))
    assert outputs
    assert all(torch.isfinite(potentials).all() for potentials in outputs)


def test_rate_of_16_bit_spikes_is_counted_in_32():
    rate, spikes = FiringRate(1), bits(4, 1, 50, 57)
    rate(spikes.bfloat16())
    assert rate.rate.dtype == torch.float32
    assert rate.rate.item() == pytest.approx(spikes.mean().item(), rel=1e-6)


def test_attention_of_a_map_that_is_not_square():
    """Against the equations, written with loops over heads; positions are those of the map at hand."""
    attention = DualSpikeSelfAttention(8, 2, 2, node=NodeOptions().constructor(step=1)).double().eval()
    torch.nn.init.constant_(attention.dual.bn.weight, 5.0)
    attention.rate_x.rate.copy_(torch.tensor([0.2, 0.4]).view(1, 1, 2, 1, 1))
    attention.rate_attn.rate.copy_(torch.tensor([0.1, 0.3]).view(1, 1, 2, 1, 1))
    seen = {}
    attention.proj.register_forward_hook(lambda m, inputs, out: seen.__setitem__("o", inputs[0]))
    x = torch.randn(3, 8, 4, 6).double() * 3
    attention(x)
    spikes = attention.node(x)
    y = attention.dual(spikes).flatten(2)
    expected = []
    for head in range(2):
        s = spikes.flatten(2)[:, 4 * head : 4 * head + 4]
        y1, y2 = y[:, 8 * head : 8 * head + 4], y[:, 8 * head + 4 : 8 * head + 8]
        a = attention.attn_node(y1.transpose(1, 2) @ s / (attention.rate_x.rate.flatten()[head] * 4).sqrt())
        assert 0 < a.mean() < 1
        expected.append(y2 @ a / (attention.rate_attn.rate.flatten()[head] * (2 * 3)).sqrt())
    torch.testing.assert_close(seen["o"], torch.cat(expected, 1).view(3, 8, 4, 6))


def test_recomputed_pass_scales_by_the_rates_of_the_first_one():
    x, results = torch.rand(2, 3, 16, 16), []
    for checkpointed in (False, True):
        model = tiny().double()
        model.set_grad_checkpointing(checkpointed)
        for module in model.modules():
            if isinstance(module, FiringRate):
                module.rate.fill_(0.9)
        (model(x.double()) + model(1 - x.double())).square().sum().backward()
        results.append([*(p.grad for p in model.parameters() if p.requires_grad), *model.buffers()])
    for plain, again in zip(*results, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-12, atol=1e-12)


def test_training_step_by_step_is_refused():
    model = tiny()
    model.set_attr("layer_by_layer", False)
    with pytest.raises(UserError, match="those of all steps"):
        model(torch.rand(2, 3, 16, 16))


def test_transfer_takes_everything_but_the_classifier_at_another_size():
    source, target = tiny(num_classes=7), tiny(num_classes=5, img_size=32)
    source(torch.rand(2, 3, 16, 16))
    state = {name: v.half() if name.endswith(".rate") else v for name, v in source.state_dict().items()}
    assert "new classifier for 5 classes" in load_state(target, state, replace_classifier=True)
    for name, value in target.state_dict().items():
        if not name.startswith("head."):
            torch.testing.assert_close(value, source.state_dict()[name], rtol=1e-3, atol=0)
    rates = [module.rate for module in target.modules() if isinstance(module, FiringRate)]
    assert all(rate.dtype == torch.float32 and rate.any() for rate in rates)
    assert target(torch.rand(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"depths": (1, 1, 1)}, "one number for each stage; got 2, 3, 2, 2"),
        ({"group_size": 48}, "embed_dims=.16, 16., group_size=48"),
        ({"num_heads": (2, 3)}, "num_heads=3"),
        ({"stem_stride": 2}, "stem_stride must be 1 or 4; got 2"),
        ({"img_size": 18, "stem_stride": 4}, "multiple of 8; got .18, 18."),
    ],
)
def test_impossible_networks_are_refused_with_the_numbers(kwargs, message):
    with pytest.raises(UserError, match=message):
        tiny(**kwargs)
