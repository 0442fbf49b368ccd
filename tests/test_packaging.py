"""What is promised around the code: metadata, the README, the package as a folder of Brain-Cog, a silent import."""

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import braincog_transformers
from braincog_transformers.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "braincog_transformers"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SNIPPETS = re.findall(r"<!-- snippet -->\n```python\n(.*?)```", README, re.DOTALL)
ONE_STEP = """
import torch
from sklearn.datasets import load_digits
digits = load_digits()
x = torch.tensor(digits.images[:16], dtype=torch.float32).unsqueeze(1) / 16
y = torch.tensor(digits.target[:16])
model = timm.create_model("spikformer_digits")
before = [p.clone() for p in model.parameters()]
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
torch.nn.functional.cross_entropy(model(x), y).backward()
optimizer.step()
assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))
"""


def run_python(code, *, path, cwd, options=()):
    """Run code in a fresh interpreter with `path` in front of the installed packages."""
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)


def commands(name=None):
    """List the README's shell commands: those in the block marked `name`, or all."""
    mark = rf"<!-- command: {name} -->\n" if name else ""
    blocks = re.findall(mark + r"```bash\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_version_is_read_without_importing_the_package():
    code = "import sys; sys.argv = ['setup.py', '--version']; exec(open('setup.py').read(), {'__file__': 'setup.py'})"
    done = run_python(code + "; assert 'braincog_transformers' not in sys.modules", path="", cwd=ROOT)
    assert done.stdout.splitlines()[-1] == braincog_transformers.__version__, done.stderr


def test_what_is_installed_needs_no_checkout(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "braincog_transformers_main.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "setup.py", "-q", "build", "--build-lib", "installed"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    installed, away = tmp_path / "installed", tmp_path / "away"
    away.mkdir()
    files = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*") if path.is_file()}
    built = {str(path.relative_to(installed / PACKAGE.name)) for path in (installed / PACKAGE.name).rglob("*")}
    assert {name for name in files if "__pycache__" not in name} <= built
    code = "from braincog_transformers_main import main; main(['--data-info', '--dataset', 'dvsc10'])"
    done = run_python(code, path=installed, cwd=away)
    assert "spikingresformer_cifar10dvs.yaml: --event-size 64" in done.stdout, done.stderr


def test_citation_and_changelog_know_the_version():
    assert f"\nversion: {braincog_transformers.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {braincog_transformers.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_the_package_is_silent(tmp_path):
    done = run_python("import braincog_transformers", path=ROOT, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_imports_inside_the_package_are_relative():
    absolute = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            absolute += [f"{path.name}:{node.lineno}" for name in names if name.split(".")[0] == PACKAGE.name]
    assert absolute == []


def test_the_folder_works_inside_brain_cog(tmp_path):
    installed = Path(importlib.util.find_spec("braincog").submodule_search_locations[0])
    tree = tmp_path / "braincog"
    tree.mkdir()
    for entry in installed.iterdir():
        (tree / entry.name).symlink_to(entry)
    shutil.copytree(PACKAGE, tree / "transformers", ignore=shutil.ignore_patterns("__pycache__"))
    guard = "import sys; sys.modules['braincog_transformers'] = None\n"
    # a dropped-in folder can't run before braincog's own __init__, so what that prints is not ours to hold back
    done = run_python(guard + "import timm, braincog.transformers" + ONE_STEP, path=tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_readme_has_one_command_to_train_and_one_to_test():
    assert len(commands("train")) == len(commands("test")) == 1
    assert commands("train")[0].startswith("pip install . && ")
    assert commands("test")[0].startswith('pip install ".[test]" && ')


def test_commands_in_the_readme_name_existing_files_and_options():
    options = build_parser()._option_string_actions
    for command in commands():
        for word in shlex.split(command):
            if word.endswith((".py", ".yaml")):
                assert (ROOT / word).exists(), command
            if word.startswith("--") and "main.py" in command and not word.startswith("--nproc"):
                assert word in options, (word, command)


def test_ci_runs_the_readmes_own_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    body = re.search(r"readme_command\(\).*?\n}", script, re.DOTALL).group()
    done = subprocess.run(
        ["bash", "-c", f"{body}\nreadme_command test"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == commands("test")
    assert 'eval "$test_command"' in script
    assert re.search(r"^export PYTEST_ADDOPTS=.*--slow", script, re.MULTILINE)  # and all that is marked slow


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert broken == []


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[-1][:40])
def test_snippets_in_the_readme_run(snippet, capsys):
    exec(compile(snippet, "README.md", "exec"), {})


def script(name):
    """Return a script of docs as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "table"), [("make_models", "families_table"), ("make_data_sets", "table")])
def test_the_tables_of_the_readme_are_the_registries(name, table):
    assert getattr(script(name), table)() in README, f"renew it: python docs/{name}.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["make_models", "make_data_sets"])
def test_the_scripts_of_docs_find_nothing_stale(name, monkeypatch, capsys):
    """For docs/models.md every network runs once."""
    monkeypatch.setattr(sys, "argv", [name, "--check"])
    assert script(name).main() == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem == "swap_neuron" else pytest.mark.slow)
        for path in sorted((ROOT / "examples").glob("*.py"))
    ],
)
def test_examples_run(example, tmp_path):
    code = (
        f"import runpy, sys; sys.argv = ['x', {str(tmp_path)!r}]; runpy.run_path({str(example)!r}, run_name='__main__')"
    )
    done = run_python(code, path=ROOT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
