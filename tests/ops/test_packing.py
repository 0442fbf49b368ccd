"""What autograd keeps: spikes as bits, small whole numbers as bytes, and equal gradients."""

import pytest
import torch
from torch.nn import functional as F

from braincog_transformers.ops import fused_neuron, packing
from braincog_transformers.ops.dynamics import Dynamics
from braincog_transformers.ops.neuron import multi_step
from braincog_transformers.ops.packing import bits_dtype, packed_spikes

needs_compiler = pytest.mark.skipif(
    not fused_neuron.compiler_works("cpu"), reason="torch.compile finds no working C++ compiler here"
)


def _kept(monkeypatch):
    """Return a list that fills with what is kept, as it is kept."""
    kept, pack = [], packing._pack

    def spy(noted, tensor):
        kept.append(pack(noted, tensor))
        return kept[-1]

    monkeypatch.setattr(packing, "_pack", spy)
    return kept


def _bytes(kept):
    return sum({id(k.small): k.small.content.nbytes for k in kept}.values())


def _gradient(x, weight, packed):
    weight = weight.clone().requires_grad_()
    with packed_spikes() if packed else torch.enable_grad():
        loss = F.linear(x, weight).square().sum()
    loss.backward()
    return weight.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("largest", "small"), [(1, True), (255, True), (256, False)])
def test_whole_numbers_become_bytes(monkeypatch, dtype, largest, small):
    if dtype == torch.bfloat16 and largest == 256:
        largest = 512
    x = torch.randint(0, 2, (128, 64)).to(dtype)
    x[7, 9] = largest
    weight = torch.randn(5, 64, dtype=dtype)
    expected, kept = _gradient(x, weight, packed=False), _kept(monkeypatch)
    assert torch.equal(_gradient(x, weight, packed=True), expected)
    assert any(isinstance(k, packing._View) and k.small.content.dtype == torch.uint8 for k in kept) == small


@pytest.mark.parametrize("change", [lambda x: x - 2, lambda x: x / 2, lambda x: torch.where(x > 0, torch.nan, x)])
def test_other_numbers_stay_as_they_are(monkeypatch, change):
    x = torch.ones(128, 64)
    x[100:] = change(x[100:])
    weight = torch.randn(5, 64)
    expected, kept = _gradient(x, weight, packed=False), _kept(monkeypatch)
    torch.testing.assert_close(_gradient(x, weight, packed=True), expected, rtol=0, atol=0, equal_nan=True)
    assert not any(isinstance(k, packing._View) for k in kept)


def test_a_view_at_the_end_of_its_storage():
    base = torch.ones(65, 64)
    x = base[1:].t()[:, -64:]
    weight = torch.randn(5, 64)
    assert torch.equal(_gradient(x, weight, packed=True), _gradient(x, weight, packed=False))


@needs_compiler
def test_large_tensors_take_the_compiled_kernels(monkeypatch):
    monkeypatch.setattr(packing, "MANY_ENTRIES", 0)
    test_whole_numbers_become_bytes(monkeypatch, torch.float32, 255, True)
    test_whole_numbers_become_bytes(monkeypatch, torch.float32, 256, False)


def test_places_of_a_pooling_take_two_bytes(monkeypatch):
    kept = _kept(monkeypatch)
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    with packed_spikes():
        out = F.max_pool2d(x, 3, 2, 1)
    out.square().sum().backward()
    packed, x.grad = x.grad, None
    F.max_pool2d(x, 3, 2, 1).square().sum().backward()
    assert torch.equal(packed, x.grad)
    assert [k.small.content.dtype for k in kept if isinstance(k, packing._View)] == [torch.int16]


@needs_compiler
@pytest.mark.parametrize(("steps", "dtype"), [(1, torch.uint8), (8, torch.uint8), (9, torch.int16), (40, torch.int64)])
def test_spikes_become_bits(monkeypatch, steps, dtype):
    kept = _kept(monkeypatch)
    torch.manual_seed(0)
    x = (2 * torch.randn(steps, 160, 64)).requires_grad_()
    weights = [torch.randn(5, 64, requires_grad=True) for _ in range(2)]

    def gradients(context):
        with context:
            spikes = multi_step(x, torch.tensor(2.0), torch.tensor(1.0), torch.tensor(4.0), Dynamics(), backend="fused")
            loss = sum(F.linear(spikes.spikes.flatten(0, 1)[:, :64], w).square().sum() for w in weights)
        return torch.autograd.grad(loss, [x, *weights])

    expected = gradients(torch.enable_grad())
    found = gradients(packed_spikes())
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    views = [k for k in kept if isinstance(k, packing._View)]
    assert len(views) == 2
    assert views[0].small is views[1].small
    assert views[0].small.content.dtype == bits_dtype(steps) == dtype
    assert _bytes(views) == 160 * 64 * dtype.itemsize


@needs_compiler
def test_memory_that_is_used_again_is_not_mistaken_for_spikes():
    """Spikes that died leave their address to others."""
    weight = torch.randn(64, 64, requires_grad=True)
    with packed_spikes():
        total = 0
        for k in range(20):
            x = torch.full((4, 256, 64), 3.0)
            multi_step(x, torch.tensor(2.0), torch.tensor(1.0), torch.tensor(4.0), Dynamics(), backend="fused")
            real = torch.full((1024, 64), 0.5 + k)
            total = total + F.linear(real, weight).sum()
    total.backward()
    expected = sum(1024 * (0.5 + k) for k in range(20))
    torch.testing.assert_close(weight.grad, torch.full((64, 64), expected))


def test_nothing_is_noted_outside():
    assert not packing.active()
    with packed_spikes():
        assert packing.active()
    assert not packing.active()


def test_layers_that_share_an_input_share_its_original(monkeypatch):
    given, restore = [], packing._Small.restore

    def spy(small):
        given.append((small, restore(small)))
        return given[-1][1]

    monkeypatch.setattr(packing._Small, "restore", spy)
    x, weights = torch.ones(128, 64), [torch.randn(5, 64, requires_grad=True) for _ in range(3)]
    with packed_spikes():
        loss = sum(F.linear(x, weight).sum() for weight in weights)
    loss.backward()
    assert [original is given[0][1] for _, original in given] == [True] * 3
    assert given[0][0].original is None
