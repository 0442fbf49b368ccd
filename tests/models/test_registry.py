"""What registering a table of variants gives: functions, timm's entries and configurations, and clear mistakes."""

import copy
import pickle
import sys
from dataclasses import FrozenInstanceError
from types import ModuleType

import pytest
import timm
import torch
from families import EXAMPLES, batch, tiny, wake

from braincog_transformers import UserError, cli, list_models
from braincog_transformers.models import REGISTERED, describe
from braincog_transformers.models.registry import Paper, Variant, cfg, cifar, events, flat, imagenet, register
from braincog_transformers.models.spikformer import Spikformer

PAPER = Paper("Ownformer", "nowhere 2026", "arXiv:0000.00000", "me/own")
SMALL = flat(1, 16, 2, patch_size=1, step=2)
MODULES = sorted({entry.cls.__module__ for entry in REGISTERED.values()})


@pytest.fixture
def own(monkeypatch):
    """A class in a module outside the package; what it registers is forgotten afterwards."""
    module = ModuleType("own_networks")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("own_a", "own_b"):
        monkeypatch.delitem(REGISTERED, name, raising=False)
    before = dict(REGISTERED)
    module.Ownformer = type("Ownformer", (Spikformer,), {"__module__": module.__name__})
    yield module.Ownformer
    REGISTERED.clear()
    REGISTERED.update(before)
    for name in ("own_a", "own_b"):
        timm.models._registry._model_entrypoints.pop(name, None)


def registered(cls, variants=("own_a",), **kwargs):
    rows = {name: Variant(SMALL, {"": cfg(PAPER, (1, 8, 8), 10)}) for name in variants}
    register(cls, rows, first_conv="patch_embed.stages.0.conv", **kwargs)


# The tables


def test_a_name_is_a_function_of_the_module_of_its_class():
    for name, entry in REGISTERED.items():
        function = getattr(sys.modules[entry.cls.__module__], name)
        assert (function.__name__, function.__module__) == (name, entry.cls.__module__)
        assert (entry.alias_of or entry.cls.__name__) in function.__doc__
        assert pickle.loads(pickle.dumps(function)) is function


def test_a_name_of_another_module_is_refused_and_stays_as_it_was(own):
    before = REGISTERED["spikformer_digits"]
    with pytest.raises(UserError, match=r"^spikformer_digits: Spikformer has this name; choose another$"):
        registered(own, ("own_a", "spikformer_digits"))
    assert REGISTERED["spikformer_digits"] is before
    assert "own_a" not in REGISTERED
    with pytest.raises(UserError, match=r"^own_a: the same name stands for a variant and for an alias$"):
        registered(own, aliases={"own_a": "own_a"})


def test_a_module_that_is_run_again_registers_again(own):
    registered(own)
    with pytest.warns(UserWarning, match="Overwriting own_a"):
        registered(own)
    assert REGISTERED["own_a"].cls is own


def test_an_alias_has_the_row_of_its_variant():
    aliases = {name: entry for name, entry in REGISTERED.items() if entry.alias_of}
    assert {"spikformer", "spikformer_dvs", "sd_transformer", "sd_transformer_v2"} <= aliases.keys()
    for entry in aliases.values():
        assert REGISTERED[entry.alias_of].variant is entry.variant
        assert REGISTERED[entry.alias_of].cls is entry.cls
        assert not REGISTERED[entry.alias_of].alias_of


def test_a_row_can_not_be_changed_behind_the_registry():
    with pytest.raises(FrozenInstanceError):
        REGISTERED["spikformer_digits"].cls = None


# timm's registry


@pytest.mark.parametrize("module", MODULES)
def test_timm_lists_the_names_of_a_module(module):
    wanted = {name for name, entry in REGISTERED.items() if entry.cls.__module__ == module}
    assert set(timm.list_models(module=module.rpartition(".")[2])) == wanted
    assert wanted <= set(list_models())
    assert wanted <= set(sys.modules[module].__all__)


