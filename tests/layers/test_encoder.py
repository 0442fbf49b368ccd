"""Codes of an intensity over time, by hand."""

import pytest
import torch

from braincog_transformers import UserError
from braincog_transformers.layers import ENCODINGS, Encoder

T = 4
INTENSITIES = [0.0, 0.2, 0.25, 0.6, 1.0]


def coded(encode_type, step=T):
    image = torch.tensor(INTENSITIES).view(1, 1, 1, -1)
    return Encoder(step, encode_type)(image)[:, 0, 0].t().tolist()


def test_direct_repeats_the_image():
    assert coded("direct") == [[pytest.approx(value)] * T for value in INTENSITIES]


def test_the_first_spike_is_the_earlier_and_higher_the_brighter():
    third, quarter = pytest.approx(1 / 3), 0.25
    assert coded("ttfs") == [[0, 0, 0, 0], [0, 0, 0, quarter], [0, 0, 0, quarter], [0, 0.5, 0, 0], [1, 0, 0, 0]]
    assert coded("ttfs", 3)[1] == [0, 0, third]


def test_phase_sends_the_bits_of_the_intensity_and_white_has_all():
    codes = coded("phase", 9)
    assert codes[0] == [0] * 9
    assert codes[2] == [0, 0.5, 0, 0, 0, 0, 0, 0, 0]
    assert codes[4] == [2.0**-t for t in range(8)] + [1.0]


def test_rate_draws_spikes_with_the_intensity_as_their_probability():
    torch.manual_seed(0)
    rates = torch.tensor(coded("rate", 2000)).mean(1)
    torch.testing.assert_close(rates, torch.tensor(INTENSITIES), atol=0.05, rtol=0)


@pytest.mark.parametrize("encode_type", ENCODINGS)
@pytest.mark.parametrize("layer_by_layer", [True, False])
def test_time_is_outermost_for_images_and_events(encode_type, layer_by_layer):
    for shape in ((2, 3, 4, 5), (2, T, 3, 4, 5)):
        out = Encoder(T, encode_type, layer_by_layer)(torch.rand(shape))
        assert out.shape == ((T * 2, 3, 4, 5) if layer_by_layer else (T, 2, 3, 4, 5))


def test_an_unknown_code_is_refused():
    with pytest.raises(UserError, match="rate"):
        Encoder(T, "rates")
