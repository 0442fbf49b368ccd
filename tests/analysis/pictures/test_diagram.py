"""An architecture diagram shows every layer once, or folded into the count of its equals."""

import copy
from collections import Counter
from itertools import combinations, pairwise

import pytest
import timm
import torch
from braincog.base.node.node import BaseNode
from families import FAMILIES
from PIL import Image
from torch import nn

from braincog_transformers.analysis.pictures.architecture import describe_architecture
from braincog_transformers.analysis.pictures.dataflow import follow
from braincog_transformers.analysis.pictures.diagram import WIDTH, _pack, _panels, draw_architecture
from braincog_transformers.analysis.pictures.diagram_layout import arrange, is_circle, way

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)


def tiny(family, **changed):
    torch.manual_seed(0)
    model = timm.create_model(family.EXAMPLE, **{**family.TINY, **changed})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.7)  # the neurons of a fresh tiny network fire
    return model


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.EXAMPLE)
def model(request):
    return tiny(request.param)


@pytest.fixture(scope="module")
def described(model):
    return describe_architecture(model)


def test_every_neuron_and_weighted_layer_is_shown_once_or_folded(model, described):
    _, parts = described
    members = Counter(name for part in parts for name in part.members)
    layers = [name for name, module in model.named_modules() if isinstance(module, (BaseNode, *WEIGHTED))]
    assert {name: members[name] for name in layers} == dict.fromkeys(layers, 1)
    shown = [call.name for part in parts for box in part.boxes for call in box.calls]
    repeated = sum(len(part.names) * sum(len(box.calls) for box in part.boxes) for part in parts)
    assert len(shown) == len(set(shown))
    assert repeated == sum(members.values())


def test_parameters_by_part_are_those_of_the_model(model, described):
    _, parts = described
    assert sum(len(part.names) * part.parameters for part in parts) == sum(p.numel() for p in model.parameters())


def test_no_layer_is_called_by_a_bare_number(described):
    named = [box.detail for part in described[1] for box in part.boxes if box.role == "weighted"]
    assert named
    assert not [detail for detail in named if detail.split()[0].isdecimal()]


