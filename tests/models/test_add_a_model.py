"""The page on adding a model: its two files are written into an empty folder and run."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_a_model.md").read_text(encoding="utf-8")


def test_the_page_works_as_it_stands(tmp_path):
    network, use = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "ringformer.py").write_text(network)
    listed = "from braincog_transformers.cli import main\nmain(['--list-models', 'ring*'])\n"
    (tmp_path / "try.py").write_text(use + listed)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "try.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "torch.Size([2, 10])\nloaded 148 tensors into Ringformer" in done.stdout
    assert "ringformer_digits" in done.stdout.split("loaded")[1]
