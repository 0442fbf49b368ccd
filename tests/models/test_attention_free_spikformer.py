"""Attention-free Spikformer: what its transforms compute, what they cost, what they can't take."""

import pytest
import timm
import torch
from families import batch, tiny, wake

from braincog_transformers import UserError
from braincog_transformers.analysis.audit import audit
from braincog_transformers.analysis.energy import METHODS, analyze
from braincog_transformers.layers import FourierTransform, HaarTransform

NAME = "attention_free_spikformer_4_384_cifar"
MIXINGS = ("fft1d", "fft2d", "haar1d", "haar2d", "dwt_c")
TOKENS = torch.tensor([[[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]]], dtype=torch.float64)
# The transforms of these tokens, of the construction's specification; here they are orthonormal.
EXPECTED = {
    "fft1d": torch.tensor([[2, 2, 3, 1], [0, -1, 1, 0], [2, 0, -1, -1], [0, -1, 1, 0]], dtype=torch.float64) / 2,
    "fft2d": torch.tensor([[8, -1, 2, -1], [0, -3, 2, 1], [0, 3, 2, 3], [0, 1, 2, -3]], dtype=torch.float64) / 4,
    "haar1d": torch.tensor([[1, 1, 2, 0], [1, 1, 1, 1], [1, -1, 0, 0], [1, 1, -1, -1]], dtype=torch.float64) / 2**0.5,
    "haar2d": torch.tensor([[1, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [1, -1, 0, 0]], dtype=torch.float64),
}


def transform(mixing):
    return tiny(NAME, mixing=mixing).blocks[0].attn.mix


@pytest.mark.parametrize(("mixing", "expected"), EXPECTED.items(), ids=EXPECTED)
def test_transforms_of_four_tokens(mixing, expected):
    torch.testing.assert_close(transform(mixing)(TOKENS)[0], expected, rtol=0, atol=1e-12)


def test_a_combination_learns_its_weights():
    combined = transform("dwt_c").double()
    expected = (EXPECTED["haar2d"] + EXPECTED["fft2d"]) / 2
    torch.testing.assert_close(combined(TOKENS)[0], expected)
    combined(TOKENS).square().sum().backward()
    assert combined.weights.grad.count_nonzero() == 2
    assert sum(p.numel() for p in tiny(NAME, mixing="dwt_c").parameters()) == 2 * 2 + sum(
        p.numel() for p in tiny(NAME).parameters()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_sixteen_bits_do(mixing, dtype):
    model = wake(tiny(NAME, mixing=mixing)).to(dtype).eval()
    assert model(batch(model).to(dtype)).dtype == dtype
    x = torch.ones(1, 64, 384, dtype=dtype)
    assert FourierTransform(channels=True)(x).isfinite().all()


@pytest.mark.parametrize("mixing", MIXINGS)
def test_fused_and_step_by_step_give_the_same_logits(mixing):
    model = wake(tiny(NAME, mixing=mixing, threshold=0.3)).double()
    x = batch(model).double()
    model(x)
    expected = model.eval()(x)
    model.set_attr("layer_by_layer", False)
    torch.testing.assert_close(model(x), expected)
    model.set_attr("layer_by_layer", True)
    torch.testing.assert_close(model.fuse()(x), expected, rtol=0, atol=1e-9)
    assert not [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)]


@pytest.mark.parametrize(("mixing", "macs"), [("fft1d", 16 * 16 * 4), ("fft2d", 16 * 16 * 8), ("haar2d", 16 * 16 * 4)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("error")
def test_transforms_are_in_the_energy(mixing, macs, method):
    model = wake(tiny(NAME, mixing=mixing, threshold=0.3)).eval()
    rows = [row for row in analyze(model, [batch(model)], method=method).rows if row.type == "transform"]
    assert [row.name for row in rows] == ["blocks.0.attn.mix", "blocks.1.attn.mix"]
    for row in rows:
        assert row.macs == pytest.approx(2 * macs)  # at two steps
        assert row.mac + row.ac > 0
        assert row.energy > 0


@pytest.mark.parametrize(("mixing", "inputs"), [("fft1d", "real"), ("haar2d", "integer"), ("dwt_c", "real")])
def test_the_audit_says_that_a_fourier_transform_multiplies(mixing, inputs):
    model = wake(tiny(NAME, mixing=mixing, threshold=0.3)).eval()
    found = {finding.name: finding.inputs for finding in audit(model, [batch(model)]).findings}
    mixes = {name: kind for name, kind in found.items() if ".mix" in name}
    assert inputs in mixes.values()
    assert len(mixes) == (4 if mixing == "dwt_c" else 2)


@pytest.mark.parametrize("mixing", ["haar1d", "haar2d", "dwt_c"])
def test_a_wavelet_needs_an_even_number_of_tokens(mixing):
    with pytest.raises(UserError, match=r"must be even; got img_size=\(12, 12\), patch_size=4, so 3x3=9 tokens"):
        tiny(NAME, mixing=mixing, img_size=12)
    model = tiny(NAME, mixing=mixing)
    with pytest.raises(UserError, match="5x5=25 tokens"):
        model.set_input_size(20)
    assert model.img_size == (16, 16)
    assert tiny(NAME, mixing="fft2d", img_size=12).eval()(torch.rand(1, 3, 12, 12)).shape == (1, 5)


def test_heads_are_refused():
    with pytest.raises(UserError, match="has no heads; got num_heads=4"):
        timm.create_model(NAME, num_heads=4)
    with pytest.raises(UserError, match="did you mean dwt_c"):
        timm.create_model(NAME, mixing="dct")


def test_wavelets_keep_the_sum_of_squares():
    x = torch.rand(3, 6, 8, dtype=torch.float64)
    for channels in (False, True):
        torch.testing.assert_close(HaarTransform(channels)(x).square().sum(), x.square().sum())
