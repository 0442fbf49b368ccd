"""The shipped recipes: each is complete, resolves, and builds its network."""

from pathlib import Path

import pytest
import timm
import torch
import yaml

import braincog_transformers
from braincog_transformers.options import resolve

FOLDER = Path(__file__).parent.parent / "examples" / "recipes"
RECIPES = [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.yaml"))]


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_resolves_and_lists_only_what_differs_from_the_defaults(path):
    options = resolve(["-c", str(path)])
    listed = set(yaml.safe_load(path.read_text()))
    assert listed - {"dataset"} == set(options.changed()) - {"dataset"}


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_opens_with_four_comment_lines(path):
    lines = path.read_text().splitlines()
    assert [line.startswith("# ") for line in lines[:5]] == [True] * 4 + [False]
    assert f"-c examples/recipes/{path.name}" in lines[1]
    assert "Expected:" in lines[2]
    assert "erun here" in lines[3]


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_builds_its_network(path):
    name = resolve(["-c", str(path)]).model.model
    assert name in braincog_transformers.list_models()
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in timm.create_model(name).parameters()) > 0


def test_the_published_recipes_are_shipped():
    assert {path.stem for path in FOLDER.glob("*.yaml")} >= {
        "spikformer_cifar10",
        "spikformer_cifar100",
        "spikformer_imagenet",
        "spikformer_cifar10dvs",
        "spikformer_cml_cifar10",
        "spikformer_digits",
        "spikformer_ndigits",
    }
