"""A user's own network and neuron, reached from the command line by `--plugin` and by an entry point."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

from braincog_transformers import cli, nodes, plugins
from braincog_transformers.cli import resolve
from braincog_transformers.data import DATASETS
from braincog_transformers.models.registry import REGISTERED

ROOT = Path(__file__).parents[2]
PLUGIN = """
from braincog_transformers import LIFNode
from braincog_transformers.models.registry import Paper, Variant, cfg, register
from braincog_transformers.models.spikformer import Spikformer
from braincog_transformers.nodes import register_node


@register_node
class {prefix}Node(LIFNode):
    def forward(self, x):
        return super().forward(0.9 * x)


class {prefix}former(Spikformer):
    pass


_PAPER = Paper("{prefix}former", "none 2026", "none", "nobody/none")
_SIZE = dict(depth=1, embed_dim=32, num_heads=2, patch_size=1, step=2)
register(
    {prefix}former,
    {{"{name}": Variant(_SIZE, {{"": cfg(_PAPER, (1, 8, 8), 10)}})}},
    first_conv="patch_embed.stages.0.conv",
)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Return a function that writes a plugin into the current folder; everything it changes is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", sys.modules)
    before = set(sys.modules), set(REGISTERED), set(nodes.brain_cog._REGISTERED), set(DATASETS)

    def write(name, text=PLUGIN):
        path = tmp_path / f"{name}.py"
        path.write_text(text.format(prefix=name.title().replace("_", ""), name=f"net_{name}"))
        return path

    yield write
    tables = (sys.modules, REGISTERED, nodes.brain_cog._REGISTERED, DATASETS)
    for known, old in zip(tables, before, strict=True):
        for name in [name for name in known if name not in old]:
            if known is not sys.modules or name.startswith("mine"):
                del known[name]


@pytest.mark.slow
def test_a_module_in_the_current_folder_trains_is_evaluated_analysed_and_reported(plugin, tmp_path):
    plugin("mine")
    size = ["--dataset", "digits", "--epochs", "1", "--max-steps", "1", "-b", "32", "-j", "0", "--cooldown-epochs", "0"]
    own = ["--plugin", "mine", "--model", "net_mine", "--node-type", "MineNode"]
    places = ["--output", str(tmp_path), "--experiment", "one", "--tensorboard-dir", "", "--device", "cpu"]
    command = [sys.executable, str(ROOT / "main.py"), *own, *size, *places, "--report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "one"
    assert yaml.safe_load((folder / "args.yaml").read_text())["plugin"] == ["mine"]
    assert "net_mine" in (folder / "report.html").read_text()
    again = ["-c", str(folder / "args.yaml"), "--eval_checkpoint", str(folder)]
    assert cli.main([*again, "--analyze", "--no-report"]) == 0
    assert (folder / "energy.csv").exists()


DATASET = """
from dataclasses import replace

from braincog_transformers.data import DATASETS, register_dataset

register_dataset(replace(DATASETS["digits"], name="mine_digits"))
"""


def test_a_data_set_of_a_plugin_is_known_to_every_command(plugin, monkeypatch, capsys):
    plugin("mine_data", DATASET)
    assert cli.main(["--dataset", "mine_digits"]) == 2
    assert "unknown data set 'mine_digits'" in capsys.readouterr().err
    seen = []
    monkeypatch.setattr(cli, "_run", seen.append)
    assert cli.main(["--plugin", "mine_data", "--dataset", "mine_digits", "--model", "spikformer_digits"]) == 0
    assert seen[0].data.dataset == "mine_digits"
    assert cli.main(["--plugin", "mine_data", "--data-info", "--dataset", "mine_digits"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["mine_digits", "image", "data"]


def test_a_file_is_a_plugin_too_and_its_network_is_listed(plugin, tmp_path, capsys):
    path = plugin("mine_too")
    for _ in range(2):
        assert cli.main(["--list-models", "net_mine*", "--plugin", str(path)]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["net_mine_too", "MineTooformer"]


def test_plugins_are_given_one_by_one_or_in_a_row(plugin):
    plugin("mine_a", "")
    plugin("mine_b", "")
    wanted = ("mine_a", "mine_b")
    assert resolve(["--plugin", "mine_a", "mine_b"]).run.plugin == wanted
    assert resolve(["--plugin", "mine_a", "--plugin=mine_b"]).run.plugin == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_this_name", "fails at import: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("\n1 / 0", "fails at import: ZeroDivisionError: division by zero (mine_bad.py, line 2)"),
        ("x = (", "fails at import: SyntaxError"),
        ("import sys; sys.exit(3)", "fails at import: SystemExit: 3"),
        (
            "from braincog_transformers.nodes import register_node\n@register_node\nclass LIFNode: pass",
            "neuron LIFNode must be derived from a node of braincog_transformers",
        ),
    ],
    ids=["missing module", "error", "syntax", "exit", "no neuron"],
)
def test_a_plugin_that_fails_is_one_line(plugin, text, message, capsys):
    path = plugin("mine_bad", text)
    for name in ("mine_bad", str(path)):
        assert cli.main(["--plugin", name]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --plugin ")
        assert message in error
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine_none", "--plugin mine_none: no module of this name on the import path or in "),
        ("mine.none", "--plugin mine.none: no module of this name"),
        ("", "--plugin must be a text that isn't empty"),
        ("mine_none.py", "--plugin mine_none.py: no file "),
    ],
)
def test_a_plugin_that_is_missing_is_one_line(plugin, name, message, capsys):
    assert cli.main(["--plugin", name]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_file_named_like_another_module_is_refused(plugin, capsys):
    path = plugin("yaml", "")
    assert cli.main(["--plugin", str(path)]) == 2
    assert "another module is called yaml; give the file another name" in capsys.readouterr().err


def test_an_installed_package_is_a_plugin(plugin, tmp_path, monkeypatch, capsys):
    plugin("mine_installed")
    sys.path.append(str(tmp_path))
    entry = EntryPoint("mine", "mine_installed", "braincog_transformers.plugins")
    monkeypatch.setattr(plugins, "installed", lambda: (entry,))
    assert cli.main(["--list-models", "net_mine_installed"]) == 0
    assert "MineInstalledformer" in capsys.readouterr().out
    broken = EntryPoint("broken", "mine_nowhere", "braincog_transformers.plugins")
    monkeypatch.setattr(plugins, "installed", lambda: (broken,))
    assert cli.main(["--list-models"]) == 2
    assert capsys.readouterr().err.startswith("error: plugin broken of an installed package (mine_nowhere) fails at ")
