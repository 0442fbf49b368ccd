"""What the vectors of QKFormer can't show."""

import pytest
import torch
from families.qkformer import TINY

from braincog_transformers import UserError
from braincog_transformers.checkpoints import load_state
from braincog_transformers.models import QKFormer
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.models.qkformer import QKTokenAttention


def tiny(**kwargs):
    torch.manual_seed(0)
    return QKFormer(**{**TINY, "stem": "cifar", "img_size": 8, "step": 4, **kwargs}).double().eval()


def awake(**kwargs):
    """Return a network of low thresholds, its normalisations with a batch's statistics, so that its neurons fire."""
    model = tiny(threshold=0.3, **kwargs).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model(images(8))
    return model.eval()


def images(count):
    return torch.rand(count, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def official(model):
    """Name a network's tensors as the official CIFAR class does."""
    renamed = {}
    for name, value in model.state_dict().items():
        if name.endswith(("threshold", "alpha", "_extra_state")):
            continue
        for ours, theirs in [
            ("patch_embed.convs.0.", "patch_embed1.proj_"),
            ("patch_embed.convs.1.", "patch_embed1.proj1_"),
            ("patch_embed.shortcut.", "patch_embed1.proj_res_"),
            ("stages.1.embed.convs.0.", "patch_embed2.proj3_"),
            ("stages.1.embed.convs.1.", "patch_embed2.proj4_"),
            ("stages.1.embed.shortcut.", "patch_embed2.proj_res_"),
            ("stages.0.blocks.0.attn.", "stage1.0.tssa."),
            ("stages.0.blocks.", "stage1."),
            ("stages.1.blocks.0.attn.", "stage2.0.ssa."),
            ("stages.1.blocks.", "stage2."),
            (".fc", ".mlp"),
            (".linear.", "_conv."),
            (".bn.", "_bn."),
        ]:
            name = name.replace(ours, theirs)
        renamed[name] = value[..., None, None] if name.endswith("_conv.weight") and value.dim() == 2 else value
    return renamed


def test_released_and_corrected_network_agree_on_one_sample():
    model, x = awake(), images(1)
    expected = model(x)
    model.set_as_released()
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("as_released", [False, True])
def test_neighbours_count_only_as_released(as_released):
    model, x = awake(as_released=as_released), images(3)
    same = torch.equal(model(x[[0, 1]])[0], model(x[[0, 2]])[0])
    assert same != as_released


def test_official_weights_switch_the_released_behaviour_on_and_own_weights_keep_the_choice():
    source, target = awake(), tiny(threshold=0.3)
    assert "as the released code does: some neurons run over time x batch" in load_state(target, official(source))
    assert target.as_released
    assert target.stages[1].blocks[0].attn.proj.node.over_batch
    assert not hasattr(target.stages[0].blocks[0].attn.proj.node, "over_batch")
    other = tiny(threshold=0.3)
    assert "released" not in load_state(other, target.state_dict())
    assert other.as_released
    load_state(other, source.state_dict())
    assert not other.as_released
    assert torch.equal(other(images(2)), source(images(2)))
    assert source(images(2)).std() > 0


def test_neurons_that_cant_run_over_the_batch_are_refused_at_any_time():
    with pytest.raises(UserError, match="as_released needs LIFNode"):
        tiny(node_type="BiasLIFNode", as_released=True)
    model = tiny(node_type="BiasLIFNode")
    model.set_as_released(False)
    with pytest.raises(UserError, match="as_released needs LIFNode"):
        model.set_as_released()


def test_mask_is_the_or_over_the_channels_of_a_head():
    attention = QKTokenAttention(8, 2, node=NodeOptions().constructor(3), attn_node=NodeOptions().constructor(3, 0.5))
    seen = {}
    attention.attn_node.register_forward_hook(lambda m, args, out: seen.update(sums=args[0], mask=out))
    attention.q.register_forward_hook(lambda m, args, out: seen.update(q=out))
    attention(torch.randn(6, 5, 8) * 4)
    assert 0 < seen["mask"].mean() < 1
    assert torch.equal(seen["mask"], (seen["sums"] > 0).float())
    assert torch.equal(seen["sums"][..., 1], seen["q"][..., 4:].sum(-1))


@pytest.mark.parametrize(("stem", "size"), [("imagenet", (32, 16)), ("cifar", (8, 20)), ("dvs", (16, 48))])
def test_height_and_width_may_differ(stem, size):
    model = tiny(stem=stem, img_size=size)
    _, maps = model.forward_intermediates(torch.rand(2, 3, *size, dtype=torch.float64))
    expected = [tuple(side // info["reduction"] for side in size) for info in model.feature_info]
    assert [features.shape[2:] for features in maps] == expected


def test_sizes_of_the_three_pyramids():
    infos = {
        s: tiny(stem=s, depths=d, img_size=32).feature_info for s, d in [("imagenet", (1, 1, 1)), ("cifar", (1, 1, 1))]
    }
    infos["dvs"] = tiny(stem="dvs", img_size=32).feature_info
    assert {s: [(i["num_chs"], i["reduction"]) for i in info] for s, info in infos.items()} == {
        "imagenet": [(8, 4), (16, 8), (32, 16)],
        "cifar": [(8, 1), (16, 2), (32, 4)],
        "dvs": [(16, 8), (32, 16)],
    }


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stem": "imagnet"}, "stem 'imagnet'; did you mean imagenet"),
        ({"stem": "dvs", "img_size": 40}, r"multiple of 16; got \(40, 40\)"),
        ({"stem": "imagenet", "depths": (1, 1, 1), "img_size": 40}, r"multiple of 16; got \(40, 40\)"),
        ({"depths": (1, 1, 1), "img_size": 30}, r"multiple of 4; got \(30, 30\)"),
        ({"num_heads": 5}, "num_heads=5 for embed_dim=32, whose first of 2 stages is 16 wide"),
        ({"num_heads": 32}, "num_heads=32"),
        ({"stem": "dvs", "embed_dim": 24}, "multiple of 16; got 24"),
        ({"depths": (1, 0)}, r"depths .* got \(1, 0\)"),
        ({"depths": ()}, r"depths .* got \(\)"),
    ],
)
def test_impossible_networks_are_refused_with_the_numbers(kwargs, message):
    with pytest.raises(UserError, match=message):
        tiny(**kwargs)


def test_drop_path_grows_over_all_stages():
    model = tiny(depths=(1, 2), drop_path_rate=0.2)
    assert [b.drop_path.drop_prob for stage in model.stages for b in stage.blocks] == pytest.approx([0, 0.1, 0.2])
