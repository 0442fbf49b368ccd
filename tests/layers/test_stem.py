"""Spikformer's stem halves the sides where it pools, and takes an image for its copies."""

from functools import partial

import pytest
import torch

from braincog_transformers import LIFNode
from braincog_transformers.layers import SpikingPatchSplitting

T = 2


@pytest.mark.parametrize("pool", ["before", "after"])
@pytest.mark.parametrize("pooled", [[False] * 4, [False, False, True, True], [True] * 4])
def test_tokens_are_sums_of_two_spikes(pool, pooled):
    torch.manual_seed(0)
    node = partial(LIFNode, threshold=0.2, step=T, layer_by_layer=True)
    side = 16 >> sum(pooled)
    stem = SpikingPatchSplitting((side, side), pooled, 3, 16, pool=pool, node=node).double().eval()
    image = torch.randn(2, 3, 16, 16).double()
    tokens = stem(image.repeat(T, 1, 1, 1))
    assert tokens.shape == (T * 2, side**2, 16)
    assert set(tokens.unique().tolist()) <= {0, 1, 2}
    assert tokens.count_nonzero() > 0
    torch.testing.assert_close(stem(image, copies=T), tokens)
    maps = stem.stages(image, copies=T)
    assert torch.equal(tokens.view(-1, side, side, 16).permute(0, 3, 1, 2), maps + stem.rpe(maps))
