"""One module by family of models: tiny sizes, parameter counts, and how to build the networks of its vectors."""

import importlib
import pkgutil

import pytest
import timm
import torch
from safetensors import safe_open

from braincog_transformers import list_models
from braincog_transformers.models import REGISTERED

from . import masked
from .official import source_of

_OTHERS = {"masked", "official"}
FAMILIES = tuple(
    importlib.import_module(f".{file.name}", __name__)
    for file in pkgutil.iter_modules(__path__)
    if file.name not in _OTHERS
)

NAMES = list_models()
EXAMPLES = [family.EXAMPLE for family in FAMILIES]


def builder_of(meta):
    """Return what builds the network of a vector with these metadata; None if no family does."""
    repository, path = source_of(meta)
    if repository == "BrainCog-X/Brain-Cog" and "TIM" not in path.split("/"):
        return None
    builders = (family.SOURCES.get((repository, meta.get("class"))) for family in FAMILIES)
    return next((build for build in builders if build), None)


def vectors_in(folder):
    """Return the paths of a folder's vectors: those that a family builds, and the others."""
    built, others = [], []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            (built if builder_of(file.metadata() or {}) else others).append(path)
    return built, others


def masked_in(paths):
    """Return those vectors that hold a masked pre-training."""
    return [path for path in paths if masked.holds(path)]


def family_of(name):
    """Return the module of a registered name: the one that lists it."""
    return next(family for family in FAMILIES if name in _listed(family))


def _listed(family):
    return {full.partition(".")[0] for full in family.PARAMETERS} | {*family.SMALL, *family.ALIASES}


def _structure(name):
    """Return what is left of a variant at its family's tiny size."""
    entry = REGISTERED[name]
    rest = {key: value for key, value in entry.variant.args.items() if key not in family_of(name).TINY}
    size = next(iter(entry.variant.cfgs.values()))["input_size"]
    return entry.cls, str(sorted(rest.items())), size[0], size[1] == 1, "img_size" in family_of(name).TINY or size


_QUICK = {*map(_structure, (*EXAMPLES, "spikformer_2_256_dvs", "sglformer_8_384", "tim_2_256_shd"))}
DISTINCT = [
    name if structure in _QUICK else pytest.param(name, marks=pytest.mark.slow)
    for structure, name in {_structure(name): name for name in reversed(NAMES)}.items()
]
"""Names whose networks differ at the tiny size: what is tested of one holds of those that are the same there. One for
each class and kind of input is quick, the others are slow."""


def tiny(name, **kwargs):
    """Build a registered network at its family's tiny size, always with the same weights."""
    torch.manual_seed(0)
    return timm.create_model(name, **{**family_of(name).TINY, **kwargs})


def batch(model, size=2, events=None):
    """Return inputs of a network: images, or frames where it is made for events."""
    channels, (height, width) = model.in_chans, model.img_size
    if events if events is not None else channels == 2 or height == 1:  # a sequence has a height of 1
        return torch.rand(size, model.step, channels, height, width).mul(3).round()
    return torch.rand(size, channels, height, width)


def wake(model):
    """Raise the normalisations' biases, so that the neurons of a fresh tiny network fire."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.bias, 0.7)
    return model