def test_every_row_has_its_configurations_in_timm_the_first_by_default():
    for name, entry in REGISTERED.items():
        for tag, given in entry.variant.cfgs.items():
            found = timm.get_pretrained_cfg(f"{name}.{tag}" if tag else name)
            assert (found.architecture, found.tag or "") == (name, tag)
            assert {key: getattr(found, key) for key in given} == given
            assert found.first_conv or found.input_size[1] == 1
        first = next(iter(entry.variant.cfgs))
        assert (timm.get_pretrained_cfg(name).tag or "") == first
    assert not timm.list_models(pretrained=True, module="spikformer")


def test_configurations_say_what_the_papers_say():
    given = cifar(PAPER, 95.5, None)
    assert list(given) == ["cifar10"]
    assert given["cifar10"]["notes"] == ("CIFAR10 95.5",)
    assert given["cifar10"]["mean"] == (0.4914, 0.4822, 0.4465)
    assert imagenet(PAPER, "", crop_pct=0.9)["in1k"] | {"notes": 1} == imagenet(PAPER, 7, crop_pct=0.9)["in1k"] | {
        "notes": 1
    }
    assert imagenet(PAPER, "")["in1k"]["notes"] is None
    both = events(PAPER, "", "98.3", side=64)
    assert {tag: (found["num_classes"], found["notes"]) for tag, found in both.items()} == {
        "cifar10dvs": (10, None),
        "gesture": (11, ("DVS128 Gesture 98.3",)),
    }
    one = both["gesture"]
    assert (one["input_size"], one["mean"], one["std"]) == ((2, 64, 64), (0.0, 0.0), (1.0, 1.0))
    assert (one["paper_name"], one["origin_url"]) == ("Ownformer, nowhere 2026", "https://github.com/me/own")


# A network from outside


def test_a_subclass_from_outside_is_a_network_like_the_others(own):
    registered(own, ("own_a", "own_b"), aliases={})
    model = timm.create_model("own_a", num_classes=3, depth=2)
    assert type(model) is own
    assert (len(model.blocks), model.num_classes, model.step) == (2, 3, 2)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    assert model.default_cfg["first_conv"] == "patch_embed.stages.0.conv"
    assert list_models("own_*") == timm.list_models(module="own_networks") == ["own_a", "own_b"]
    (info,) = describe("own_b")
    assert (info.family, info.year, info.kind, info.input_size) == ("Ownformer", 2026, "image", (1, 8, 8))
    assert sys.modules["own_networks"].own_b().num_classes == 10


# Mistakes


def test_an_unknown_name_is_one_line_with_the_nearest(capsys):
    assert cli.main(["--model", "spikformer_4_348_cifar", "--dataset", "cifar10"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown model 'spikformer_4_348_cifar'; did you mean spikformer_4_384_cifar")
    assert len(error.splitlines()) == 1
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model("spikformer_4_348_cifar")
    with pytest.raises(RuntimeError, match="nothing"):
        timm.create_model("spikformer_digits.nothing")


def test_a_bad_argument_names_network_argument_rule_and_value(capsys):
    with pytest.raises(TypeError, match="Spikformer got an unexpected argument dept"):
        timm.create_model("spikformer_digits", dept=1)
    with pytest.raises(UserError, match=r"^Spikformer: depth must be at least 1; got 0$"):
        timm.create_model("spikformer_digits", depth=0)
    with pytest.raises(UserError, match=r"^spikformer_digits: no official weights were released"):
        timm.create_model("spikformer_digits", pretrained=True)
    with pytest.raises(UserError, match=r"^spikformer_digits: feature_cls must be 'getter'"):
        timm.create_model("spikformer_digits", features_only=True, feature_cls="hook")
    command = ["--model", "spikformer_digits", "--dataset", "digits", "--model-kwargs"]
    for given, rule in (
        ("depth=0", "Spikformer: depth must be at least 1; got 0"),
        ("dept=1", "'dept'; did you mean depth or step?"),
    ):
        assert cli.main([*command, given]) == 2
        error = capsys.readouterr().err
        assert rule in error
        assert len(error.splitlines()) == 1


# Copies


@pytest.mark.parametrize("name", EXAMPLES)
def test_copies_and_pickles_are_the_same_network(name):
    model = wake(tiny(name)).eval()
    x = batch(model)
    expected = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert str(twin) == str(model)
        assert twin.default_cfg == model.default_cfg
        assert torch.equal(twin(x), expected)
        assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in model.parameters()}
