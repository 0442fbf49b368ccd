"""A dropped branch is dropped for all steps of a sample; what stays keeps the mean."""

import pytest
import torch

from braincog_transformers.layers import StepDropPath

T, B = 4, 200


def test_all_steps_of_a_sample_go_together():
    torch.manual_seed(0)
    out = StepDropPath(0.25, T).train()(torch.ones(T * B, 3, 2)).view(T, B, -1)
    kept = out[0, :, 0] > 0
    assert torch.equal(out, (kept / 0.75).view(1, B, 1).expand(T, B, 6))
    assert 0.6 < kept.float().mean() < 0.9


@pytest.mark.parametrize(("rate", "training"), [(0.25, False), (0.0, True)])
def test_nothing_is_dropped_in_evaluation_or_at_rate_zero(rate, training):
    x = torch.randn(T * B, 3)
    assert StepDropPath(rate, T).train(training)(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_no_probability_is_refused(rate):
    with pytest.raises(ValueError, match="drop_prob must be a probability, 0 to 1"):
        StepDropPath(rate, T)
