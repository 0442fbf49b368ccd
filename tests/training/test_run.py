"""Whole runs from options to results, with a small network of the zoo on the embedded digits."""

import csv
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from tiny_run import DIGITS, SHORT

from braincog_transformers.checkpoints import read_checkpoint
from braincog_transformers.cli import main, resolve
from braincog_transformers.errors import Interrupted, UserError
from braincog_transformers.training import train as assembly
from braincog_transformers.training.run import run

pytestmark = pytest.mark.usefixtures("small_digits")


def _weights(folder: str | Path) -> dict:
    return read_checkpoint(Path(folder) / "last.pth.tar")["state_dict"]


def test_writes_all_that_it_names(go):
    found = go()
    folder = Path(found["folder"])
    assert {"args.yaml", "summary.csv", "last.pth.tar", "model_best.pth.tar", "curves.png"} <= set(os.listdir(folder))
    assert all(Path(found[name]).is_file() for name in ("checkpoint", "best_checkpoint", "curves"))
    assert 0 <= found["test_top1"] <= 100
    assert 0 < found["firing_rate"] < 1
    with open(folder / "summary.csv", newline="") as file:
        assert float(next(csv.DictReader(file))["test_top1"]) == found["test_top1"]
    options = yaml.safe_load((folder / "args.yaml").read_text())
    assert (options["dataset"], options["step"]) == ("digits", 2)


def test_args_yaml_gives_the_same_run_in_a_new_folder(go):
    first = go("--drop-path", "0.3", "--mixup", "0.5", "--mixup-prob", "1", "-b", "8")
    recipe = ["-c", str(Path(first["folder"]) / "args.yaml")]
    second = run(resolve(recipe))
    assert first["folder"] != second["folder"]
    one, other = _weights(first["folder"]), _weights(second["folder"])
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_resumes_from_the_command_line(go):
    whole = go("--experiment", "whole", "--drop-path", "0.3", "--model-ema")
    go("--experiment", "part", "--drop-path", "0.3", "--model-ema", "--max-steps", "2")
    folder = str(Path(whole["folder"]).with_name("part"))
    part = go("--drop-path", "0.3", "--model-ema", "--resume", folder)
    assert part["folder"] == folder
    one, other = _weights(whole["folder"]), _weights(folder)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert Path(folder, "summary.csv").read_text() == Path(whole["folder"], "summary.csv").read_text()


def test_resumes_what_was_saved_before_an_option_existed(go):
    folder = go("--max-steps", "2")["folder"]
    path = Path(folder) / "last.pth.tar"
    state = torch.load(path, weights_only=False)
    del state["options"]["skip_bad"]
    torch.save(state, path)
    assert go("--resume", folder, "--max-steps", "3")["steps"] == 3


def test_resume_with_other_options_is_refused(go):
    folder = go("--max-steps", "1")["folder"]
    with pytest.raises(UserError, match=r"--seed was 42, now 7; .*--no-resume-opt"):
        go("--resume", folder, "--seed", "7")
    fresh = go("--resume", folder, "--seed", "7", "--no-resume-opt", "--max-steps", "1")
    assert fresh["folder"] != folder
    assert fresh["steps"] == 1


def test_evaluation_repeats_the_figures_of_training(go):
    trained = go("--encode", "rate")
    found = go("--encode", "rate", "--eval_checkpoint", trained["checkpoint"])
    assert {name: found[name] for name in ("test_loss", "test_top1")} == {
        name: trained[name] for name in ("test_loss", "test_top1")
    }


def test_ctrl_c_says_how_to_go_on(go, monkeypatch):
    def fit(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        return []

    monkeypatch.setattr(assembly, "fit", fit)
    with pytest.raises(Interrupted, match=r"main\.py -c .*args\.yaml --resume "):
        go()


BAD = {
    "class count": (["--num-classes", "7"], "--num-classes 7 does not match"),
    "image size": (["--model", "spikformer_dvs"], "multiple of 16.*--img-size"),
    "missing checkpoint": (["--resume", "nowhere"], "no file or folder 'nowhere'"),
    "no weights published": (["--pretrained"], "no official weights were released"),
    "odd batch": (["--mixup", "0.5", "--mixup-prob", "1"], "must be even"),
}


@pytest.mark.parametrize("name", BAD)
def test_names_the_mistake(go, name):
    arguments, message = BAD[name]
    with pytest.raises(UserError, match=message):
        go(*arguments)


def test_folder_that_cannot_be_written_is_named(go, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output: cannot write"):
        go("--output", str(tmp_path / "file"))


def test_named_folder_with_a_run_is_not_reused(go):
    go("--experiment", "one", "--max-steps", "1")
    with pytest.raises(UserError, match="holds a run"):
        go("--experiment", "one", "--max-steps", "1")


def test_command_line_ends_in_one_line_and_status_2(capsys, tmp_path):
    assert main([*DIGITS, *SHORT, "--output", str(tmp_path), "--resume", "nowhere"]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: --resume")
    assert "\n" not in told


ON_IMAGES = {
    "TET in bfloat16": ["--tet-loss", "--tet-lambda", "0.1", "--amp"],
    "accumulation, clipping, noise": ["--grad-accum", "2", "--clip-grad", "1", "--noisy-grad", "0.01"],
    "random steps with checkpointing": ["--rand-step", "--grad-checkpointing", "--channels-last"],
    "step by step, squared error": ["--no-layer-by-layer", "--loss-fn", "mse"],
    "norms and picture": ["--bn-tf", "--sync-bn", "--dist-bn", "reduce", "--save-images"],
}


@pytest.mark.parametrize("name", ON_IMAGES)
def test_option_trains(go, name):
    assert go(*ON_IMAGES[name], "--max-steps", "2")["steps"] == 2


@pytest.fixture(scope="module")
def event_folder(tmp_path_factory):
    """Return a folder in which the simulated recordings are kept from test to test."""
    return str(tmp_path_factory.mktemp("events"))


ON_EVENTS = {
    "folded time": ["--temporal-flatten"],
    "mixed events": ["--event-mix", "--mixup-off-epoch", "1"],
    "random steps": ["--rand-step"],
}


@pytest.mark.parametrize("name", ON_EVENTS)
def test_option_trains_on_events(go, event_folder, name):
    events = ["--dataset", "ndigits", "--model", "spikformer_ndigits", "--data-dir", event_folder]
    found = go(*events, *ON_EVENTS[name], "--max-steps", "2")
    assert found["steps"] == 2
