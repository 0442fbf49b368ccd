"""The papers' own source networks: registered with timm and in their own table, not in the zoo's."""

import sys
from types import ModuleType

import pytest
import timm
from torch import nn

from braincog_transformers import UserError
from braincog_transformers.conversion.sources import SOURCES, register_source
from braincog_transformers.models.registry import REGISTERED, Paper, Variant, cfg

PAPER = Paper("Ownnet", "nowhere 2026", "arXiv:0000.00000", "me/own")


class Ownnet(nn.Module):
    def __init__(self, width=3, num_classes=10, in_chans=1, img_size=8):
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(x)


@pytest.fixture
def own(monkeypatch):
    module = ModuleType("own_sources")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield type("Ownnet", (Ownnet,), {"__module__": module.__name__})
    for table in (SOURCES, timm.models._registry._model_entrypoints):
        table.pop("own_source", None)


def register_own(cls, name="own_source"):
    variants = {name: Variant({"width": 5}, {"": cfg(PAPER, (1, 8, 8), 10)})}
    register_source(cls, "qcfs", PAPER, variants, first_conv="head")


def test_a_source_is_built_by_timm_and_is_no_network_of_the_zoo(own):
    register_own(own)
    assert (SOURCES["own_source"].method, SOURCES["own_source"].paper) == ("qcfs", PAPER)
    assert "own_source" not in REGISTERED
    built = timm.create_model("own_source", num_classes=7)
    assert (type(built), built.head.weight.shape) == (own, (7, 5))


def test_a_name_of_the_zoo_or_of_another_source_is_refused(own):
    with pytest.raises(UserError, match=r"^spikformer_digits: Spikformer has this name; choose another$"):
        register_own(own, "spikformer_digits")
    register_own(own)
    other = type("Other", (Ownnet,), {"__module__": "elsewhere"})
    with pytest.raises(UserError, match=r"^own_source: Ownnet has this name; choose another$"):
        register_own(other)
    assert SOURCES["own_source"].entry.cls is own
