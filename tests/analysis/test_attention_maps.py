"""Attention maps are what a plain computation from the recorded spikes gives, for each kind of attention."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from braincog_transformers.analysis.attention_maps import attention_maps, received
from braincog_transformers.analysis.pictures.maps import plot_attention
from braincog_transformers.analysis.pictures.visualize import draw_attention
from braincog_transformers.analysis.recorder import frozen_inference, record
from tests.families import (
    FAMILIES,
    attention_free_spikformer,
    ost,
    qkformer,
    sdt,
    sglformer,
    spikformer,
    spikingresformer,
)


def build(family, **more):
    """Build a family's tiny example, normalised so that every layer fires, and an input."""
    torch.manual_seed(0)
    model = timm.create_model(family.EXAMPLE, **{"threshold": 0.2, **family.TINY, **more})
    x = 3 * torch.rand(2, model.in_chans, *model.img_size)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    return model.eval(), x


def spikes_of(model, x):
    """Return the spikes `(T, ...)` of the first sample by node."""
    with frozen_inference(model), record(model) as records:
        model(x)
    return {name: entry.spikes[:, 0] for name, entry in records.items()}


def heads_of(tokens, heads):
    """Turn `(T, N, C)` into `(T, h, N, d)`."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def only(maps, name):
    """Return the maps `(T, h, h*w)` of one attention by label, and require that something is in them."""
    found = {each.label: each.values.reshape(*each.values.shape[:2], -1) for each in maps if each.name == name}
    assert all(values.any() for values in found.values())
    return found


@pytest.mark.parametrize("shape", [(1, 7), (11, 3), (2, 3, 13, 5)])
def test_received_attention_is_the_column_mean_of_the_product(shape):
    q, k = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.allclose(received(q, k), (q @ k.transpose(-2, -1)).mean(-2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("layer_by_layer", [True, False], ids=["layer_by_layer", "step_by_step"])
def test_product_without_softmax(layer_by_layer):
    model, x = build(spikformer)
    spikes = spikes_of(model, x)
    model.set_attr("layer_by_layer", layer_by_layer)
    q, k = (heads_of(spikes[f"blocks.1.attn.{name}.node"], 2) for name in "qk")
    expected = torch.einsum("thid,thjd->thij", q, k).mean(2)
    assert np.allclose(only(attention_maps(model, x), "blocks.1.attn")["$QK^T$"], expected, rtol=0, atol=1e-6)


def test_gates_of_the_spike_driven_transformer():
    model, x = build(sdt, attn_pool=False)
    spikes = spikes_of(model, x)
    q, k, v = (spikes[f"blocks.0.attn.{name}.node"] for name in "qkv")
    gate = spikes["blocks.0.attn.gate_node"]
    found = only(attention_maps(model, x), "blocks.0.attn")
    assert np.allclose(found["$K \\odot V$"][:, 0], (k * v).mean(-1), rtol=0, atol=1e-6)
    assert np.allclose(found["gated $Q$"][:, 0], (q * gate[:, None]).mean(-1), rtol=0, atol=1e-6)


def test_token_mask_of_qkformer():
    model, x = build(qkformer)
    name = "stages.0.blocks.0.attn"
    spikes = spikes_of(model, x)
    mask, k = spikes[f"{name}.attn_node"], spikes[f"{name}.k.node"]
    found = only(attention_maps(model, x), name)
    assert np.array_equal(found["mask"], mask.transpose(1, 2))
    passed = (k.unflatten(-1, (2, -1)) * mask[..., None]).mean((2, 3))
    assert np.allclose(found["masked $K$"][:, 0], passed, rtol=0, atol=1e-6)


def test_spikes_of_the_dual_attention_map():
    model, x = build(spikingresformer)
    name = "stages.0.0.attn"
    rows = spikes_of(model, x)[f"{name}.attn_node"]  # (T, h, n, N): the pooled places by the queries
    maps = attention_maps(model, x)
    assert np.allclose(only(maps, name)["spike map"], rows.mean(-1), rtol=0, atol=1e-6)
    assert maps[0].values.shape == (2, 2, 8, 8)  # 16 pixels, a convolution of stride 1, pooled by two


def test_keys_and_queries_of_gated_attention():
    model, x = build(ost)
    spikes = spikes_of(model, x)
    found = only(attention_maps(model, x), "blocks.0.attn")
    for label, part in (("$K$", "k"), ("$Q$", "q")):
        expected = sum(spikes[f"blocks.0.attn.{part}.node.{j}"] for j in range(2)).mean(-1)
        assert np.allclose(found[label][:, 0], expected, rtol=0, atol=1e-6)


def test_places_of_interleaved_sub_grids_are_put_back():
    model, x = build(sglformer)
    name = "blocks.0.branches.ssa1"
    spikes = spikes_of(model, x)
    q, k = (heads_of(spikes[f"{name}.{part}.node"], 2) for part in "qk")
    places = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    together = (places[:, None] % 2 == places[None] % 2).all(-1).float()  # rows and columns of equal parity
    expected = (torch.einsum("thid,thjd->thij", q, k) * together).sum(2) / together.sum(0)
    assert np.allclose(only(attention_maps(model, x), name)["$QK^T$"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.EXAMPLE)
def test_every_family_has_a_picture(family, tmp_path):
    model, x = build(family)
    maps = attention_maps(model, x)
    if family is attention_free_spikformer:
        assert draw_attention(model, (x, torch.zeros(2)), tmp_path) is None
        return
    assert {each.values.shape[0] for each in maps} == {model.unit_steps}
    assert all(each.what and each.values.dtype == np.float32 for each in maps)
    path = draw_attention(model, (x, torch.zeros(2)), tmp_path)
    assert path == tmp_path / "attention.png"
    assert path.stat().st_size > 5000


def test_the_picture_says_what_it_shows():
    maps = attention_maps(*build(sdt, attn_pool=False))[:2]
    figure = plot_attention([np.zeros((16, 16))] * 2, maps)
    caption = figure.get_supxlabel().replace("\n", " ")
    assert all(each.what in caption for each in maps)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == [
        "input", "blocks.0.attn\n$K \\odot V$", "blocks.0.attn\ngated $Q$", "input behind\nthe last map"
    ]  # fmt: skip


def test_a_deep_network_shows_a_few_blocks_from_first_to_last(tmp_path, monkeypatch):
    from braincog_transformers.analysis.pictures import visualize

    drawn = []
    monkeypatch.setattr(
        visualize, "plot_attention", lambda _shown, maps: drawn.extend(maps) or plot_attention(_shown, maps)
    )
    model, x = build(sdt, depth=9)
    draw_attention(model, x, tmp_path)
    assert [each.name for each in drawn] == [f"blocks.{i}.attn" for i in (0, 0, 4, 4, 8, 8)]


def test_sequences_have_no_map(tmp_path):
    model = timm.create_model("tim_2_256_shd", embed_dim=64, num_heads=4, depth=1, step=2)
    assert attention_maps(model, torch.rand(1, 2, 700)) == []
    assert draw_attention(model, torch.rand(1, 2, 1, 1, 700), tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_network_without_attention_has_no_map(tmp_path):
    assert draw_attention(nn.Conv2d(1, 1, 1), torch.rand(2, 1, 4, 4), tmp_path) is None


def test_the_network_is_left_as_it_was():
    model, x = build(qkformer)
    model.train()
    attention_maps(model, x)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
