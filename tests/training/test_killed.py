"""Whole runs of the command line that are killed and resumed equal, bit for bit, the run that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from braincog_transformers.checkpoints import read_checkpoint

ROOT = Path(__file__).parents[2]
# says in the end how many kernels were compiled for neurons
CODE = """
import sys
from braincog_transformers_main import main
status = main(sys.argv[1:])
from braincog_transformers.runtime.compiler import compiled
print("kernels", compiled.cache_info().currsize)
sys.exit(status)
"""
# T*B*C*H*W of the first neurons is 2 * 240 * 8 * 8 * 8, so that the fused kernels pay
RUN = ["--dataset", "digits", "--model", "spikformer_digits", "--step", "2", "--device", "cpu", "-b", "240"]
RUN += ["--epochs", "2", "--warmup-epochs", "0", "--cooldown-epochs", "0", "--recovery-interval", "2"]
RUN += ["--model-ema", "--drop-path", "0.2", "--lr", "0.05", "--log-interval", "1", "--tensorboard-dir", ""]
VARIANTS = {
    "fused kernels and a loading process": ["--workers", "1"],
    "a compiled network": ["--workers", "0", "--compile", "--model-kwargs", "embed_dim=16", "num_heads=2"],
}
COMPILED = ("a compiled network",)


def _start(output: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-c", CODE, *RUN, "--output", str(output), *more]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | threads, stdout=subprocess.PIPE, text=True)


def _finish(output: Path, *more: str) -> str:
    with _start(output, *more) as process:
        try:
            told, _ = process.communicate(timeout=900)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, told
    return told


def _kill(output: Path, *more: str, after: str) -> None:
    """Start a run and kill it once there is a file of that pattern."""
    process = _start(output, *more)
    deadline = time.monotonic() + 900
    while not list(output.glob(after)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=pytest.mark.kernels if name in COMPILED else ()) for name in VARIANTS]
)
def test_a_killed_run_with(variant, tmp_path):
    more = VARIANTS[variant]
    told = _finish(tmp_path, "--experiment", "whole", *more)
    # a network that is compiled as a whole takes the plain neurons in
    assert "--compile" in more or int(told.split()[-1]) > 0
    folder = tmp_path / "killed"
    _kill(tmp_path, "--experiment", "killed", *more, after="killed/recovery-1-*.pth.tar")
    told = _finish(tmp_path, "--resume", str(folder), *more)
    assert "resumed at epoch 2" in told
    whole, resumed = (read_checkpoint(tmp_path / name / "last.pth.tar") for name in ("whole", "killed"))
    for part in ("state_dict", "state_dict_ema"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in whole[part].items())
    assert (folder / "summary.csv").read_bytes() == (tmp_path / "whole" / "summary.csv").read_bytes()
    assert not [path for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]
