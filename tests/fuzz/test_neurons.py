"""Neurons of random kinds on random inputs: the kernels against the definition, in value and gradient.

Most cases run a kernel as the Python function that it is made of, which takes no compiler; some run it compiled.
"""

import random

import pytest
import torch

from braincog_transformers.ops.kernels import fused_neuron, norm_neuron
from braincog_transformers.ops.kernels.fused_neuron import multi_step
from braincog_transformers.ops.neuron import Dynamics
from braincog_transformers.ops.surrogate import SURROGATES
from braincog_transformers.runtime.packing import packed_spikes

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


@pytest.fixture
def as_functions(monkeypatch):
    """Run kernels as functions, with or without a compiler."""
    for module in (fused_neuron, norm_neuron):
        monkeypatch.setattr(module, "compiled", lambda function, *_: function)
    monkeypatch.setattr(fused_neuron, "compiler_works", lambda _: True)


def _dynamics(draw: random.Random) -> Dynamics:
    flags = [draw.random() < 0.5 for _ in range(5)]
    return Dynamics(draw.choice(["lif", "plif", "if"]), draw.choice(list(SURROGATES)), *flags, draw.choice([0, -0.25]))


def _laid_out(x: torch.Tensor, draw: random.Random) -> torch.Tensor:
    """Give a tensor `(T, ...)` another layout with the same numbers."""
    way = draw.choice(["as it is", "transposed", "strided", "expanded", "channels last", "offset"])
    if way == "transposed" and x.dim() > 2:
        return x.transpose(1, -1).contiguous().transpose(1, -1)
    if way == "strided":
        return torch.stack([x, -x], -1)[..., 0]
    if way == "expanded":
        return x[:, :1].expand_as(x) if x.dim() > 1 and x.shape[1] else x[:1].expand_as(x)
    if way == "channels last" and x.dim() == 5 and x.numel():
        return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    return torch.cat([x[:1], x])[1:] if way == "offset" else x


def _gradients(x, dynamics, numbers, backend, packed):
    """Return spikes and gradients of input, leak and threshold; those of a following product are in the input's."""
    x = x.detach().requires_grad_()
    leak, threshold, alpha = (None if n is None else torch.tensor(n, dtype=numbers[0]) for n in numbers[1:])
    learnt = [x, threshold.requires_grad_(), *([leak.requires_grad_()] if dynamics.charge == "plif" else [])]
    with packed_spikes() if packed else torch.enable_grad():
        spikes = multi_step(x, leak, threshold, alpha, dynamics, backend=backend).spikes
        weight = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape).requires_grad_()
        loss = (spikes * weight).float().sum()  # keeps the spikes
    return spikes, *torch.autograd.grad(loss, [*learnt, weight])


def _compare(x, dynamics, numbers, packed):
    case = f"{tuple(x.shape)} {x.stride()} {x.dtype} {dynamics} {numbers} packed={packed}"
    got, expected = (_gradients(x, dynamics, numbers, backend, packed) for backend in ("fused", "reference"))
    assert torch.equal(got[0], expected[0]), case
    scale = TOLERANCE[x.dtype]
    for one, other in zip(got[1:], expected[1:], strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=scale, atol=scale * x.shape[0], msg=lambda m: f"{case}: {m}")


def _case(draw: random.Random, steps: int, dtype: torch.dtype, dynamics: Dynamics):
    shape = (steps, *(draw.choice([0, 1, 1, 2, 3, 5, 7]) for _ in range(draw.randrange(5))))
    eighths = torch.randint(-8, 17, shape, generator=torch.Generator().manual_seed(draw.randrange(1 << 30))) / 8
    leak = {"lif": draw.choice([1.5, 2.0, 4.0]), "plif": draw.choice([0.25, 0.5]), "if": None}[dynamics.charge]
    wide = torch.promote_types(dtype, torch.float32)
    return _laid_out(eighths.to(dtype), draw), (wide, leak, draw.choice([0.5, 0.75, 1.0]), draw.choice([2.0, 4.0]))


def test_kernels_as_functions_are_the_definition(as_functions, fuzz_cases):
    for case in range(fuzz_cases):
        draw = random.Random(case)
        dtype, dynamics = draw.choice(list(TOLERANCE)), _dynamics(draw)
        x, numbers = _case(draw, draw.choice([1, 2, 3, 4, 8, 9, 16, 33, 63, 64, 70]), dtype, dynamics)
        taken = x.numel() > 0 and x.shape[0] <= fused_neuron.MAX_STEPS
        if not taken:
            with pytest.raises(RuntimeError, match="no fused kernel"):
                multi_step(x, None, torch.ones(()), torch.ones(()), Dynamics("if"), backend="fused")
            continue
        _compare(x, dynamics, numbers, packed=draw.random() < 0.5)


@pytest.mark.slow
@pytest.mark.kernels
def test_compiled_kernels_are_the_definition(fuzz_cases):
    for setting in range(max(1, fuzz_cases // 60)):  # each is a kernel or two to compile
        draw = random.Random(setting)
        steps, dtype = draw.choice([1, 3, 5]), draw.choice([torch.float32, torch.float64])
        dynamics = _dynamics(draw)._replace(surrogate="AtanGrad")
        for _ in range(5):
            x, numbers = _case(draw, steps, dtype, dynamics)
            if x.numel() > steps:  # for a single element a kernel is compiled anew
                # dividing by 1.5 is rounded, and a compiler may round once where the definition rounds twice
                _compare(x, dynamics, (numbers[0], 2.0 if dynamics.charge == "lif" else numbers[1], *numbers[2:]), True)


def test_normalisation_and_neuron_as_one_are_the_two(as_functions, fuzz_cases):
    for case in range(fuzz_cases):
        draw = random.Random(case)
        torch.manual_seed(case)
        steps, batch, channels = draw.choice([1, 2, 4, 7]), draw.choice([2, 3]), draw.choice([1, 4, 5])
        copies, training, dynamics = draw.random() < 0.5, draw.random() < 0.5, _dynamics(draw)
        middle = tuple(draw.choice([1, 2, 3]) for _ in range(draw.randrange(3)))
        x = 2 * torch.randn(batch if copies else steps * batch, *middle, channels, dtype=torch.float64)
        found = []
        for backend in ("fused", "reference"):
            own, weight = x.clone().requires_grad_(), torch.linspace(0.5, 1.5, channels).double().requires_grad_()
            bias, ones = torch.linspace(-1, 1, channels).double().requires_grad_(), torch.ones(channels).double()
            norm = norm_neuron.Normalisation(weight, bias, 0.2 * ones, 3 * ones, 0.1, 1e-5, training)
            leak = {"lif": 3.0, "plif": 0.3, "if": None}[dynamics.charge]
            numbers = [None if n is None else torch.tensor(n).double() for n in (leak, 0.8, 4.0)]
            out = norm_neuron.normalised_spikes(own, norm, steps, *numbers, dynamics, copies=copies, backend=backend)
            loss = (out * torch.linspace(-1, 1, out.numel()).double().view(out.shape)).sum()
            found.append([out, norm.running_mean, norm.running_var, *torch.autograd.grad(loss, [own, weight, bias])])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9, msg=lambda m, c=case: f"case {c}: {m}")
