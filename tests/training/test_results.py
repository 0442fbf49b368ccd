"""What a run leaves behind: `results.json`, the command that repeats it, and `--report`."""

import json
import shlex
from pathlib import Path

import pytest
from tiny_run import DIGITS

from braincog_transformers import cli
from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError
from braincog_transformers.models import Spikformer
from braincog_transformers.recipe import Options
from braincog_transformers.training.results import repeating

pytestmark = pytest.mark.usefixtures("small_digits")


def _results(found):
    return json.loads((Path(found["folder"]) / "results.json").read_text())


@pytest.mark.parametrize(
    "arguments",
    [
        "--dataset digits --model spikformer_digits --lr 1e-3 --no-aug --amp",
        "--dataset dvsc10 --model spikformer_dvs --event-augment rotate event_drop --tet-loss --tet-means=-1",
        "-c examples/recipes/spikformer_digits.yaml --no-spike-rate --mixup 0.1 --experiment 'a b'",
    ],
)
def test_the_command_repeats_the_run(arguments):
    options = resolve(shlex.split(arguments))
    program, script, *again = shlex.split(repeating(options))
    assert (program, script) == ("python", "main.py")
    assert resolve(again) == options
    assert options.changed() != Options().changed()


def test_a_training_writes_what_it_was(go):
    found = go("--report", "--analyze-batches", "1")
    folder, results = Path(found["folder"]), _results(found)
    assert (results["kind"], results["model"]["name"], results["model"]["step"]) == ("training", "spikformer_digits", 2)
    assert results["results"]["test_top1"] == found["test_top1"]
    assert 0 < results["results"]["firing_rate"] < 1
    assert results["samples"] == {"train": 32, "test": 32}
    assert resolve(shlex.split(results["command"])[2:]).to_dict() == results["options"]
    assert results["environment"].keys() >= {"braincog_transformers", "torch", "python", "processor", "device"}
    # --report asks for everything, and everything is in the page
    drawn = {"curves", "energy", "firing_rates", "spike_raster", "spike_maps", "attention", "confusion", "features",
             "membranes"}  # fmt: skip
    assert {Path(name).stem for name in results["pictures"]} == drawn
    assert all((folder / f"{name}.svg").is_file() for name in drawn)
    assert json.loads((folder / "energy.json").read_text())["samples"] == 9  # one batch
    assert json.loads((folder / "rates.json").read_text())["samples"] == 32
    assert "spike_driven" in json.loads((folder / "audit.json").read_text())
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= len(drawn) - 1  # the page draws its own curves
    assert "no energy" not in page


def test_a_reconstruction_is_named_in_log_results_and_report(go, capsys, monkeypatch):
    assert _results(go("--analyze", "--experiment", "known"))["model"]["status"] == ""
    monkeypatch.setattr(Spikformer, "status", "reconstruction")
    found = go("--analyze", "--report", "--experiment", "made_up")
    assert "spikformer_digits: reconstruction, its authors released no code" in capsys.readouterr().out
    assert _results(found)["model"]["status"] == "reconstruction"
    assert ">reconstruction<" in (Path(found["folder"]) / "report.html").read_text()


def test_an_evaluation_is_noted_beside_its_training(go):
    trained = _results(first := go())
    found = go("--eval_checkpoint", str(Path(first["folder"]) / "last.pth.tar"), "--conf-mat")
    assert found["folder"] == first["folder"]
    results = _results(found)
    assert results.pop("evaluation")["results"]["test_top1"] == first["test_top1"]
    assert results.pop("pictures") == ["curves.png", "confusion.png"]
    assert trained.pop("pictures") == ["curves.png"]
    assert results == trained


def test_an_evaluation_of_another_network_takes_another_folder(go, tmp_path):
    first = go("--experiment", "x")
    with pytest.raises(UserError, match=r"--experiment: .*x' holds a training of spikformer_digits; name another"):
        go("--analyze", "--model", "sdt_digits", "--experiment", "x")
    assert _results(first)["model"]["name"] == "spikformer_digits"


def test_an_evaluation_alone(go):
    results = _results(go("--analyze", "--energy-method", "sdt", "--energy-first-once", "--energy-count-head"))
    assert (results["kind"], results["checkpoint"]) == ("evaluation", None)
    assert [Path(name).stem for name in results["pictures"]] == ["energy"]


def test_options_reach_the_method(go):
    def energies(*more):
        folder = Path(go("--analyze", "--experiment", "e", "--threshold", "0.01", *more)["folder"])
        return {row["name"]: row["energy"] for row in json.loads((folder / "energy.json").read_text())["rows"]}

    plain, once = energies("--energy-method", "sdt"), energies("--energy-method", "sdt", "--energy-first-once")
    first = "patch_embed.stages.0.conv"
    assert plain[first] == pytest.approx(2 * once[first])
    assert plain["head"] == 0 < energies("--energy-method", "sdt", "--energy-count-head")["head"]
    dense, spikes = energies(), energies("--energy-whole-as-spikes")
    assert dense["blocks.0.mlp.fc1.linear"] > spikes["blocks.0.mlp.fc1.linear"]


def test_spikes_are_packed_and_integers_multiply_unless_told_not_to(go, monkeypatch):
    from braincog_transformers.training import assembly

    built, build_network = [], assembly.build_network
    monkeypatch.setattr(assembly, "build_network", lambda *a, **k: built.append(build_network(*a, **k)) or built[-1])
    apart = ([], ["--no-pack-spikes"], ["--no-integer-products"])
    losses = [go("--max-steps", "1", *more)["train_loss"] for more in apart]
    assert [network.pack_spikes for network in built] == [True, False, True]
    layers = [{m.integer_products for m in n.modules() if hasattr(m, "integer_products")} for n in built]
    assert layers == [{True}, {True}, {False}]
    assert losses[0] == losses[1] == losses[2]  # too small a network for integers


@pytest.mark.parametrize(("fast", "options"), [(True, []), (False, []), (True, ["--amp"])])
def test_a_device_that_is_fast_in_bfloat16_is_named(go, capsys, monkeypatch, fast, options):
    from braincog_transformers.training import train as assembly

    monkeypatch.setattr(assembly, "fast_in_bfloat16", lambda _: fast)
    go("--max-steps", "1", *options)
    assert ("--amp uses that" in capsys.readouterr().out) == (fast and not options)


BAD = {
    "another method's option": (["--analyze", "--energy-pre-pool"], "belongs to the other --energy-method"),
    "checkpoint of another architecture": (["--model", "sdt_digits", "--analyze"], "fit"),
    "folder that can't be written": (["--analyze", "--output", "FILE"], "cannot write"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line(go, capsys, tmp_path, name):
    arguments, message = BAD[name]
    if "architecture" in name:
        arguments = [*arguments, "--eval_checkpoint", str(Path(go()["folder"]) / "last.pth.tar")]
    (tmp_path / "file").touch()
    arguments = [str(tmp_path / "file") if text == "FILE" else text for text in arguments]
    capsys.readouterr()
    assert cli.main([*DIGITS, "--output", str(tmp_path), "--experiment", "bad", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
