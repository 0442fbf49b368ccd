"""Surrogate gradients against BrainCog's own, and the rule at the threshold."""

import pytest
import torch
from braincog.base.strategy import surrogate as braincog_surrogate

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
