"""Neurons: the plain definition against numbers worked out by hand, the compiled kernels against the definition."""

import itertools

import pytest
import torch

from braincog_transformers.ops.kernels import fused_neuron
from braincog_transformers.ops.kernels.fused_neuron import multi_step
from braincog_transformers.ops.neuron import Dynamics, Membrane, Neuron, Numbers, advance, move
from braincog_transformers.ops.surrogate import SURROGATES, spike
from braincog_transformers.runtime import compiler

ALPHA = torch.tensor(4.0)


LIF = Dynamics()


def run(x, dynamics=LIF, leak=2.0, threshold=1.0, backend="reference"):
    leak = None if dynamics.charge == "if" else torch.tensor(leak)
    return multi_step(x, leak, torch.tensor(threshold), ALPHA, dynamics, with_potentials=True, backend=backend)


def test_lif_by_hand():
    # h: 0.75, 1.125, 0.5, 1.0 (a tie: it fires), 0.25
    x = torch.tensor([1.5, 1.5, 1.0, 1.5, 0.5])
    out = run(x)
    assert out.spikes.tolist() == [0, 1, 0, 1, 0]
    assert out.potentials.tolist() == [0.75, 0, 0.5, 0, 0.25]


def test_undecayed_input_by_hand():
    # h: 0.5, 0.25 + 0.75 = 1 (fires), 0.5
    out = run(torch.tensor([0.5, 0.75, 0.5]), Dynamics(decay_input=False))
    assert out.spikes.tolist() == [0, 1, 0]
    assert out.potentials.tolist() == [0.5, 0, 0.5]


def test_soft_reset_keeps_what_is_above_the_threshold():
    # h: 1.5 -> 0.5; 0.5 + (2.5 - 0.5)/2 = 1.5 -> 0.5
    out = run(torch.tensor([3.0, 2.5]), Dynamics(soft_reset=True))
    assert out.potentials.tolist() == [0.5, 0.5]


def test_integrate_and_fire_adds_up():
    out = run(torch.tensor([0.25, 0.5, 0.25, 0.5]), Dynamics(charge="if"))
    assert out.spikes.tolist() == [0, 0, 1, 0]
    assert out.potentials.tolist() == [0.25, 0.75, 0, 0.5]


def test_plif_weighs_the_input_by_k():
    out = run(torch.tensor([1.0, 1.0]), Dynamics(charge="plif"), leak=0.25)
    assert out.potentials.tolist() == [0.25, 0.4375]


def test_resting_potential_is_start_and_reset():
    # h: -0.5 + (2 + 0.5 - 0.5... )/2: v - v_reset is 0 at the start, so h = -0.5 + 1 = 0.5; then 0.5 + (3 - 1)/2 = 1.5
    out = run(torch.tensor([2.0, 3.0]), Dynamics(v_reset=-0.5))
    assert out.spikes.tolist() == [0, 1]
    assert out.potentials.tolist() == [0.5, -0.5]


def test_strict_neuron_stays_silent_at_a_tie():
    assert run(torch.tensor([2.0]), Dynamics(strict=True)).spikes.item() == 0


def test_membrane_is_float32_for_half_precision_input():
    # 256 additions of 2^-9: bfloat16 would stop growing long before it reaches the threshold.
    x = torch.full((512,), 2.0**-9, dtype=torch.bfloat16)
    out = run(x, Dynamics(charge="if"))
    assert out.potentials.dtype == torch.float32
    assert out.spikes.dtype == torch.bfloat16
    assert out.spikes.sum() == 1
    assert out.spikes[-1] == 1


def test_detached_reset_and_membrane_change_the_gradient():
    def gradient(**settings):
        x = torch.tensor([2.5, 0.5, 1.25], requires_grad=True)
        run(x, Dynamics(**settings)).spikes.sum().backward()
        return x.grad

    plain = gradient()
    assert not torch.allclose(plain, gradient(detach_reset=False))
    assert not torch.allclose(plain, gradient(detach_mem=True))


