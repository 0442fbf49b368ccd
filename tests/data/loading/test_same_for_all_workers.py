"""The losses of a run depend on the seed alone: not on how many processes load, nor on whether frames are cached."""

import csv
from functools import cache
from pathlib import Path

import pytest

from braincog_transformers.cli import resolve
from braincog_transformers.ops.kernels import fused_neuron
from braincog_transformers.training.run import run

SHORT = ["--dataset", "ndigits", "--model", "spikformer_2_256_dvs", "--event-size", "16", "--step", "2", "-b", "8"]
SHORT += ["--model-kwargs", "depth=1", "embed_dim=16", "--max-steps", "6", "--log-interval", "1", "--device", "cpu"]
SHORT += ["--tensorboard-dir", "", "--event-augment", "snn_wide", "--hflip", "0.5", "--event-mix"]


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ndigits")

    @cache
    def call(*more):
        places = ["--data-dir", str(folder), "--output", str(folder / "runs")]
        result = run(resolve([*SHORT, *places, *more]))
        with (Path(result["folder"]) / "summary.csv").open() as rows:
            return [
                {name: row[name] for name in row if "loss" in name or "top" in name} for row in csv.DictReader(rows)
            ]

    return call


@pytest.fixture(autouse=True)
def _plain_neurons(monkeypatch):
    monkeypatch.setattr(fused_neuron, "compiler_works", lambda _: False)


@pytest.mark.slow
def test_the_same_losses_for_0_1_and_2_workers(losses):
    alone = losses("--workers", "0")
    assert alone[0].keys() >= {"train_loss", "test_loss"}
    assert losses("--workers", "1") == losses("--workers", "2") == alone
    assert losses("--workers", "0", "--seed", "43") != alone


def test_the_same_losses_without_a_cache(losses):
    assert losses("--workers", "0", "--no-cache") == losses("--workers", "2")
