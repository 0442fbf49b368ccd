"""Networks of the zoo as backbones: maps of every stride for pictures of any size, and weights of classifiers."""

import pytest
import timm
import torch
from torch import nn

from braincog_transformers.errors import UserError
from braincog_transformers.tasks.backbone import SpikingBackbone, build_backbone, load_initial

PYRAMIDS = {
    "sdt_v2_digits": (3, [4, 8, 16], [32, 48, 96]),
    "sdt_v3_digits": (3, [4, 8, 16], [16, 32, 96]),
    "qkformer_10_384": (3, [4, 8, 16], [16, 32, 64]),
    "spikingresformer_ti": (3, [4, 8, 16], [16, 32, 64]),
}
NARROW = {
    "qkformer_10_384": {"embed_dim": 64, "num_heads": 4, "depths": (1, 1, 1)},
    "spikingresformer_ti": {"embed_dims": (16, 32, 64), "depths": (1, 1, 1), "num_heads": (1, 2, 4), "group_size": 16},
}


def creator(name, **arguments):
    """Return what builds a narrow network of three steps, and takes further arguments."""
    given = {"in_chans": 3, "num_classes": 5, "step": 3, **NARROW.get(name, {}), **arguments}
    return lambda **further: timm.create_model(name, **given, **further)


@pytest.mark.parametrize("size", [(224, 224), (160, 224), (200, 260)], ids=str)
@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_pyramid_gives_maps_of_its_strides_for_pictures_of_any_size(name, size):
    chans, strides, channels = PYRAMIDS[name]
    backbone = build_backbone(creator(name), "mean", size).eval()
    assert (backbone.strides, backbone.channels, backbone.steps) == (strides, channels, 1)
    with torch.no_grad():
        maps = backbone(torch.randn(1, chans, *size))
    expected = [(1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(channels, strides, strict=True)]
    assert [tuple(one.shape) for one in maps.values()] == expected
    assert list(maps) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("spikformer_digits", {"patch_size": 16, "img_size": 64}),
        ("spikformer_digits", {"patch_size": 4, "img_size": 64}),
        ("spikeformer_digits", {"patch_size": 16, "img_size": 64, "embed_dim": 64}),
        ("sglformer_8_384", {"depth": 2, "embed_dim": 48, "num_heads": 4}),
    ],
)
def test_a_flat_network_gives_the_strides_of_a_resnet(name, arguments):
    backbone = build_backbone(creator(name, **arguments), "mean").eval()
    assert backbone.strides == [4, 8, 16, 32]
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, 50, 70))
    sides = [(13, 18), (7, 9), (4, 5), (2, 3)]
    assert [tuple(one.shape) for one in maps.values()] == [
        (2, c, *side) for c, side in zip(backbone.channels, sides, strict=True)
    ]


@pytest.mark.parametrize("name", ["sdt_v2_digits", "spikformer_digits"])
def test_maps_of_each_step_have_the_mean_that_the_maps_have(name):
    torch.manual_seed(0)
    mean = build_backbone(creator(name, img_size=32), "mean").eval()
    each = build_backbone(creator(name, img_size=32), "each").eval()
    each.load_state_dict(mean.state_dict())
    frames = torch.randn(2, 3, 3, 32, 32)  # B, T, C, H, W
    with torch.no_grad():
        maps, by_step = mean(frames), each(frames)
    assert each.steps == 3
    for key, one in maps.items():
        if name == "sdt_v2_digits":  # a simple pyramid is not linear
            torch.testing.assert_close(each.mean_over_steps(by_step[key]), one)
        assert by_step[key].shape == (6, *one.shape[1:])


def test_zeros_are_added_at_the_right_and_at_the_bottom():
    backbone = build_backbone(creator("sdt_v3_digits"), "mean").eval()
    picture = torch.randn(1, 3, 40, 33)
    padded = torch.zeros(1, 3, 48, 48)
    padded[..., :40, :33] = picture
    with torch.no_grad():
        maps, whole = backbone(picture), backbone(padded)
    for one, other in zip(maps.values(), whole.values(), strict=True):
        torch.testing.assert_close(one, other[..., : one.shape[-2], : one.shape[-1]])


@pytest.mark.parametrize("name", ["sglformer_digits", "stsa_ndigits"])
def test_a_network_for_a_number_of_tokens_refuses_other_sizes(name):
    create = creator(name, img_size=32, **({"in_chans": 2} if name == "stsa_ndigits" else {}))
    with pytest.raises(UserError, match="img_size stays as built") as error:
        build_backbone(create, "mean", (64, 96))
    assert "\n" not in str(error.value)


def test_what_is_no_network_of_the_zoo_or_has_no_steps_is_refused():
    with pytest.raises(UserError, match="network of the zoo"):
        SpikingBackbone(timm.create_model("resnet18d", features_only=True))
    with pytest.raises(UserError, match="--head-time each: OST has no maps by step"):
        build_backbone(creator("ost_digits"), "each")


class Whole(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(3, 3)


@pytest.mark.parametrize("name", ["sdt_v2_digits", "spikeformer_digits"])
def test_a_classifier_gives_the_backbone_its_weights(name, tmp_path):
    torch.manual_seed(0)
    create, said = creator(name, img_size=32), []
    other = creator(name, img_size=32, num_classes=7)()
    torch.save(other.state_dict(), tmp_path / "classifier.pt")
    whole = Whole(build_backbone(create, "mean"))
    load_initial(whole, whole.backbone, create, tmp_path / "classifier.pt", ema=None, say=said.append)
    for key, value in whole.backbone.inner.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert "tensors of its classifier" in said[0]
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    again = Whole(build_backbone(create, "mean"))
    load_initial(again, again.backbone, create, tmp_path / "whole.pt", ema=None, say=said.append)
    assert torch.equal(again.head.weight, whole.head.weight)
    tiny = creator("sdt_v3_digits", img_size=32)
    with pytest.raises(UserError, match=r"classifier\.pt"):
        load_initial(again, again.backbone, tiny, tmp_path / "classifier.pt", ema=None, say=said.append)