def test_gradient_through_time_by_hand():
    # h0 = 0.5 (silent), h1 = 0.75: ds1/dx0 = sg(h1 - 1) * dh1/dv0 * dv0/dh0 * dh0/dx0 = sg * 0.5 * 1 * 0.5
    x = torch.tensor([1.0, 1.0], requires_grad=True)
    run(x).spikes[1].backward()
    sg = torch.sigmoid(ALPHA * -0.25)
    slope = ALPHA * sg * (1 - sg)
    torch.testing.assert_close(x.grad, torch.stack([slope * 0.25, slope * 0.5]))


def test_steps_one_by_one_are_the_multi_step_call():
    x = torch.randint(-4, 12, (5, 40)) / 4
    whole = run(x)
    neuron, state = Neuron(advance, Membrane(0.0), False), Membrane(0.0)
    numbers = Numbers(torch.tensor(2.0), torch.tensor(1.0), LIF)
    for t in range(5):
        s, state = move(neuron, x[t], state, numbers, lambda over: spike(over, ALPHA, "SigmoidGrad"))
        assert torch.equal(s, whole.spikes[t])
        assert torch.equal(state.v, whole.potentials[t])


# Kernels, as the functions that they are made of; with the mark, compiled

EVERY = [
    Dynamics(*kind) for kind in itertools.product(["lif", "plif", "if"], SURROGATES, *[[True, False]] * 5, [0.0, -0.25])
]
# Among these every value of every field.
COMPILED = [
    Dynamics(),
    Dynamics("plif", "QGateGrad", decay_input=False, soft_reset=True, detach_reset=False, v_reset=-0.25),
    Dynamics("if", "AtanGrad", strict=True, detach_mem=True),
    Dynamics(surrogate="GateGrad", detach_reset=False, v_reset=-0.25),
]


def both(x, dynamics, learn=True):
    """Run plain and compiled; return spikes and the gradients of input, leak and threshold of each."""
    results = []
    weight = torch.randn(x.shape, dtype=torch.float32)
    for backend in ("reference", "fused"):
        own = x.clone(memory_format=torch.preserve_format).requires_grad_()
        start = {"lif": 2.0, "plif": 0.4, "if": None}[dynamics.charge]
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        leak = None if start is None else torch.tensor(start, dtype=dtype, requires_grad=dynamics.charge == "plif")
        threshold = torch.tensor(0.75, dtype=dtype, requires_grad=learn)
        s = multi_step(own, leak, threshold, ALPHA.to(dtype), dynamics, backend=backend).spikes
        (s.float() * weight).sum().backward()
        leak_grad = leak.grad if dynamics.charge == "plif" else None
        results.append((s, own.grad, leak_grad, threshold.grad))
    return results


def assert_same(results, rtol, atol):
    reference, fused = results
    assert torch.equal(reference[0], fused[0])
    assert reference[0].stride() == fused[0].stride()
    for expected, got in zip(reference[1:], fused[1:], strict=True):
        assert (expected is None) == (got is None)
        if expected is not None:
            assert got.dtype == expected.dtype
            torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


def tied_input(*shape, dtype):
    """Eighths, so that the membrane meets the threshold exactly, often."""
    return (torch.randint(-8, 17, shape) / 8).to(dtype)


def test_every_kernel_gives_the_definitions_values_and_gradients():
    x = tied_input(3, 5, dtype=torch.float64)
    for dynamics in EVERY:
        assert_same(both(x, dynamics), rtol=1e-10, atol=1e-12)


@pytest.mark.kernels
@pytest.mark.parametrize("dynamics", COMPILED, ids=lambda d: "-".join(map(str, d)))
def test_compiled_they_do_so_too(dynamics):
    assert_same(both(tied_input(3, 5, 7, dtype=torch.float64), dynamics), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        pytest.param(torch.float32, 1e-5, marks=pytest.mark.kernels),
        pytest.param(torch.bfloat16, 2e-2, marks=[pytest.mark.kernels, pytest.mark.slow]),
        (torch.float16, 2e-3),
    ],
    ids=str,
)
def test_kernels_take_every_type(dtype, tolerance):
    assert_same(both(tied_input(4, 3, 5, dtype=dtype), Dynamics(), learn=False), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "shape",
    [(1, 1), pytest.param((1, 17), marks=pytest.mark.kernels), (4, 1), (7, 13, 3), (2, 3, 5, 4, 4)],
    ids=str,
)
def test_kernels_take_awkward_shapes(shape):
    assert_same(both(tied_input(*shape, dtype=torch.float64), Dynamics(), learn=False), rtol=1e-10, atol=1e-12)


