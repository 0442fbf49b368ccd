"""docs/conversion.md: its program prints what the page says, its commands are taken, its tables have every option."""

import contextlib
import re
import shlex
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import timm
import torch

from braincog_transformers import UserError, cli
from braincog_transformers.cli.parser import build_parser
from braincog_transformers.conversion import METHODS, SOURCES, prepare

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conversion.md"
if not PAGE.exists():
    pytest.skip("docs/conversion.md is not beside the tests", allow_module_level=True)
TEXT = PAGE.read_text(encoding="utf-8")
HEADINGS = {
    "spikezip": "SpikeZIP-TF",
    "sta": "Spatio-Temporal Approximation",
    "qcfs": "QCFS",
    "rate": "Rate coding",
}
COMMANDS = [
    line.removeprefix("python main.py ")
    for block in re.findall(r"^```bash\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith("python main.py ")
]
ON_DIGITS = [command for command in COMMANDS if "output/convert_vit" in command]


def test_the_program_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    program, printed = re.search(
        r"^```python\n(.*?)^```$.*?^```text\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE
    ).groups()
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "convert.py", "exec"), {})
    assert capsys.readouterr().out == printed


def default_of(field):
    """Return how a table writes a default."""
    return str(field.default_factory() if field.default is MISSING else repr(field.default))


@pytest.mark.parametrize("method", METHODS)
def test_the_table_of_a_method_has_its_options_and_defaults(method):
    section = TEXT.split(f"\n### {HEADINGS[method]}\n")[1].split("\n##")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", section, re.MULTILINE))
    # `calls` is what a file holds, not what a user gives
    assert shown == {
        field.name: default_of(field) for field in fields(METHODS[method].options) if field.name != "calls"
    }


def test_the_first_table_has_every_method():
    table = TEXT.split("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)`:", table, re.MULTILINE)) == sorted(METHODS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:60])
def test_the_commands_have_options_and_networks_that_exist(command):
    args = build_parser().parse_args(shlex.split(command))
    model = vars(args).get("model")
    assert model is None or model in SOURCES or timm.is_model(model)


@pytest.mark.slow
@pytest.mark.parametrize("command", ON_DIGITS, ids=lambda command: command.split()[1])
def test_the_commands_on_digits_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    source = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=64, depth=2,
        num_heads=4, mlp_ratio=2, act_layer="relu",
    )  # fmt: skip
    Path("output/convert_vit").mkdir(parents=True)
    torch.save(source.state_dict(), "output/convert_vit/source.pth")
    words = shlex.split(command)
    words[words.index("--step") + 1] = "2"
    with contextlib.suppress(ValueError):
        words[words.index("--epochs") + 1] = "1"
    assert cli.main([*words, "--workers", "0", "--experiment", "run"]) == 0
    assert "spiking" in capsys.readouterr().out
    assert cli.main(["--eval_checkpoint", "output/run", "--dataset", "digits", "--step", "1", "--workers", "0"]) == 0


def test_what_is_refused_is_said_as_the_page_shows():
    (shown,) = re.findall(r"^error: (.*)$", TEXT, re.MULTILINE)
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2)
    with pytest.raises(UserError) as caught:
        prepare(network, "rate", data=torch.rand(1, 3, 32, 32))
    assert str(caught.value) == shown
