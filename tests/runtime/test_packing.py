"""What autograd keeps: spikes as bits, small whole numbers as bytes, and equal gradients."""

import pytest
import torch
from torch.nn import functional as F

from braincog_transformers.ops.kernels.fused_neuron import multi_step
from braincog_transformers.ops.neuron import Dynamics
from braincog_transformers.runtime import packing
from braincog_transformers.runtime.packing import bits_dtype, packed_spikes


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


@pytest.mark.kernels
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


COMPILED = [pytest.mark.kernels, pytest.mark.slow]


@pytest.mark.parametrize(
    ("steps", "dtype"),
    [
        (1, torch.uint8),
        (8, torch.uint8),
        (9, torch.int16),
        (40, torch.int64),
        *(pytest.param(*case, marks=COMPILED) for case in ((8, torch.uint8), (9, torch.int16), (40, torch.int64))),
    ],
)
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


@pytest.mark.kernels
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


MODIFIED = "modified by an inplace operation"


def _spiking_layer(change):
    """Return the gradients of an input and of two layers that read its spikes, which `change` sees in between."""

    def gradients(context):
        torch.manual_seed(0)
        x = (2 * torch.randn(4, 160, 64)).requires_grad_()
        weights = [torch.randn(5, 64, requires_grad=True) for _ in range(2)]
        with context:
            node = multi_step(x, torch.tensor(2.0), torch.tensor(1.0), torch.tensor(4.0), Dynamics(), backend="fused")
            spikes = change(node.spikes)
            loss = sum(F.linear(spikes.flatten(0, 1), w).square().sum() for w in weights)
        return torch.autograd.grad(loss, [x, *weights])

    return gradients


@pytest.mark.kernels
@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.mul_(3),
        lambda s: F.dropout(s, 0.5, inplace=True),
        lambda s: s.mul_(0.3),
        lambda s: (s.data.mul_(0.5), s)[1],
        lambda s: s.detach().numpy().__setitem__((-1, -1, -1), 7) or s,
    ],
    ids=["times", "dropout", "fraction", "data", "numpy"],
)
def test_spikes_that_change_in_place_before_they_are_kept_give_the_gradients_of_what_they_became(change):
    gradients = _spiking_layer(change)
    for expected, found in zip(gradients(torch.enable_grad()), gradients(packed_spikes()), strict=True):
        torch.testing.assert_close(found, expected)


def test_spikes_that_change_between_two_layers_are_kept_twice(monkeypatch):
    for entries in (4096, 1 << 20):  # as entries of their own, and as they are
        monkeypatch.setattr(packing, "MIN_ENTRIES", entries)
        x, weights = torch.ones(128, 64), [torch.randn(5, 64, requires_grad=True) for _ in range(2)]
        with packed_spikes():
            first = F.linear(x, weights[0])
            loss = first.sum() + F.linear(x.mul_(2), weights[1]).sum()
        if entries > x.numel():
            with pytest.raises(RuntimeError, match=MODIFIED):
                loss.backward()
        else:
            loss.backward()
            assert weights[0].grad.unique().tolist() == [128]
            assert weights[1].grad.unique().tolist() == [256]


@pytest.mark.parametrize(
    "start", [torch.ones(128, 64), torch.full((128, 64), 0.5), torch.ones(3, 64)], ids=["bytes", "as it is", "small"]
)
def test_what_changes_after_it_is_kept_gives_the_same_gradients_or_autograds_error(start):
    x, weight = start.clone(), torch.randn(5, 64, requires_grad=True)
    with packed_spikes():
        loss = F.linear(x, weight).square().sum()
        expected = torch.autograd.grad(loss, weight, retain_graph=True)
    x.mul_(3)
    if start.unique().tolist() == [1] and start.numel() > packing.MIN_ENTRIES:  # a copy
        assert torch.equal(torch.autograd.grad(loss, weight)[0], *expected)
    else:
        with pytest.raises(RuntimeError, match=MODIFIED):
            loss.backward()


@pytest.mark.parametrize("shape", [(5, 64), (256, 64)], ids=["small", "large"])
@pytest.mark.parametrize("parameter", [True, False])
def test_a_weight_that_changes_before_the_backward_pass_raises_as_without_packing(shape, parameter):
    x, weight = torch.randn(70, 64, requires_grad=True), torch.randn(shape)
    weight = torch.nn.Parameter(weight) if parameter else weight
    for context, then in ((torch.enable_grad(), 0), (packed_spikes(), 1)):
        with context:
            loss = F.linear(x, weight).sum()
        with torch.no_grad():
            weight.add_(1)
        seen = rf"{MODIFIED}: \[torch.FloatTensor \[.*is at version {then + 1}; expected version {then} instead. Hint"
        with pytest.raises(RuntimeError, match=seen):
            loss.backward()


def test_places_of_a_pooling_that_change_are_those_of_the_forward_pass():
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    with packed_spikes():
        out, places = F.max_pool2d(x, 3, 2, 1, return_indices=True)
        (expected,) = torch.autograd.grad(out.square().sum(), x, retain_graph=True)
    places.zero_()
    assert torch.equal(torch.autograd.grad(out.square().sum(), x)[0], expected)


def test_an_original_that_a_layer_writes_to_is_made_anew_for_the_next():
    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x)
            return (x * weight).sum()

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            found = (x * grad).sum()
            x.zero_()
            return None, found

    x, weights = torch.ones(128, 64), [torch.ones((), requires_grad=True) for _ in range(3)]
    with packed_spikes():
        loss = sum(Spoil.apply(x, weight) for weight in weights)
    loss.backward()
    assert [weight.grad.item() for weight in weights] == [128 * 64] * 3


def test_a_view_in_another_type_is_not_taken_for_the_spikes():
    x, weight = torch.ones(128, 64), torch.randn(128, 32, requires_grad=True)
    with packed_spikes():
        loss = (x * x.clone().requires_grad_()).sum() + (x.view(torch.float64) * weight.double()).sum()
    loss.backward()
    assert torch.equal(weight.grad, x.view(torch.float64).float())


def test_a_users_hooks_see_everything_and_ours_step_back():
    x, weight, seen = torch.ones(128, 64), torch.randn(5, 64, requires_grad=True), []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.shape) or t, lambda t: t)
    if packing._top_hooks is None:
        pytest.skip("this PyTorch can't tell whether there are hooks")
    with hooks, packed_spikes():
        assert not packing.active()
        loss = F.linear(x, weight).sum()
    assert x.shape in seen
    loss.backward()
    with packed_spikes():
        assert packing.active()
        with hooks:
            assert not packing.active()


def test_where_hooks_are_forbidden_nothing_is_packed():
    x, weight = torch.ones(128, 64), torch.randn(5, 64, requires_grad=True)
    with torch.autograd.graph.disable_saved_tensors_hooks("not here"), packed_spikes():
        loss = F.linear(x, weight).sum()
    loss.backward()
    assert weight.grad.unique().tolist() == [128]


def test_a_forward_pass_without_a_backward_pass_is_freed():
    x = torch.randn(128, 64, requires_grad=True)
    with packed_spikes():
        y = torch.sigmoid(x * 2)  # keeps its own output
    held = packing.StorageWeakRef(y.untyped_storage())
    del x, y
    assert held.expired()