def test_kernels_keep_layouts_without_copying():
    channels_last = tied_input(4 * 2, 6, 3, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    folded = channels_last.unflatten(0, (4, 2))
    reference, fused = both(folded, Dynamics(), learn=False)
    assert torch.equal(reference[0], fused[0])
    assert fused[0].stride() == folded.stride()
    torch.testing.assert_close(fused[1], reference[1])
    transposed = tied_input(4, 5, 3, dtype=torch.float64).transpose(1, 2)
    reference, fused = both(transposed, Dynamics(), learn=False)
    assert torch.equal(reference[0], fused[0])
    torch.testing.assert_close(fused[1], reference[1])


def test_kernels_keep_only_the_input_for_the_backward_pass():
    kept = []
    x = torch.randn(4, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        multi_step(x, torch.tensor(2.0), torch.tensor(1.0), ALPHA, Dynamics(), backend="fused")
    assert sum(kept) <= x.numel() + 3


@pytest.mark.kernels(compiler=False)
def test_many_settings_stay_compiled(monkeypatch):
    """More than Dynamo's limit of eight recompilations of one function."""
    graphs = []
    monkeypatch.setattr(compiler, "inductor", lambda graph, _: graphs.append(graph) or graph.forward)
    monkeypatch.setattr(fused_neuron, "compiler_works", lambda _: True)
    compiler.compiled.cache_clear()
    for steps, charge in itertools.product(range(1, 6), ("lif", "if")):
        x = torch.randn(steps, 8)
        leak = None if charge == "if" else torch.tensor(2.0)
        out = [
            multi_step(x, leak, torch.tensor(1.0), ALPHA, Dynamics(charge), backend=b) for b in ("fused", "reference")
        ]
        assert torch.equal(out[0].spikes, out[1].spikes)
    assert len(graphs) == 10
    compiler.compiled.cache_clear()


def test_kernels_are_chosen_by_size():
    small, large = torch.randn(4, 10), torch.randn(4, fused_neuron.MIN_ELEMENTS // 4)
    assert not fused_neuron.applies(small, torch.tensor(2.0), Dynamics())
    assert fused_neuron.applies(large, torch.tensor(2.0), Dynamics())


def test_asking_for_kernels_that_cannot_be_had_raises():
    with pytest.raises(RuntimeError, match="no fused kernel"):
        multi_step(torch.zeros(65, 2), torch.tensor(2.0), torch.tensor(1.0), ALPHA, Dynamics(), backend="fused")


def test_without_a_compiler_the_definition_runs_and_says_so_once(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no C++ compiler")

    fused_neuron.compiler_works.cache_clear()
    monkeypatch.setattr(torch, "compile", broken)
    x = torch.randn(4, fused_neuron.MIN_ELEMENTS)
    try:
        with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler") as caught:
            out = [multi_step(x, torch.tensor(2.0), torch.tensor(1.0), ALPHA, LIF).spikes for _ in range(2)]
        assert len(caught) == 1
        assert torch.equal(out[1], run(x).spikes)
    finally:
        fused_neuron.compiler_works.cache_clear()


def test_reference_passes_gradcheck_where_it_is_smooth():
    """Far from firing, the membrane is a smooth function of input, k and threshold."""
    x = torch.rand(3, 4, dtype=torch.float64) - 2
    k = torch.tensor(0.3, dtype=torch.float64)
    threshold = torch.tensor(1.0, dtype=torch.float64)

    def potentials(x, k):
        return multi_step(x, k, threshold, ALPHA.double(), Dynamics("plif"), with_potentials=True).potentials

    assert torch.autograd.gradcheck(potentials, (x.requires_grad_(), k.requires_grad_()))
