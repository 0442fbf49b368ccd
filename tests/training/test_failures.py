"""What the machine fails at, and sizes that don't fit: one line with the remedy, and the right learning rate."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from braincog_transformers.errors import UserError
from braincog_transformers.training import train as assembly
from braincog_transformers.training.machine import explain, worker_died
from braincog_transformers.training.stopping import StopRequest


class _Begins(Exception):
    """Raised in the place of the training."""


@pytest.fixture
def begins(monkeypatch):
    """End a run where its training begins; return the error that does it."""

    def fit(*_, **__):
        raise _Begins

    monkeypatch.setattr(assembly, "fit", fit)
    return _Begins


# torch raises the death of a loading process wherever the program is just then, so it needs a program of its own
DYING = """
import os, signal, sys
from torch.utils.data import DataLoader, Dataset
from braincog_transformers.training.machine import explain
from braincog_transformers.training.stopping import StopRequest

class Dying(Dataset):
    def __init__(self, number, parent):
        self.number, self.parent = number, parent
    def __len__(self):
        return 64
    def __getitem__(self, place):
        if place == 4:
            if self.parent:
                os.kill(os.getppid(), self.number)
            os.kill(os.getpid(), self.number)
        return place

for number in (signal.SIGTERM, signal.SIGINT):
    with StopRequest() as stop:
        seen = len(list(stop.until(DataLoader(Dying(number, True), num_workers=1))))
    print(stop.requested, stop.cut_short == (seen < 64))
try:
    with StopRequest() as stop:
        list(stop.until(DataLoader(Dying(signal.SIGKILL, False), num_workers=1)))
except Exception as error:
    print(stop.cut_short, explain(error), "again:", signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL)
"""


@pytest.mark.slow
def test_loading_processes_that_die_end_the_batches_after_a_signal_and_are_named_otherwise():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DYING], capture_output=True, text=True, cwd=Path(__file__).parents[2],
        timeout=120,
    )  # fmt: skip
    first, second, third = done.stdout.splitlines()
    assert first == second == "True True", done.stderr
    assert third.startswith("False a process that loads samples was killed")
    assert "--workers" in third
    assert "--resume" in third
    assert third.endswith("again: False")


def test_a_run_whose_loading_processes_got_the_signal_too_is_saved(run):
    whole, parts = run("whole").fit(), run("parts")

    class Dying:
        """Yields two batches and dies, as processes do that got the signal first."""

        def __init__(self, loader):
            self.loader = loader

        def __len__(self):
            return len(self.loader)

        def set_epoch(self, *args, **kwargs):
            self.loader.set_epoch(*args, **kwargs)

        def __iter__(self):
            for number, batch in enumerate(self.loader):
                if number == 2:
                    parts.stop.requested = True
                    raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")
                yield batch

    object.__setattr__(parts.loaders, "train", Dying(parts.loaders.train))
    parts.fit()
    assert (parts.progress.epoch, parts.progress.batch) == (0, 2)
    resumed = run("parts").resume().fit()
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())


def test_memory_that_is_not_there_is_explained():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert explain(caught.value).startswith("out of memory (tried to allocate")
    assert "--batch-size" in explain(MemoryError())
    assert "--batch-size" in explain(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"))


def test_a_connection_to_a_loading_process_that_breaks_off_is_its_death():
    here, there = multiprocessing.Pipe()
    there.close()
    with pytest.raises(EOFError) as caught:
        here.recv()
    assert worker_died(caught.value)
    assert not worker_died(EOFError())
    stop = StopRequest()
    stop.requested = True
    assert list(stop.until(iter(here.recv, None))) == []
    assert stop.cut_short


def test_a_fault_of_the_code_is_not_explained_away():
    assert explain(RuntimeError("shapes differ")) is None
    assert explain(TypeError()) is None


@pytest.mark.usefixtures("small_digits")
def test_a_run_names_what_the_machine_failed_at(go, monkeypatch):
    def fit(*_, **__):
        raise RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. ")

    monkeypatch.setattr(assembly, "fit", fit)
    with pytest.raises(UserError, match="fewer --workers or a smaller --batch-size"):
        go()


@pytest.mark.usefixtures("small_digits")
@pytest.mark.parametrize("model", ["sglformer_digits", "sdt_v2_digits"])
def test_a_batch_of_one_that_cannot_be_normalised_is_named_before_anything_is_written(go, tmp_path, model):
    with pytest.raises(UserError, match=f"--batch-size 1: {model} normalises over the samples of a batch"):
        go("--model", model, "-b", "1", "--step", "1")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_digits")
def test_a_batch_of_one_trains_where_a_sample_has_values_to_normalise(go, begins):
    with pytest.raises(begins):
        go("-b", "1", "--step", "1")


@pytest.mark.usefixtures("small_digits")
def test_the_learning_rate_is_scaled_for_the_batch_that_there_is(go, begins, capsys):
    # 32 samples in one batch, and one batch in an epoch
    told = []
    for size in (["-b", "32"], ["-b", "1000000", "--grad-accum", "50"]):
        with pytest.raises(begins):
            go(*size, "--lr", "0.1")
        told.append(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("effective batch")))
    assert told[0] == told[1]
    assert told[0].startswith("effective batch 32 (32 x 1 processes x 1 accumulated) | learning rate 0.003125")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals of POSIX")
def test_a_closed_pipe_behind_the_command_line_leaves_no_traceback():
    code = "import sys; from braincog_transformers_main import main; sys.exit(main(['--data-info']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    os.close(writer)
    assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.usefixtures("small_digits")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--cutmix-minmax", "0.3", "0.3", "--mixup-prob", "1", "-b", "8"], "no box of whole pixels in 8x8"),
        (["--lr-cycle-limit", "2147483648", "--lr-cycle-mul", "2"], "--sched cosine refuses its options"),
        (["--std", "1e-45"], r"sample \d+ \(counted from 0, label \d\) holds values that are not finite"),
        (["--step", "2147483648"], "step must be at most 65536"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_numbers_that_only_the_data_or_the_machine_can_judge_are_named(go, given, message):
    with pytest.raises(UserError, match=message):
        go(*given)
