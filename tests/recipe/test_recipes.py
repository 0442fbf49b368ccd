"""The shipped recipes: each is complete, resolves, and builds its network."""

from pathlib import Path

import pytest
import timm
import torch
import yaml
from torch import nn

import braincog_transformers
from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError
from braincog_transformers.models.task_networks import TASK_NETWORKS
from braincog_transformers.recipe import keywords
from braincog_transformers.tasks import find_task
from braincog_transformers.training.network import find_shape
from braincog_transformers.training.optim import build_optimizer, build_schedule

FOLDER = Path(__file__).parents[2] / "examples" / "recipes"
RECIPES = [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.yaml"))]


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_resolves_and_lists_only_what_differs_from_the_defaults(path):
    options = resolve(["-c", str(path)])
    listed = set(yaml.safe_load(path.read_text()))
    assert listed - {"dataset"} == set(options.changed()) - {"dataset"}


def test_a_published_recipe_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_path = resolve(["-c", str(FOLDER / "spikformer_digits.yaml")])
    assert resolve(["-c", "spikformer_digits"]).to_dict() == by_path.to_dict()
    with pytest.raises(UserError, match="or the name of a published one"):
        resolve(["-c", "spikformer_digit"])


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_opens_with_four_comment_lines(path):
    lines = path.read_text().splitlines()
    assert [line.startswith("# ") for line in lines[:5]] == [True] * 4 + [False]
    assert f"-c examples/recipes/{path.name}" in lines[1]
    assert "Expected:" in lines[2]
    assert "erun here" in lines[3]


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_builds_its_network(path):
    options = resolve(["-c", str(path)])
    if (found := TASK_NETWORKS.get(options.model.model)) is not None:
        assert found.task == options.task.task
        with torch.device("meta"):
            network = timm.create_model(options.model.model, **keywords(options.model.model_kwargs))
        assert isinstance(network, found.entry.cls)
        return
    assert options.model.model in braincog_transformers.list_models()
    if options.task.task:
        assert find_task(options.task.task)(options).name == options.task.task
        return
    shape = find_shape(options)  # builds it without memory, for the recipe's size, channels and steps
    assert options.model.step in (None, shape.step)


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_has_an_optimizer_and_a_schedule(path):
    options = resolve(["-c", str(path)])
    optimizer = build_optimizer(nn.Linear(2, 2), options.optim, lr=1.0)
    _, epochs = build_schedule(optimizer, options.sched, decreasing=False, seed=0, updates=7)
    before = options.sched.warmup_epochs if options.sched.warmup_prefix else 0
    assert epochs == before + options.sched.epochs + options.sched.cooldown_epochs


def test_the_published_recipes_are_shipped():
    shipped = {path.stem for path in FOLDER.glob("*.yaml")}
    vision, events = ("cifar10", "cifar100", "imagenet"), ("cifar10dvs", "gesture")
    of_family = {
        "spikformer": (*vision, "cifar10dvs", "digits", "ndigits"),
        "spikformer_cml": ("cifar10",),
        "spikingformer": (*vision, *events),
        "spikingformer_cml": (*vision, *events, "imagenet_288"),
        "sdt": (*vision, *events, "imagenet_6_512", "imagenet_10_512", "imagenet_8_768"),
        "sdt_v2": ("imagenet_t1", "imagenet_t4"),
        "qkformer": (*vision, *events, "imagenet_10_768"),
        "spikingresformer": (*vision, *events, "imagenet_m", "imagenet_l"),
        "autost": ("cifar10",),
        "tim": ("cifar10dvs", "shd"),
        "sglformer": (*vision, *events),
        "ost": (*vision, *events),
        "spikeformer": ("imagenet", *events),
    }
    assert shipped >= {f"{family}_{data}" for family, names in of_family.items() for data in names}
    transfers = {f"spikingresformer_{data}_transfer" for data in ("cifar10", "cifar100", *events)}
    assert shipped >= transfers
