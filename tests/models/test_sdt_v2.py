"""What the vectors of Spike-driven Transformer V2 can't show."""

import pytest
import timm
import torch
from families.sdt_v2 import TINY
from torch import nn
from torch.nn import functional

from braincog_transformers import UserError
from braincog_transformers.checkpoints import load_state
from braincog_transformers.models.sdt_v2 import PaddedBatchNorm, RepConv


def tiny(**kwargs):
    torch.manual_seed(0)
    model = timm.create_model("sdt_v2_15m", **{**TINY, **kwargs})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.7)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.uniform_(-1, 1)
    return model.double()


def batch():
    return torch.rand(2, 3, 32, 32, dtype=torch.float64)


@pytest.mark.parametrize(("size", "count"), [("15m", 15_473_208), ("31m", 31_814_864), ("55m", 55_991_248)])
def test_trainable_parameters_with_the_second_classifier(size, count):
    with torch.device("meta"):
        model = timm.create_model(f"sdt_v2_{size}", distilled=True)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


def test_the_pair_comes_in_training_and_on_demand_only():
    model, x = tiny(distilled=True), batch()
    model.set_distilled_training()
    pair = model(x)
    assert [logits.shape for logits in pair] == [(2, 5), (2, 5)]
    model.set_distilled_training(False)
    assert model(x).shape == (2, 5)
    model.set_distilled_training()
    model.eval()
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(model(x), (model.head(features) + model.head_dist(features)) / 2)
    with pytest.raises(UserError, match="distilled=True"):
        tiny().set_distilled_training()


def test_both_classifiers_are_replaced():
    model = tiny(distilled=True)
    model.reset_classifier(3)
    assert [head.out_features for head in model.get_classifier()] == [3, 3]
    assert not torch.equal(model.head.weight, model.head_dist.weight)
    assert model(batch()).shape == (2, 3)
    model.reset_classifier(0)
    assert model(batch()).shape == (2, 16)


def test_a_checkpoint_with_two_classifiers_says_what_it_needs():
    model = tiny(distilled=True)
    official = {name.replace("head_dist.", "head_kd."): value for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"2 unexpected: head_dist.bias, head_dist.weight; distilled=True"):
        load_state(tiny(), official)
    other = tiny(distilled=True)
    nn.init.zeros_(other.head_dist.weight)
    load_state(other, official)
    assert torch.equal(other.head_dist.weight, model.head_dist.weight)


def test_the_border_is_what_becomes_of_zero():
    norm, x = PaddedBatchNorm(3).double(), torch.randn(4, 3, 5, 6, dtype=torch.float64) + 2
    nn.init.uniform_(norm.bn.weight)
    nn.init.uniform_(norm.bn.bias)
    y = norm(x)
    mean, var = 0.1 * x.mean((0, 2, 3)), 0.9 + 0.1 * x.var((0, 2, 3))  # this batch counts already
    of_zero = norm.bn.bias - mean * norm.bn.weight / (var + norm.bn.eps).sqrt()
    border = torch.ones(7, 8, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert y.shape == (4, 3, 7, 8)
    torch.testing.assert_close(y[..., border], of_zero[:, None].expand(4, 3, int(border.sum())))
    torch.testing.assert_close(y[..., 1:-1, 1:-1].mean((0, 2, 3)), norm.bn.bias)
    norm.eval()
    torch.testing.assert_close(norm(x), norm.bn(functional.pad(x, (1, 1, 1, 1))))


def test_gradients_do_not_flow_through_the_border():
    norm, x = PaddedBatchNorm(2), torch.randn(3, 2, 4, 4)
    norm(x)[..., 0, :].sum().backward()
    assert norm.bn.weight.grad.abs().sum() == 0
    assert norm.bn.bias.grad.abs().sum() == 0


def test_statistics_of_several_processes_keep_the_border():
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(RepConv(2)).body[1], PaddedBatchNorm)


def _trained(model, run, passes):
    """Return the logits, the gradients of all passes together, and the statistics behind them."""
    torch.manual_seed(1)
    logits = [run(batch() + i) for i in range(passes)]
    sum(y.square().sum() for y in logits).backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    return [*logits, *grads, *model.buffers()]


@pytest.mark.kernels(compiler=False)
@pytest.mark.parametrize(("compiled", "passes"), [(False, 2), (True, 2)], ids=["eager", "compiled"])
def test_a_recomputed_pass_pads_with_the_first_ones_statistics(compiled, passes):
    plain, recomputing = tiny(), tiny()
    recomputing.set_grad_checkpointing()
    run = recomputing
    if compiled:
        torch._dynamo.reset()
        run = torch.compile(recomputing, backend="aot_eager")
    results = _trained(recomputing, run, passes), _trained(plain, plain, passes)
    for again, expected in zip(*results, strict=True):
        torch.testing.assert_close(again, expected, rtol=1e-9, atol=1e-12)


def test_fused_a_projection_is_one_convolution_and_a_separable_one_stays_two():
    model, x = tiny().eval(), batch()
    expected = model(x)
    model.fuse()
    assert torch.allclose(model(x), expected, rtol=0, atol=1e-9)
    block, first = model.stages[2][1], model.stages[0][0]
    assert [m.kernel_size for m in block.attn.modules() if isinstance(m, nn.Conv2d)] == [(3, 3)] * 4
    assert [m.kernel_size for m in first.attn.modules() if isinstance(m, nn.Conv2d)] == [(1, 1), (7, 7), (1, 1)]
    assert first.attn.depthwise.bias is None


@pytest.mark.parametrize("size", [(50, 33), (9, 1)])
def test_odd_sides_are_halved_upwards(size):
    model = tiny(img_size=size).eval()
    maps = model.forward_intermediates(torch.rand(1, 3, *size).double(), intermediates_only=True)
    assert [m.shape[2:] for m in maps] == [tuple(-(-side // by) for side in size) for by in (4, 8, 16, 16)]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"embed_dims": (7, 8, 8, 16)}, r"four widths, the first one even; got \(7, 8, 8, 16\)"),
        ({"embed_dims": (8, 8, 16)}, r"four widths, the first one even; got \(8, 8, 16\)"),
        ({"embed_dims": (8, 8, 10, 16), "num_heads": 4}, "embed_dim=10, num_heads=4 .try 2 or 5"),
        ({"num_heads": 3}, "embed_dim=8, num_heads=3"),
    ],
)
def test_impossible_networks_are_refused_with_the_numbers(kwargs, message):
    with pytest.raises(UserError, match=message):
        tiny(**kwargs)


def test_statistics_that_are_not_tracked_are_the_batchs_on_the_border_too():
    norm, x = PaddedBatchNorm(3).double(), torch.randn(4, 3, 5, 6, dtype=torch.float64) + 2
    norm.bn = nn.BatchNorm2d(3, track_running_stats=False).double()
    y = norm(x)
    of_zero = -x.mean((0, 2, 3)) / (x.var((0, 2, 3), correction=0) + norm.bn.eps).sqrt()
    torch.testing.assert_close(y[0, :, 0, 0], of_zero)
    torch.testing.assert_close(y[:, :, 1:-1, 1:-1], norm.bn(x))
