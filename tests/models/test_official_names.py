"""Official names: each network has its own, and what a user derives from it inherits them."""

import json
from pathlib import Path

import pytest
import torch
from families import builder_of, vectors_in
from safetensors.torch import safe_open

from braincog_transformers.checkpoints import load_state
from braincog_transformers.models.official import OfficialNames

VECTORS = vectors_in(Path(__file__).parents[1] / "golden")[0]


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_users_subclass_reads_official_weights(path):
    with safe_open(path, "pt") as file:
        meta = file.metadata()
        state = {name[6:]: file.get_tensor(name) for name in file.keys() if name.startswith("state.")}  # noqa: SIM118
        shapes = {
            "input_shape": tuple(file.get_slice("input").get_shape()),
            "classes": file.get_slice("logits_eval").get_shape()[-1],
        }
    with torch.device("meta"):
        model = builder_of(meta)(json.loads(meta["kwargs"]), {**meta, **shapes})
    model.to_empty(device="cpu")
    model.__class__ = type("Own", (type(model),), {})
    assert "tensors into Own" in load_state(model, state)


def test_a_name_that_the_paper_never_uses_is_left_out_for_its_reason():
    rules = ((r"^block\.", "blocks."), (r"_conv\.", ".conv."))
    names = OfficialNames(rename=rules, dead=((r"^norm\.", "never called"),))
    assert names.translate("block.0.q_conv.weight") == "blocks.0.q.conv.weight"
    assert names.translate("norm.weight") is None
    assert (names.reason_dead("norm.weight"), names.reason_dead("head.weight")) == ("never called", "")
