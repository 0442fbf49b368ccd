"""Options and settings of the test suite.

Compiling takes most of the time where PyTorch's cache of kernels is cold. So functions that are compiled elsewhere run
eagerly here, as the Python that they are, in this process and in those that it starts. Tests with the mark `kernels`
compile. They are skipped where no C++ compiler is found, but with `kernels(compiler=False)`, which is for tests that
only trace.

Tests with the mark `slow` run with `--slow` only.
"""

import functools
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo.config

import braincog_transformers  # noqa: F401 - first: it makes braincog importable, quietly

torch.set_num_threads(1)

# PyTorch reads the variable once, and workers of pytest-xdist inherit it: here it holds for processes that tests start.
_SWITCH = "TORCH_COMPILE_DISABLE"
torch._dynamo.config.disable = False

_eagerly = functools.partial(torch.compiler.set_stance, "force_eager")
_eagerly()
os.environ[_SWITCH] = "1"


@functools.cache
def _compiler_is_found():
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(8))
    except Exception:  # whatever is missing: compiler, headers
        return False
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Run a test, and the fixtures that it is the first to use, with or without compiling."""
    if item.get_closest_marker("kernels") is None:
        return (yield)
    os.environ.pop(_SWITCH)
    torch.compiler.set_stance("default")
    try:
        return (yield)
    finally:
        _eagerly()
        os.environ[_SWITCH] = "1"


def pytest_collection_modifyitems(items):
    """Begin with the slow tests, so that in the end no process waits for one."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_runtest_setup(item):
    if item.get_closest_marker("slow") and not item.config.getoption("--slow"):
        pytest.skip("slow: runs with --slow")
    marker = item.get_closest_marker("kernels")
    if marker and marker.kwargs.get("compiler", True) and not _compiler_is_found():
        pytest.skip("torch.compile finds no working C++ compiler here")


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=Path(__file__).parent / "golden",
        help="folder of test vectors computed with the official networks (tests/golden/README.md)",
    )
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")
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
