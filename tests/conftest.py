"""Options and settings of the test suite."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

import braincog_transformers  # noqa: F401 - first: it makes braincog importable, quietly

torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=Path(__file__).parent / "golden",
        help="folder of test vectors computed with the official networks (tests/golden/README.md)",
    )
    parser.addoption("--fuzz-cases", type=int, default=60, help="random cases each fuzz test tries")


@pytest.fixture
def fuzz_cases(request):
    """Number of random cases that each fuzz test tries."""
    return request.config.getoption("--fuzz-cases")


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
