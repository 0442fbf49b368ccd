"""The command line: instant answers, one line and status 2 for mistakes, and the order of its work."""

import subprocess
import sys
from pathlib import Path

import pytest

from braincog_transformers import cli, list_models
from braincog_transformers.cli import resolve
from braincog_transformers.conversion import SOURCES
from braincog_transformers.errors import Interrupted, NonFiniteLoss, UserError
from braincog_transformers.models.task_networks import TASK_NETWORKS

ROOT = Path(__file__).parents[2]


def run_python(code):
    """Run code in a fresh interpreter at the root of the checkout."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["--help"], 0),
        (["--bach-size", "4"], 2),
        (["--dataset", "nope"], 2),
        (["--step", "0"], 2),
        (["-c", "missing.yaml"], 2),
        (["--list-models", "X", "--bogus", "3"], 2),
        (["--search", "--search-params", "0.1", "0.2"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_mistakes_need_neither_torch_nor_braincog(argv, status):
    code = f"""
import sys
from braincog_transformers_main import main
try:
    status = main({argv!r})
except SystemExit as stop:
    status = stop.code
print("STATUS", status, sorted({{"torch", "timm", "braincog", "numpy"}} & set(sys.modules)))
"""
    done = run_python(code)
    assert done.stdout.splitlines()[-1] == f"STATUS {status} []", done.stderr


def test_help_shows_every_group_and_the_default_of_an_option():
    done = subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for title in (
        "data:",
        "model:",
        "optimizer:",
        "learning rate:",
        "mixing of samples:",
        "--batch-size",
        "--no-layer-by-layer",
    ):
        assert title in done.stdout
    assert "--no-amp" not in done.stdout.split("Each switch")[0]


def test_the_package_that_runs_is_the_one_that_was_put_in_first():
    done = run_python("""
