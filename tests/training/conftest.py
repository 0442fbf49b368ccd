"""What the tests of training share."""

from dataclasses import replace

import pytest
from tiny_run import DIGITS, SHORT, Run
from torch.utils.data import Subset

from braincog_transformers.cli import resolve
from braincog_transformers.data.build import build_datasets
from braincog_transformers.ops.kernels import fused_neuron
from braincog_transformers.training import loaders
from braincog_transformers.training.run import run as run_options

SAMPLES = 32


@pytest.fixture
def run(tmp_path):
    """Return a maker of runs in folders of their own."""

    def make(name: str, **options) -> Run:
        return Run(tmp_path / name, **options)

    return make


@pytest.fixture
def small_digits(monkeypatch):
    """Keep 32 samples of each part, and plain neurons, which need no compiling."""

    def few(*args, **kwargs):
        bundle = build_datasets(*args, **kwargs)
        train, test = (Subset(part, range(SAMPLES)) for part in (bundle.train, bundle.test))
        return replace(bundle, train=train, test=test)

    monkeypatch.setattr(loaders, "build_datasets", few)
    monkeypatch.setattr(fused_neuron, "compiler_works", lambda _: False)


@pytest.fixture
def go(tmp_path):
    """Return a function that runs the options given, in a folder of the test."""

    def call(*more: str, short: bool = True) -> dict:
        return run_options(resolve([*DIGITS, *(SHORT if short else ()), "--output", str(tmp_path), *more]))

    return call
