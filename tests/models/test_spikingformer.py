"""What the vectors of Spikingformer can't show."""

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from braincog_transformers import UserError
from braincog_transformers.checkpoints.loading import convert_official
from braincog_transformers.models import Spikingformer

VECTOR = Path(__file__).parents[1] / "golden" / "spikingformer_imagenet.safetensors"


def test_the_first_releases_names_mean_the_same_tensors():
    state = {name[6:]: value for name, value in load_file(VECTOR).items() if name.startswith("state.")}
    old = {re.sub(r"proj4_", "rpe_", re.sub(r"mlp(\d)_(?=conv|bn)", r"fc\1_", name)): v for name, v in state.items()}
    old = {re.sub(r"proj(\d)_(conv|bn)", r"proj_\2\1", name): value for name, value in old.items()}
    assert set(old) != set(state)
    model = Spikingformer(img_size=48, embed_dim=48, depth=2, num_heads=3, num_classes=10)
    expected, found = convert_official(state, model), convert_official(old, model)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in found)


def test_the_order_of_pooling_and_neuron_shows_from_the_second_step_on():
    """At the first step a maximum of spikes is a spike of the maximum."""
    torch.manual_seed(0)
    models = [timm.create_model(name, embed_dim=32, depth=1, num_heads=2, img_size=16, patch_size=4).double().eval()
              for name in ("spikingformer_2_384_cifar", "spikingformer_cml_2_384_cifar")]  # fmt: skip
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.constant_(module.weight, 6.0)
                torch.nn.init.constant_(module.bias, 0.7)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for step in (1, 3):
        for model in models:
            model.set_attr("step", step)
        a, b = (model.forward_features(x) for model in models)
        assert torch.allclose(a, b) == (step == 1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"img_size": 40}, r"multiple of 16; got \(40, 40\) \(try 32\)"),
        ({"embed_dim": 100, "num_heads": 3}, "embed_dim=100, num_heads=3"),
        ({"embed_dim": 36, "num_heads": 3}, "multiple of 8; got 36"),
        ({"patch_size": 32}, "patch_size must be 1, 2, 4, 8 or 16"),
    ],
)
def test_impossible_sizes_are_refused_with_the_numbers(kwargs, message):
    with pytest.raises(UserError, match=message):
        timm.create_model("spikingformer_2_256_dvs", **kwargs)
