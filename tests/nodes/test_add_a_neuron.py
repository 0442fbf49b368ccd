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


@pytest.mark.slow
def test_the_page_prints_what_it_says_and_trains(tmp_path):
    neuron, use = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "resonate.py").write_text(neuron, encoding="utf-8")
    (tmp_path / "try.py").write_text(use, encoding="utf-8")
    assert started(tmp_path, "try.py") == re.search(r"prints:\n\n```\n(.*?)```", PAGE, re.DOTALL)[1]
    command = re.search(r"^```bash\npython (.*?)\n```$", PAGE, re.MULTILINE)[1]
    started(tmp_path, *command.split())
    assert list(tmp_path.glob("runs/*/results.json"))
