"""A run that was stopped and resumed equals, bit for bit, the run that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_run import Run, assert_same

from braincog_transformers.errors import UserError
from braincog_transformers.training.distributed import Ranks
from braincog_transformers.training.learner import UpdateRules
from braincog_transformers.training.losses import build_loss
from braincog_transformers.training.saving import find_state
from braincog_transformers.training.state import difference, restore

# 24 samples in batches of 4: six batches an epoch, three epochs
STEPS = 18


@pytest.mark.parametrize("k", [1, 5, 6, 7, 12, 17])
def test_equals_the_run_that_was_not_stopped(run, k):
    whole = run("whole").fit()
    run("parts").fit(max_steps=k)
    assert_same(run("parts").resume().fit(), whole)
    assert whole.progress.updates == STEPS


CASES = {
    "accumulation with a short last group": {"grad_accum": 4},
    "random steps": {"rules": UpdateRules(random_steps=4)},
    "noise on gradients": {"rules": UpdateRules(noisy_grad=0.1, clip_grad=1.0)},
    "TET": {"rules": UpdateRules(step_outputs=True), "loss": build_loss("ce", tet=True, tet_weight=0.1)},
    "bfloat16": {"amp": "bfloat16"},
    "plateau schedule": {"sched": "plateau", "epochs": 5, "lr": 1e-7},  # nothing improves, so that the rate falls
    "momentum": {"opt": "sgd"},
    "lookahead": {"opt": "lookahead_adam"},
    "mixing ends": {"mixing_ends": 1},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:PlateauLRScheduler")
def test_resumes_exactly_with(run, name):
    whole = run("whole", **CASES[name]).fit()
    run("parts", **CASES[name]).fit(max_steps=4)
    run("parts", **CASES[name]).resume().fit(max_steps=15)
    assert_same(run("parts", **CASES[name]).resume().fit(), whole)


def test_resumes_from_an_older_epoch(run):
    whole = run("whole").fit()
    run("parts").fit(max_steps=12)
    again = run("parts").resume(run("parts").folder / "checkpoint-0.pth.tar")
    assert again.progress.epoch == 1
    assert_same(again.fit(), whole)


def _script(folder: Path) -> str:
    return (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import braincog_transformers\n"
        "from tiny_run import Run\n"
        f"run = Run(Path({str(folder)!r}), recovery_interval=2)\n"
        "call = run.learner.train_call\n"
        "def slow(x):\n    time.sleep(0.02)\n    return call(x)\n"
        "run.learner.train_call = slow\n"
        "run.fit()\n"
    )


def _start(folder: Path) -> subprocess.Popen:
    here = Path(__file__).parent
    command = [sys.executable, "-c", _script(folder), str(here)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(command, cwd=here.parents[1], env=os.environ | threads)


def test_survives_sigkill(run, tmp_path):
    whole = run("whole", recovery_interval=2).fit()
    folder = tmp_path / "killed"
    process = _start(folder)
    deadline = time.monotonic() + 60
    while not list(folder.glob("recovery-1-*.pth.tar")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = Run(folder, recovery_interval=2).resume()
    assert 0 < resumed.progress.updates < STEPS
    assert_same(resumed.fit(), whole)


def test_keeps_two_recovery_states(run):
    folder = run("parts", recovery_interval=1).fit(max_steps=5).folder
    assert sorted(path.name for path in folder.glob("recovery-*")) == [
        "recovery-0-4.pth.tar",
        "recovery-0-5.pth.tar",
    ]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_newest_state_falls_back_to_the_one_before(run, damage):
    whole = run("whole").fit()
    folder = run("parts").fit(max_steps=12).folder
    for name in ("last", "checkpoint-1"):
        path = folder / f"{name}.pth.tar"
        content = path.read_bytes()
        middle = len(content) // 2
        broken = {
            "cut": content[:middle],
            "flipped": content[:middle] + bytes(64) + content[middle + 64 :],
            "empty": b"",
        }[damage]
        path.unlink()
        path.write_bytes(broken)
    resumed = run("parts").resume()
    assert resumed.progress.epoch == 1
    assert [line for line in resumed.said if "damaged" in line]
    assert_same(resumed.fit(), whole)


def test_missing_and_hopeless_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no file or folder"):
        find_state(tmp_path / "none", print)
    with pytest.raises(UserError, match="no sound checkpoint"):
        find_state(tmp_path, print)


def test_weights_alone_cannot_be_resumed(run):
    one = run("one")
    with pytest.raises(UserError, match="--initial-checkpoint"):
        restore({"state_dict": one.learner.network.state_dict()}, one.learner, one.progress, one.ranks)


def test_another_number_of_processes_is_refused(run):
    folder = run("one").fit(max_steps=2).folder
    _, state = find_state(folder, print)
    one = run("one")
    with pytest.raises(UserError, match="1 processes and this one has 2"):
        restore(state, one.learner, one.progress, Ranks(device=torch.device("cpu"), world_size=2))


def test_names_the_options_that_differ():
    before = {"seed": 1, "batch_size": 4, "workers": 2, "mean": [0.5]}
    now = {"seed": 2, "batch_size": 4, "workers": 8, "mean": (0.5,)}
    assert difference(before, now, free=frozenset({"workers"})) == "--seed was 1, now 2"
    assert difference(before, before, free=frozenset()) is None


def test_best_and_history_continue(run):
    whole = run("whole", epochs=6, mixup=False).fit()
    run("parts", epochs=6, mixup=False).fit(max_steps=20)
    parts = run("parts", epochs=6, mixup=False).resume().fit()
    assert [Path(path).name for path, _ in parts.checkpoints.checkpoint_files] == [
        Path(path).name for path, _ in whole.checkpoints.checkpoint_files
    ]
    assert len(parts.checkpoints.checkpoint_files) == 3
    best = [torch.load(one.checkpoints.best, weights_only=True) for one in (whole, parts)]
    assert best[0]["epoch"] == best[1]["epoch"] == whole.progress.best_epoch + 1
    assert best[0]["metric"] == max(row["ema_top1"] for row in whole.rows)
