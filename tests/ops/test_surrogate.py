"""Surrogate gradients against BrainCog's own, and the rule at the threshold."""

import pytest
import torch
from braincog.base.strategy import surrogate as braincog_surrogate

from braincog_transformers.ops.surrogate import SURROGATES, coarse_sigmoid, spike

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


def test_coarse_sigmoid_is_within_what_16_bits_round_away():
    x, alpha = torch.linspace(-30, 30, 20001, dtype=torch.float64), torch.tensor(4.0, dtype=torch.float64)
    exact, coarse = SURROGATES["SigmoidGrad"](x, alpha), coarse_sigmoid(x, alpha)
    near = (alpha * x).abs() <= 8
    assert ((coarse - exact).abs() / exact)[near].max() < 2**-12
    assert (coarse - exact).abs()[~near].max() < 1e-6
    assert coarse_sigmoid(torch.tensor([-1e30, 1e30]), torch.tensor(4.0)).tolist() == [0.0, 0.0]


def test_sigmoid_neither_overflows_nor_gives_nan():
    assert SURROGATES["SigmoidGrad"](torch.tensor([-1e30, 1e30]), torch.tensor(4.0)).tolist() == [0.0, 0.0]
