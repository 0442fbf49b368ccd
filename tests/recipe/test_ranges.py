"""Numbers that an option can't mean are refused by its own check, before anything is read or started."""

import pytest

from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError

REFUSED = {
    # each one ended in a traceback, or never
    "img-size": "2147483648",
    "event-size": "2147483648",
    "crop-pct": "1e-45",
    "workers": "100000",
    "recount": "2147483648",
    "aug-repeats": "2147483648",
    "randaug-n": "2147483648",
    "cutmix-num": "2147483648",
    "cutmix-noise": "1e30",
    "gaussian-n": "2147483648",
    "lr-noise-pct": "0",
    # a rate below 0 climbs
    "lr-noise-pct ": "1.5",
    "log-interval": "0",
    "epochs": "0",
    "batch-size": "0",
    "max-steps": "0",
    "seed": "-1",
}


@pytest.mark.parametrize("name", REFUSED)
def test_out_of_range(name):
    with pytest.raises(UserError, match=rf"^--{name.strip()} must be (at least|at most|above) \S+; got"):
        resolve([f"--{name.strip()}={REFUSED[name]}"])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize("name", ["lr", "weight-decay", "clip-grad", "noisy-grad", "model-ema-decay", "surface-tau"])
def test_numbers_are_finite(name, value):
    with pytest.raises(UserError, match=f"--{name} must be finite"):
        resolve([f"--{name}={value}"])


def test_noise_that_would_never_be_found_is_refused():
    with pytest.raises(UserError, match="--lr-noise-std is so far beyond --lr-noise-pct"):
        resolve(["--lr-noise", "0.1", "--lr-noise-std", "1e30"])
    resolve(["--lr-noise", "0.1", "--lr-noise-std", "1"])
