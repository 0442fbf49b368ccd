"""`--analyze` and `--audit` from the command line: measured, told, written; nothing is trained."""

import csv
import shlex

import pytest

from braincog_transformers import cli

SMALL = shlex.split("--model spikformer_digits --dataset digits --batch-size 32 --workers 0 --analyze-batches 1")


def _run(capsys, tmp_path, *options):
    places = ["--output", str(tmp_path), "--tensorboard-dir", str(tmp_path / "runs"), "--experiment", "x"]
    status = cli.main([*SMALL, *places, *options])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_energy_is_told_and_written(capsys, tmp_path):
    status, out, _ = _run(capsys, tmp_path, "--analyze", "--energy-method", "sdt", "--energy-ac", "1.8", "--audit")
    assert status == 0
    assert "the weights are random" in out
    assert "energy by the sdt method, 4.6 pJ a MAC and 1.8 pJ an accumulate" in out
    assert "mean of 32 samples" in out
    assert "layers and products between the first layer and the classifier" in out
    assert not list((tmp_path / "x").glob("*.pth*"))
    with (tmp_path / "x" / "energy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["name"] == "patch_embed.stages.0.conv"
    spent = sum(4.6e-9 * float(row["mac"]) + 1.8e-9 * float(row["ac"]) for row in rows)
    assert spent == pytest.approx(sum(float(row["energy"]) for row in rows))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--energy-method", "sdt"], "--analyze-batches: without effect"),
        (["--energy-mac", "3", "--audit"], "--energy-mac: without effect as long as neither --analyze"),
        (["--analyze", "--energy-method", "sdtt"], "--energy-method"),
    ],
)
def test_options_without_effect_are_refused(capsys, tmp_path, options, message):
    status, _, err = _run(capsys, tmp_path, *options)
    assert status == 2
    assert message in err


def test_a_checkup_instead_of_a_training(capsys, tmp_path):
    places = ["--output", str(tmp_path), "--tensorboard-dir", str(tmp_path / "runs"), "--experiment", "x"]
    small = shlex.split("--model spikformer_digits --dataset digits --batch-size 16 --workers 0 --tet-loss --amp")
    assert cli.main([*small, "--doctor", *places]) == 0
    out = capsys.readouterr().out
    assert "blocks.1.mlp.fc2.node" in out
    assert "advice: " in out
    assert "samples/s" in out
    assert not list(tmp_path.glob("x/*.pth*"))
