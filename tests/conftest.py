"""Options and settings of the test suite."""

from pathlib import Path

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


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