def test_panels_keep_apart_on_a_narrow_sheet(described):
    panels = list(_panels(*described).values())
    corners, right, bottom = _pack(panels, (250, 700), 56)
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, (panel.size for panel in panels), strict=True)]
    for one, other in combinations([(0, 0, 250, 700), *boxes], 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert right == max(250, *(box[2] for box in boxes)) <= WIDTH
    assert bottom == max(700, *(box[3] for box in boxes))


def test_boxes_and_lines_keep_apart(described):
    for part in described[1]:
        layout = arrange(part.boxes)
        spans = [
            (x - w / 2, x + w / 2, y - h / 2, y + h / 2)
            for x, y, (w, h) in zip(layout.x, layout.y, layout.sizes, strict=True)
        ]
        for i, (left, right, top, bottom) in enumerate(spans):
            for other in spans[i + 1 :]:
                assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top
            for edge in layout.edges:
                if i in (edge.source, edge.target):
                    continue
                corners = way(layout, edge)
                for (x0, y0), (x1, y1) in pairwise(corners):
                    if abs(x0 - x1) < 1e-6:  # a vertical through a box would strike it out
                        assert not (left < x0 < right and min(y0, y1) < bottom and max(y0, y1) > top), edge


def test_drawing_writes_a_picture_and_leaves_the_network_as_it_was(model, tmp_path):
    model.train()
    before = copy.deepcopy(model.state_dict())
    path = draw_architecture(model, tmp_path / "new" / "network.png")
    assert path == tmp_path / "new" / "network.png"
    width, height = Image.open(path).size
    assert 600 < width < 1800
    assert height > 600
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("depth", [1, 3])
def test_equal_blocks_are_counted(depth):
    family = next(family for family in FAMILIES if family.EXAMPLE.startswith("spikformer"))
    blocks = [part for part in describe_architecture(tiny(family, depth=depth))[1] if part.title == "Block"]
    assert [part.names for part in blocks] == [[f"blocks.{i}" for i in range(depth)]]


@pytest.mark.parametrize("changed", [{"threshold": 2.0}, {"mlp_ratio": 2.0}])
def test_a_block_of_other_sizes_stands_apart_but_is_drawn_once(changed):
    family = next(family for family in FAMILIES if family.EXAMPLE.startswith("spikformer"))
    model = tiny(family, depth=3)
    model.blocks[1] = tiny(family, depth=3, **changed).blocks[1]
    blocks = [part for part in describe_architecture(model)[1] if part.title == "Block"]
    assert [part.names for part in blocks] == [["blocks.0"], ["blocks.1"], ["blocks.2"]]
    assert len({part.pattern for part in blocks}) == 1


def test_a_pyramid_shows_each_kind_of_block():
    family = next(family for family in FAMILIES if family.EXAMPLE.startswith("qkformer"))
    _, parts = describe_architecture(tiny(family, depths=(2, 1, 1)))
    blocks = [part for part in parts if part.title == "Block"]
    assert [len(part.names) for part in blocks] == [2, 1, 1]
    assert blocks[0].pattern == blocks[1].pattern != blocks[2].pattern


def test_what_flows_is_what_was_seen():
    family = next(family for family in FAMILIES if family.EXAMPLE.startswith("spikformer"))
    calls = follow(tiny(family))
    nodes = [call for call in calls.values() if isinstance(call.module, BaseNode)]
    assert {call.kind for call in nodes} <= {"binary", "silent"}
    assert calls["blocks.0.attn.q.node"].kind == "binary"
    addition = calls["blocks.0.+"]
    assert (addition.kind, set(addition.sources)) == ("integer", {"patch_embed.+", "blocks.0.attn.proj.node"})
    assert calls["blocks.0.attn.q.linear"].shape == (2, 16, 16)
    assert calls["patch_embed.stages.0.conv"].shape == (2, 16, 16)  # once for all steps
    assert calls["input"].kind == "real"


def test_a_silent_network_is_not_called_binary():
    family = next(family for family in FAMILIES if family.EXAMPLE.startswith("spikformer"))
    assert follow(tiny(family, threshold=1e6))["blocks.0.attn.q.node"].kind == "silent"


def test_a_recurrence_over_steps_is_a_line_back():
    family = next(family for family in FAMILIES if family.EXAMPLE.startswith("tim"))
    block = next(part for part in describe_architecture(tiny(family, step=4))[1] if part.title == "Block")
    layout = arrange(block.boxes)
    back = [edge for edge in layout.edges if edge.back]
    assert [(block.boxes[e.source].role, block.boxes[e.target].detail.split()[0]) for e in back] == [
        ("neuron", "attn.tim")
    ]
    assert any(is_circle(box) for box in block.boxes)


def test_a_learnt_constant_stands_right_above_what_reads_it():
    family = next(family for family in FAMILIES if family.EXAMPLE.startswith("stsa"))
    block = next(part for part in describe_architecture(tiny(family))[1] if part.title == "Block")
    layout = arrange(block.boxes)
    (constant,) = (i for i, box in enumerate(block.boxes) if box.head == "PositionBias")
    (edge,) = (edge for edge in layout.edges if edge.source == constant)
    assert block.boxes[edge.target].head == "+"
    assert layout.ranks[edge.target] == layout.ranks[constant] + 1


def test_a_network_that_streams_is_drawn_with_all_steps():
    family = next(family for family in FAMILIES if family.EXAMPLE.startswith("spikformer"))
    model = tiny(family)
    model.set_streaming()
    assert follow(model)["blocks.0.+"].shape == (2, 16, 16)
    assert model.streaming


def test_an_integer_neuron_shows_what_it_fires():
    family = next(family for family in FAMILIES if family.EXAMPLE.startswith("spikformer"))
    _, parts = describe_architecture(tiny(family, node_type="ILIFNode", levels=3))
    heads = {box.head for part in parts for box in part.boxes if box.role == "neuron"}
    assert heads
    assert all("\u03b8 1, 0 \u2026 3" in head or "\u03b8 0.5, 0 \u2026 3" in head for head in heads)
