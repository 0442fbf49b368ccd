"""docs/add_a_data_set.md, done word by word in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "add_a_data_set.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Return an empty folder with the files of the page."""
    for name, content in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def started(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_page_prints_what_it_says(folder):
    looked = started(folder, "look.py")
    assert looked.returncode == 0, looked.stderr
    assert looked.stdout == re.search(r"prints:\n\n```\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.mark.slow
def test_the_page_trains(folder):
    assert started(folder, "make_pets.py").returncode == 0
    command = re.search(r"^```bash\npython (.*?)\n```$", PAGE, re.MULTILINE)[1]
    trained = started(folder, *command.split())
    assert trained.returncode == 0, trained.stderr
    assert list(folder.glob("runs/*/results.json"))
