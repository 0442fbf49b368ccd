"""What the vectors of SGLFormer can't show."""

import pytest
import timm
import torch
from families.sglformer import TINY
from torch import nn

from braincog_transformers import UserError
from braincog_transformers.checkpoints import load_state
from braincog_transformers.models import SGLFormer, SGLFormerImageNet
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.models.sglformer import LocalAttention, TimeTokenPool


def tiny(cls=SGLFormerImageNet, **kwargs):
    torch.manual_seed(0)
    return cls(**{**TINY, "patch_size": 4, "img_size": 16, "threshold": 0.3, "step": 4, **kwargs}).double().eval()


def awake(**kwargs):
    """Return a network of low thresholds, its normalisations with a batch's statistics, so that its neurons fire."""
    model = tiny(**kwargs).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    model(images(8))
    return model.eval()


def images(count):
    return torch.rand(count, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def official(model):
    """Name an ImageNet network's tensors as the official class does, dead ones included."""
    renamed = {"blocks.0.norm1.weight": torch.rand(16), "blocks.1.norm2.bias": torch.rand(16)}
    for name, value in model.state_dict().items():
        if name.endswith(("threshold", "alpha", "_extra_state")):
            continue
        for i in range(5):
            name = name.replace(f"patch_embed.convs.{i}.conv.", f"patch_embed.proj{i or ''}_conv.")
            name = name.replace(f"patch_embed.convs.{i}.bn.", f"patch_embed.proj{i or ''}_bn.")
        if name.startswith("blocks.0."):
            for part in ("q", "k", "v", "proj"):
                name = name.replace(f".{part}.linear.", f".{part}_conv.conv1x1.").replace(f".{part}.", f".{part}_conv.")
            for ours, theirs in [
                ("blocks.0.branches.loc.", "localblock.0.local1."),
                ("blocks.0.branches.ssa1.", "localblock.0.local2_SSA."),
                ("blocks.0.branches.mlp1.", "localblock.0.local2_MLP."),
                (".fc", ".mlp"),
                (".linear.", ".conv1x1."),
                ("conv.conv.", "conv.conv3x3."),
                ("dwconv3x3.conv.", "dwconv3x3.conv3x3."),
                ("conv1x1_1.conv.", "conv1x1_1.conv1x1."),
                ("conv1x1_2.conv.", "conv1x1_2.conv1x1."),
            ]:
                name = name.replace(ours, theirs)
        elif name.startswith("blocks."):
            name = name.replace("blocks.1.", "blocks.0.").replace(".linear.", "_conv.").replace(".bn.", "_bn.")
        renamed[name] = (
            value[..., None] if name.endswith(("conv.weight", "conv1x1.weight")) and value.dim() == 2 else value
        )
    return renamed


@pytest.mark.parametrize("late_pooling", [False, True])
def test_released_and_corrected_network_agree_on_one_sample(late_pooling):
    model, x = awake(late_pooling=late_pooling), images(1)
    expected = model(x)
    model.set_as_released()
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("late_pooling", [False, True])
@pytest.mark.parametrize("as_released", [False, True])
def test_neighbours_count_only_as_released(as_released, late_pooling):
    model, x = awake(late_pooling=late_pooling, as_released=as_released), images(3)
    same = torch.equal(model(x[[0, 1]])[0], model(x[[0, 2]])[0])
    assert same != as_released


def test_only_late_pooling_mixes_in_the_stem():
    """Depth 2 leaves no block with global attention: what still mixes is the stem."""
    x = images(3)
    for late_pooling in (False, True):
        model = awake(depth=2, late_pooling=late_pooling, as_released=True)
        assert torch.equal(model(x[[0, 1]])[0], model(x[[0, 2]])[0]) != late_pooling


def test_a_repeated_image_mixes_like_equal_frames():
    model, x = awake(as_released=True), images(2)
    torch.testing.assert_close(model(x), model(x.unsqueeze(1).expand(-1, 4, -1, -1, -1)))


def test_official_weights_switch_the_released_behaviour_on_and_own_weights_keep_the_choice():
    source, target = awake(), tiny()
    assert "as the released code does: some neurons run over time x batch" in load_state(target, official(source))
    assert target.as_released
    other = tiny()
    assert "released" not in load_state(other, target.state_dict())
    assert other.as_released
    load_state(other, source.state_dict())
    assert not other.as_released
    assert torch.equal(other(images(2)), source(images(2)))
    assert source(images(2)).std() > 0


def test_the_networks_for_cifar_and_events_have_no_such_fault():
    assert not hasattr(SGLFormer, "fault")
    with pytest.raises(TypeError, match="as_released"):
        tiny(SGLFormer, as_released=True)


def test_local_attention_stays_in_rows_and_columns_of_equal_parity():
    node = NodeOptions(threshold=0.1).constructor(step=1)
    attention = LocalAttention(8, 2, (4, 6), node=node, attn_node=node).eval()
    x = torch.rand(1, 4, 6, 8).round() * 4
    changed = x.clone()
    changed[0, 1, 2] = 4 - x[0, 1, 2]
    before, after = (attention(tokens.flatten(1, 2)).unflatten(1, (4, 6)) for tokens in (x, changed))
    differs = (before != after).any(-1)[0]
    assert differs[1::2, 0::2].sum() > 1
    differs[1::2, 0::2] = False
    assert not differs.any()


def test_head_weighs_each_token_and_step_for_itself():
    pool = TimeTokenPool(2, tokens=3, step=2).double().eval()
    x = torch.rand(2, 5, 3, 2, dtype=torch.float64)
    expected = torch.einsum("tbnc,cnt->bc", x, pool.conv.weight[:, 0]) + pool.conv.bias
    torch.testing.assert_close(pool(x.flatten(0, 1)), expected / (1 + pool.bn.eps) ** 0.5)


@pytest.mark.parametrize(("tag", "expected"), [("cifar10dvs", 4_066_130), ("gesture", 4_066_387)])
def test_parameters_depend_on_the_steps(tag, expected):
    with torch.device("meta"):
        model = timm.create_model(f"sglformer_3_256_dvs.{tag}", step=10)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected


def test_tokens_and_steps_are_fixed_by_the_head():
    model = tiny(SGLFormer)
    model.set_attr("step", 4)
    with pytest.raises(ValueError, match=r"3 steps, the network 4 \(step=3 builds it\)"):
        model(torch.zeros(2, 3, 3, 16, 16))
    with pytest.raises(UserError, match=r"pool.conv.weight \(16, 1, 64, 4\) for \(16, 1, 16, 4\)"):
        load_state(model, tiny(SGLFormer, img_size=32).state_dict())
    with pytest.raises(UserError, match=r"pool.conv.weight \(16, 1, 16, 3\) for \(16, 1, 16, 4\)"):
        load_state(model, tiny(SGLFormer, step=3).state_dict())
    with pytest.raises(UserError, match="can't run one step at a time: its head"):
        model.set_streaming()


@pytest.mark.parametrize("cls", [SGLFormer, SGLFormerImageNet])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"img_size": 20}, r"multiple of 8; got \(20, 20\)"),
        ({"img_size": (16, 12)}, r"multiple of 8; got \(16, 12\)"),
        ({"embed_dim": 12}, "multiple of 8; got 12"),
        ({"num_heads": 3}, "embed_dim=16, num_heads=3"),
        ({"patch_size": 3, "img_size": 12}, "patch_size must be .* got 3"),
    ],
)
def test_impossible_networks_are_refused_with_the_numbers(cls, kwargs, message):
    with pytest.raises(UserError, match=message):
        tiny(cls, **kwargs)


def test_depth_of_the_imagenet_network_counts_the_local_block_twice():
    assert len(tiny(depth=8).blocks) == 7
    with pytest.raises(UserError, match="at least 2; got 1"):
        tiny(depth=1)


@pytest.mark.parametrize("cls", [SGLFormer, SGLFormerImageNet])
def test_sides_may_differ(cls):
    model = tiny(cls, img_size=(16, 24))
    assert model(torch.rand(2, 3, 16, 24, dtype=torch.float64)).shape == (2, 5)
