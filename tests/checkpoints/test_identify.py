"""A checkpoint alone says which registered network it fits."""

import pytest
import timm
import torch
from safetensors import safe_open

from braincog_transformers import UserError, cli
from braincog_transformers.checkpoints import identify


def _state(name, **kwargs):
    return timm.create_model(name, **kwargs).state_dict()


@pytest.mark.parametrize(
    "name", ["stnet_small", "spike_transformer_depth_small", "spiking_pose_transformer_small",
             "masked_spiking_transformer_digits", "rate_coded_transformer_digits"],
)  # fmt: skip
def test_networks_for_tasks_and_for_conversion_are_known_too(name, tmp_path, capsys):
    torch.save(_state(name), tmp_path / "weights.pth")
    assert cli.main(["--identify", str(tmp_path / "weights.pth")]) == 0
    assert f"fits {name}" in capsys.readouterr().out.splitlines()


def test_every_network_of_its_shapes_is_named_and_another_class_count():
    fits = identify(_state("spikformer_digits", num_classes=7))
    assert [(fit.name, fit.num_classes) for fit in fits] == [("spikformer_digits", 7)]
    twins = [fit.name for fit in identify(_state("spikingformer_2_256_dvs"))]
    assert twins == ["spikingformer_2_256_dvs", "spikingformer_cml_2_256_dvs"]


def test_the_nearest_network_comes_with_each_difference():
    state = _state("spikformer_digits")
    state["extra.weight"] = torch.zeros(2)
    state["blocks.0.mlp.fc1.linear.bias"] = torch.zeros(3)
    del state["blocks.1.mlp.fc2.bn.weight"]
    (fit,) = identify(state)
    assert fit.name == "spikformer_digits"
    assert fit.differences == (
        "missing blocks.1.mlp.fc2.bn.weight",
        "unexpected extra.weight",
        "of another shape blocks.0.mlp.fc1.linear.bias (3,) for (256,)",
    )


@pytest.mark.parametrize("vector", ["autost_rectangular", "qkformer_cifar", "spikformer_cml_cifar", "stsa_oblong"])
def test_the_nearest_network_is_of_the_family_whatever_the_sizes(vector, pytestconfig):
    with safe_open(pytestconfig.getoption("--golden-dir") / f"{vector}.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.startswith("state.")]  # noqa: SIM118 - the handle is no mapping
        state = {name[6:]: file.get_tensor(name) for name in names}
    (fit,) = identify(state)
    assert fit.name.startswith(vector.partition("_")[0] + "_")


def test_a_foreign_checkpoint_is_none_of_them():
    with pytest.raises(UserError, match="2 of its 2 names are unknown"):
        identify({"conv.weight": torch.zeros(2), "fc.weight": torch.zeros(2)})


def test_command_line(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": _state("spikformer_digits")}, path)
    assert cli.main(["--identify", str(path)]) == 0
    assert capsys.readouterr().out == "fits spikformer_digits\n"
    assert cli.main([f"--identify={tmp_path}/none.pth"]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert cli.main(["--identify"]) == 2
    assert "needs a file" in capsys.readouterr().err


def test_it_has_its_former_name_too():
    from braincog_transformers.identify import identify as former

    assert former is identify
