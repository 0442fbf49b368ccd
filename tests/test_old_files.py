"""A checkpoint and a run folder of the version before: they load, are evaluated, go on, and are reported."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import timm

from braincog_transformers.checkpoints import identify, load_checkpoint
from braincog_transformers.cli import main
from braincog_transformers.ops.kernels import fused_neuron

OLD = Path(__file__).parent / "old"
SIZES = {"embed_dim": 8, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "step": 2}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a copy of the old run folder where the run had it, and let the plain neurons run."""
    monkeypatch.setattr(fused_neuron, "compiler_works", lambda _: False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD / "run", tmp_path / "output" / "run")
    return Path("output/run")


def rows(path):
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_the_checkpoint_loads_with_its_average_or_its_weights():
    model = timm.create_model("spikformer_digits", **SIZES)
    path = OLD / "run" / "last.pth.tar"
    assert "loaded 98 tensors into Spikformer" in (told := load_checkpoint(model, path))
    assert "the moving average (state_dict_ema" in told
    average = model.head.weight.detach().clone()
    assert "the weights themselves (state_dict), not their moving average" in load_checkpoint(model, path, ema=False)
    assert not average.equal(model.head.weight)


@pytest.mark.slow
def test_the_checkpoint_is_identified_by_the_family():
    (nearest,) = identify(OLD / "run" / "last.pth.tar")
    assert nearest.name.startswith("spikformer")
    assert all(text.startswith("of another shape") or "blocks." in text for text in nearest.differences)


@pytest.mark.parametrize(("weights", "prefix"), [("--use-ema", "ema"), ("--no-use-ema", "test")])
def test_evaluation_gives_the_figures_of_the_run(folder, weights, prefix):
    command = ["-c", f"{folder}/args.yaml", "--eval_checkpoint", f"{folder}/last.pth.tar", weights, "--output", "new"]
    assert main([*command, "--no-spike-rate"]) == 0
    found = json.loads((Path("new") / "run" / "results.json").read_text())["results"]
    expected = rows(folder / "summary.csv")[-1]
    assert found["test_top1"] == pytest.approx(expected[f"{prefix}_top1"], abs=0.3)  # one of 360 digits
    assert found["test_loss"] == pytest.approx(expected[f"{prefix}_loss"], rel=1e-3)


@pytest.mark.slow
def test_the_run_goes_on_to_the_result_that_it_had(folder):
    command = ["-c", f"{folder}/args.yaml", "--resume", str(folder), "--max-steps", "1000", "--no-spike-rate"]
    assert main(command) == 0
    found, expected = rows(folder / "summary.csv"), rows(OLD / "resumed.csv")
    assert [row["epoch"] for row in found] == [0, 1]
    assert found[0] == expected[0]
    # another processor rounds otherwise, and a spike that flips moves the rest
    assert found[1]["train_loss"] == pytest.approx(expected[1]["train_loss"], rel=0.02)
    assert found[1]["test_loss"] == pytest.approx(expected[1]["test_loss"], rel=0.1)


def test_the_folder_is_reported(folder):
    from braincog_transformers.report.__main__ import main as report

    assert report([str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "spikformer_digits" in page
    assert "21.11" in page or "24.72" in page
