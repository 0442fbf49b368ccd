"""What the tests of `--convert` share: a tiny network that knows the digits, and ways to run command lines."""

import pytest
import torch
from cli_runs import LEVELS, RUN, SHORT, STEPS, VIT, few_digits, vit
from torch import nn

from braincog_transformers.cli import main
from braincog_transformers.conversion import METHODS
from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.loading.loader import make_loader
from braincog_transformers.training import loaders


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Return the file of a tiny vision transformer that has learnt the digits a little."""
    torch.manual_seed(0)
    network, train = vit(), build_datasets("digits", ".").train
    x, y = next(iter(make_loader(train, batch_size=len(train), train=False, seed=0)))
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    for _ in range(8):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("source") / "vit.pth"
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.fixture
def go(tmp_path, capsys, monkeypatch):
    """Return a function that runs a command line and gives its status, what it printed, and what was wrong."""
    monkeypatch.setattr(loaders, "build_datasets", few_digits)

    def call(*argv):
        status = main([*argv, "--output", str(tmp_path)])
        told = capsys.readouterr()
        return status, told.out, told.err

    return call


@pytest.fixture
def convert(go, weights, tmp_path):
    """Return a function that converts the tiny transformer into a folder of its own name, and gives folder and text."""

    def call(method, *more, name="one", trains=False):
        given = ["--initial-checkpoint", weights, "--experiment", name, "--step", str(STEPS[method])]
        given += SHORT if trains else ["--calibrate-only"] if METHODS[method].trains else []
        given += LEVELS if method == "spikezip" else []
        status, out, err = go("--convert", method, *VIT, *RUN, *given, *more)
        assert (status, err) == (0, "")
        return tmp_path / name, out

    return call
