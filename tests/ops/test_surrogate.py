"""Surrogate gradients against BrainCog's own, and the rule at the threshold."""

import pytest
import torch
from braincog.base.strategy import surrogate as braincog_surrogate

from braincog_transformers.ops.kernels.spikes import derivative_for
from braincog_transformers.ops.surrogate import SURROGATES, spike

POINTS = torch.tensor([-2.0, -0.5, -0.25, -0.1, 0.1, 0.2, 0.25, 0.4, 3.0])


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("alpha", [1.0, 2.0, 4.0])
def test_spike_and_derivative_are_brain_cogs(name, alpha):
    ours, theirs = POINTS.clone().requires_grad_(), POINTS.clone().requires_grad_()
    s = spike(ours, torch.tensor(alpha), name)
    s.sum().backward()
    expected = getattr(braincog_surrogate, name)(alpha=alpha)(theirs)
    expected.sum().backward()
    assert torch.equal(s, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("name", SURROGATES)
def test_fires_at_exact_threshold_unless_strict(name):
    at = torch.zeros(1)
    assert spike(at, torch.tensor(2.0), name).item() == 1
    assert spike(at, torch.tensor(2.0), name, strict=True).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spikes_keep_the_type(dtype):
    assert spike(torch.ones(2, dtype=dtype), torch.tensor(2.0), "SigmoidGrad").dtype == dtype


@pytest.mark.parametrize("alpha", [1.0, 2.0, 4.0, 10.0])
def test_sigmoid_without_exponential_is_as_exact_as_with_it(alpha):
    x, alpha = torch.linspace(-30, 30, 20001), torch.tensor(alpha)
    definition = SURROGATES["SigmoidGrad"]
    exact = definition(x.double(), alpha.double())
    fast = derivative_for("SigmoidGrad", torch.float32, "cpu")
    assert fast is not definition
    assert (fast(x, alpha) - exact).abs().max() <= (definition(x, alpha) - exact).abs().max()
    assert fast(torch.tensor([-1e30, 1e30]), alpha).tolist() == [0.0, 0.0]


def test_float64_keeps_the_definition():
    assert derivative_for("SigmoidGrad", torch.float64, "cpu") is SURROGATES["SigmoidGrad"]


def test_sigmoid_neither_overflows_nor_gives_nan():
    assert SURROGATES["SigmoidGrad"](torch.tensor([-1e30, 1e30]), torch.tensor(4.0)).tolist() == [0.0, 0.0]
