"""docs/add_a_neuron.md, done word by word in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_a_neuron.md").read_text(encoding="utf-8")


def started(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    """Return an empty folder with the files of the page."""
    for name, text in zip(("resonate.py", "try.py"), re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_page_prints_what_it_says(folder):
    assert started(folder, "try.py") == re.search(r"prints:\n\n```\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.mark.slow
def test_the_page_trains(folder):
    command = re.search(r"^```bash\npython (.*?)\n```$", PAGE, re.MULTILINE)[1]
    started(folder, *command.split())
    assert list(folder.glob("runs/*/results.json"))
