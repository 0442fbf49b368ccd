"""Arguments of another type than is declared, or out of any range, are refused by name before a layer is built."""

import re

import pytest
import timm
import torch

from braincog_transformers import UserError
from braincog_transformers.models.qkformer import QKFormer
from braincog_transformers.models.spikformer import Spikformer
from braincog_transformers.models.spikingresformer import SpikingResformer


@pytest.mark.parametrize(
    ("name", "argument", "rule"),
    [
        ("spikformer_digits", {"depth": -1}, "depth must be at least 1; got -1"),
        ("spikformer_digits", {"depth": 10**6}, "depth must be at most 1000"),
        ("spikformer_digits", {"depth": 1.5}, "depth must be a whole number; got 1.5"),
        ("spikformer_digits", {"embed_dim": 0}, "embed_dim must be at least 1"),
        ("spikformer_digits", {"num_heads": 0}, "num_heads must be at least 1"),
        ("spikformer_digits", {"pool": "x"}, "pool must be 'before' or 'after'; got 'x'"),
        ("spikformer_digits", {"attn_scale": float("nan")}, "attn_scale must be a finite number"),
        ("sdt_digits", {"mlp_ratio": -1}, "mlp_ratio must be above 0"),
        ("sdt_digits", {"attn_pool": "False"}, "attn_pool must be True or False; got 'False'"),
        ("qkformer_digits", {"depths": ()}, "depths must be several values, each a whole number"),
        ("tim_ndigits", {"img_size": (8, 8, 8)}, "img_size must be a whole number or 2 values, each a whole number"),
        ("sglformer_digits", {"drop_path_rate": 1.5}, "drop_path_rate must be at most 1"),
        ("spikingformer_digits", {"tau": float("nan")}, "tau must be a finite number"),
        ("spikingformer_digits", {"threshold": float("inf")}, "threshold must be a finite number"),
        ("spikingformer_digits", {"node_type": 3}, "node_type must be a name or a class"),
    ],
)
def test_arguments_that_no_network_can_have_are_named(name, argument, rule):
    with torch.device("meta"), pytest.raises(UserError, match=re.escape(rule)):
        timm.create_model(name, **argument)


def test_arguments_of_a_users_own_network_are_its_own():
    class Own(Spikformer):
        def __init__(self, depth: str = "deep", **common):
            super().__init__(depth=1 if depth == "shallow" else 2, **common)

    tiny = {"embed_dim": 16, "num_heads": 2, "img_size": 16}
    assert len(Own(depth="shallow", **tiny).blocks) == 1
    with pytest.raises(UserError, match="Own: num_heads must be at least 1"):
        Own(depth="deep", embed_dim=16, num_heads=0)


@pytest.mark.parametrize(
    ("base", "argument", "rule"),
    [
        (QKFormer, {"stem": "foo"}, "Own: stem must be 'imagenet' or 'cifar' or 'dvs'; got 'foo'"),
        (QKFormer, {"depths": ()}, "Own: depths must be several values"),
        (QKFormer, {"num_heads": 0}, "Own: num_heads must be at least 1"),
        (SpikingResformer, {"stem_stride": 2}, "Own: stem_stride must be 1 or 4; got 2"),
        (SpikingResformer, {"group_size": 0}, "Own: group_size must be at least 1"),
    ],
)
def test_what_a_users_own_network_hands_to_its_base_is_checked_too(base, argument, rule):
    class Own(base):
        def __init__(self, **common):
            super().__init__(**argument, **common)

    with torch.device("meta"), pytest.raises(UserError, match=re.escape(rule)):
        Own()


def test_a_users_own_network_may_describe_its_features():
    class Own(Spikformer):
        def __init__(self, **common):
            super().__init__(**common)
            self.feature_info = self.feature_info[:1]

    assert len(Own(depth=2, embed_dim=16, num_heads=2, img_size=16).feature_info) == 1
