"""docs/integer_neuron.md: its program prints what the page says, and its command runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from braincog_transformers import cli

PAGE = Path(__file__).parents[2] / "docs" / "integer_neuron.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs/integer_neuron.md is not beside the tests")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_program_prints_what_the_page_says(tmp_path):
    (program,), (_, printed) = blocks("python"), blocks("text")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == printed, done.stderr


@pytest.mark.slow
def test_the_command_runs(tmp_path, monkeypatch, capsys):
    (command,) = blocks("bash")
    monkeypatch.chdir(tmp_path)
    assert cli.main(shlex.split(command)[3:]) == 0
    out = capsys.readouterr().out
    assert "spike-driven: of" in out
    assert "4 binary planes a step" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spiking-inference"], "--spiking-inference is for a trained network; give --eval,"),
        (["--spiking-inference", "--audit", "--compile"], "which --compile hides; give one of them"),
        (["--spiking-inference", "--audit", "--workers", "0"], "its neurons fire no whole numbers"),
        (["--audit", "--levels", "4"], "LIFNode fires 0 or 1, so it has no levels; node_type=ILIFNode"),
        (["--audit", "--node-type", "ILIFNode", "--levels", "0"], "--levels"),
        (["--audit", "--node-type", "ILIFNode", "--act-fun", "AtanGrad"], "so it has no act_fun"),
    ],
)
def test_what_makes_no_sense_is_one_line(options, message, tmp_path, capsys):
    fixed = ["--model", "spikformer_digits", "--dataset", "digits", "--output", str(tmp_path), "--tensorboard-dir", ""]
    with pytest.raises(SystemExit) as ended:
        sys.exit(cli.main([*fixed, *options]))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
