"""Windows of two and three axes: against timm's blocks, and against attention written out token by token."""

import itertools

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock, get_relative_position_index

from braincog_transformers.layers import WindowBlock
from braincog_transformers.layers.windows import different_regions, join_windows, relative_positions, split_windows

CASES = [
    ((14, 7), (7, 7), (0, 0), False),
    ((14, 21), (7, 7), (3, 3), False),
    ((5, 9), (3, 4), (1, 2), False),
    ((2, 3), (4, 4), (2, 1), False),
    ((3, 8, 5), (2, 4, 4), (1, 2, 2), False),
    ((4, 8, 4), (2, 4, 4), (0, 2, 0), False),
    ((2, 8, 3), (2, 4, 4), (1, 2, 2), True),
    ((2, 3, 4), (2, 4, 4), (1, 2, 2), True),
]


def _block(window, shift, clip):
    torch.manual_seed(0)
    block = WindowBlock(8, 2, window, shift, clip=clip).double()
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    torch.nn.init.normal_(block.norm1.bias)  # padding is behind the normalisation: zeros, not what it makes of zeros
    return block


@torch.no_grad()
def _attention(block, x, window, shift):
    """Return the attention branch, token by token: who sees whom follows from places alone."""
    attn, sizes = block.attn, x.shape[1:-1]
    padded = [-(-size // side) * side for size, side in zip(sizes, window, strict=True)]
    tokens = torch.zeros(len(x), *padded, x.shape[-1], dtype=x.dtype)
    tokens[(slice(None), *map(slice, sizes))] = block.norm1(x)
    full = [2 * side - 1 for side in block.window]
    windows, out = {}, torch.zeros_like(tokens)
    for place in itertools.product(*map(range, padded)):
        rolled = [(p - by) % size for p, by, size in zip(place, shift, padded, strict=True)]
        key = tuple(r // side for r, side in zip(rolled, window, strict=True))
        inner = tuple(r % side for r, side in zip(rolled, window, strict=True))
        wrapped = tuple(p < by for p, by in zip(place, shift, strict=True))
        windows.setdefault(key, []).append((inner, wrapped, place))
    for members in windows.values():
        members.sort()
        inside = torch.stack([tokens[(slice(None), *place)] for _, _, place in members], 1)
        q, k, v = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in attn.qkv(inside).chunk(3, -1))
        products = q @ k.mT * q.shape[-1] ** -0.5
        corner = list(itertools.product(*map(range, block.window)))[: len(members)]
        for a, b in itertools.product(range(len(members)), repeat=2):
            number = 0
            for i, j, side, many in zip(corner[a], corner[b], block.window, full, strict=True):
                number = number * many + i - j + side - 1
            products[:, :, a, b] += attn.relative_position_bias_table[number]
            products[:, :, a, b] -= 100.0 * (members[a][1] != members[b][1])
        mixed = attn.proj((products.softmax(-1) @ v).transpose(1, 2).flatten(2))
        for i, (_, _, place) in enumerate(members):
            out[(slice(None), *place)] = mixed[:, i]
    return out[(slice(None), *map(slice, sizes))]


@pytest.mark.parametrize(("sizes", "window", "shift", "clip"), CASES)
def test_a_block_is_attention_within_its_windows(sizes, window, shift, clip):
    block = _block(window, shift, clip)
    x = torch.randn(2, *sizes, 8, dtype=torch.float64)
    if clip:
        shift = tuple(0 if size <= side else by for size, side, by in zip(sizes, window, shift, strict=True))
        window = tuple(map(min, sizes, window))
    y = x + _attention(block, x, window, shift)
    expected = y + block.mlp(block.norm2(y))
    assert (block(x) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("shift", [0, 3])
def test_a_map_that_fills_its_windows_is_seen_as_by_timm(shift):
    theirs = SwinTransformerBlock(12, (14, 21), 3, window_size=7, shift_size=shift).double()
    ours = WindowBlock(12, 3, (7, 7), (shift, shift)).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 14, 21, 12, dtype=torch.float64)
    assert (ours(x) - theirs(x)).abs().max() < 1e-12


@pytest.mark.parametrize(("sizes", "window"), [((6, 8), (3, 4)), ((2, 4, 6), (2, 2, 3))])
def test_joining_undoes_splitting(sizes, window):
    x = torch.arange(2 * torch.Size(sizes).numel() * 3).view(2, *sizes, 3)
    windows = split_windows(x, window)
    assert windows.shape == (2, torch.Size(sizes).numel() // torch.Size(window).numel(), torch.Size(window).numel(), 3)
    assert torch.equal(windows[0, 0].view(*window, 3), x[(0, *map(slice, window))])
    assert torch.equal(join_windows(windows, window, sizes), x)


def test_distances_are_numbered_as_by_timm():
    assert torch.equal(relative_positions((3, 5)), get_relative_position_index(3, 5))


def test_nothing_is_apart_without_a_shift():
    assert not different_regions((4, 6), (2, 3), (0, 0)).any()
    assert different_regions((4, 6), (2, 3), (1, 0)).any((1, 2)).tolist() == [False, False, True, True]


def test_stochastic_depth_drops_branches_of_samples():
    torch.manual_seed(0)
    block = WindowBlock(8, 2, (2, 2), (1, 1), drop_path=0.5).train()
    x = torch.randn(64, 4, 4, 8)
    same = (block(x) == x).flatten(1).all(1).float().mean()
    assert 0.05 < same < 0.5
    assert not (block.eval()(x) == x).flatten(1).all(1).any()