import sys
from braincog_transformers_main import main
status = main(["--model", "spikfromer_8_512"])
import braincog_transformers as package
from braincog_transformers import cli
print(status, package is sys.modules["braincog_transformers"], package.cli is cli, "torch" in sys.modules)
print(cli.UserError is package.errors.UserError, callable(package.list_models))
""")
    assert done.stdout.splitlines() == ["2 True True True", "True True"], done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "error: unknown model 'spikfromer_8_512'; did you mean spikformer_8_512"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--bach-size", "4"], "error: unknown option '--bach-size'; did you mean --batch-size"),
        (["--model", "spikfromer"], "error: unknown model 'spikfromer'; did you mean spikformer"),
        (["--dataset", "cifar11"], "error: unknown data set 'cifar11'; did you mean cifar1"),
        (["--opt", "adamv"], "error: unknown optimizer 'adamv'; did you mean adam"),
        (["--step", "0"], "error: --step must be at least 1; got 0"),
        (["--step"], "error: --step: expected one argument"),
        (["-c", "missing.yaml"], "error: --config: no file 'missing.yaml'"),
        (["-c", "{key}"], "error: {key}: unknown option 'epcohs'; did you mean epochs"),
        (["-c", "{malformed}"], "error: --config {malformed}: not valid YAML"),
        (["--gp", "avg"], "error: --gp is refused: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_in_one_line_and_status_2(argv, message, tmp_path, capsys):
    paths = {"key": tmp_path / "key.yaml", "malformed": tmp_path / "malformed.yaml"}
    paths["key"].write_text("epcohs: 3\n")
    paths["malformed"].write_text("epochs: [3\nlr: {")
    assert cli.main([text.format(**paths) for text in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith(message.format(**paths))


def test_torch_is_loaded_only_for_options_that_hold_up_and_before_the_run(monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "_run", lambda options: calls.append(options.sched.epochs))
    assert cli.main(["--step", "0"], load=lambda: calls.append("load")) == 2
    assert cli.main(["--epochs", "3"], load=lambda: calls.append("load")) == 0
    assert calls == ["load", 3]


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (UserError("two\nlines"), 2, ["error: two lines"]),
        (FileNotFoundError("no data"), 2, ["error: no data"]),
        (NonFiniteLoss("loss is nan"), 1, ["error: loss is nan"]),
        (Interrupted("saved"), 130, ["saved"]),
        (KeyboardInterrupt(), 130, []),
    ],
    ids=["UserError", "FileNotFoundError", "NonFiniteLoss", "Interrupted", "KeyboardInterrupt"],
)
def test_errors_of_the_run_become_a_status(monkeypatch, capsys, error, status, lines):
    def fail(options):
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main([]) == status
    assert capsys.readouterr().err.splitlines() == lines


def test_an_error_of_ours_keeps_its_traceback(monkeypatch):
    def fail(options):
        raise RuntimeError("a fault in the package")

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(RuntimeError, match="a fault in the package"):
        cli.main([])


def test_the_issues_command_lines_resolve(monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "_run", seen.append)
    common = ["--epochs", "500", "--batch-size", "16", "--seed", "42"]
    assert cli.main(["--dataset", "dvsc10", *common, "--event-size", "64", "--model", "spikformer_dvs"]) == 0
    assert cli.main(["--dataset", "imnet", *common, "--model", "spikformer"]) == 0
    assert [(o.data.dataset, o.data.event_size, o.model.model) for o in seen] == [
        ("dvsc10", 64, "spikformer_dvs"),
        ("imnet", None, "spikformer"),
    ]


def test_list_models_prints_a_row_for_each_network(capsys):
    assert cli.main(["--list-models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["name", "family", "year", "T"]
    assert [line.split()[0] for line in lines[1:]] == [*list_models(), *TASK_NETWORKS, *SOURCES]
    row = next(line for line in lines if line.startswith("spikformer_8_512 "))
    assert row.split()[1:7] == ["Spikformer", "2023", "4", "3x224x224", "29.69", "M"]
    assert row.endswith("ImageNet 73.38 (arXiv:2209.15425)")


def test_a_model_may_have_the_tag_of_one_of_its_configurations(capsys):
    assert cli.main(["--model", "spikformer_4_384_cifar.cifar1000", "--dataset", "digits"]) == 2
    error = capsys.readouterr().err
    assert "configuration of spikformer_4_384_cifar" in error
    assert "cifar100" in error
    assert cli.main(["--model", "spikformer_digits.x", "--dataset", "digits"]) == 2
    assert "it has one" in capsys.readouterr().err


def test_list_models_says_what_a_network_for_a_task_is_for(capsys):
    assert cli.main(["--list-models", "s*_small"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "for --task depth, does not spike" in rows["spike_transformer_depth_small"]
    assert rows["stnet_small"].rstrip().endswith("for --task track")


def test_list_models_takes_a_pattern_or_a_part_of_a_name(capsys):
    for pattern in ("spikformer_?_512", "former_6_512"):
        assert cli.main(["--list-models", pattern]) == 0
        assert "spikformer_6_512" in capsys.readouterr().out
    assert cli.main(["--list-models=spikfromer_8_512"]) == 2
    assert "spikformer_8_512" in capsys.readouterr().err


@pytest.mark.parametrize(
    "action",
    [["--list-models", "X"], ["--identify", "X"], ["--data-info"], ["--export", "x.onnx"], ["--search"]],
    ids=lambda a: a[0],
)
@pytest.mark.parametrize(
    ("beside", "message"),
    [
        (["--bogus", "3"], "unknown option '--bogus'"),
        (["--step", "x"], "--step needs a whole number; got 'x'"),
        (["--step", "1", "stray"], "belongs to no option"),
        (["-c", "missing.yaml"], "no file 'missing.yaml'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_beside_an_action_is_named(action, beside, message, capsys):
    assert cli.main([*action, *beside]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_two_actions_at_once_are_refused(capsys):
    assert cli.main(["--list-models", "--identify", "x"]) == 2
    assert capsys.readouterr().err == "error: --identify: not allowed with argument --list-models\n"


def test_every_action_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(action in shown for action in ("--list-models", "--data-info", "--identify", "--export", "--doctor"))


def test_python_m_runs_the_same_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "braincog_transformers", "--step", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "error: --step must be at least 1; got 0"


def test_a_run_of_one_step_writes_its_options_and_the_asked_for_picture(tmp_path):
    places = ["--output", str(tmp_path), "--tensorboard-dir", "", "--experiment", "one", "--device", "cpu"]
    size = ["--epochs", "1", "--max-steps", "1", "--batch-size", "4", "--workers", "0", "--step", "1"]
    argv = ["--dataset", "digits", "--model", "spikformer_digits", *size, *places, "--save-images"]
    assert cli.main(argv) == 0
    assert (tmp_path / "one" / "first_batch.png").stat().st_size > 1000
    assert resolve(["-c", str(tmp_path / "one" / "args.yaml")]) == resolve(argv)
    assert not list(tmp_path.glob("**/events.out*"))
