"""A folder belongs to one run at a time, and what killed runs leave in it is cleared away or explained."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError
from braincog_transformers.training import folder as places
from braincog_transformers.training.distributed import Ranks
from braincog_transformers.training.folder import run_folder

ALONE = Ranks(device=torch.device("cpu"))
HOLD = """
import sys, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(places, "PATIENCE", 0.05)


@pytest.fixture
def take(tmp_path):
    """Return a function that takes the folder of a run with more options."""

    def call(*more: str, fresh: bool = True, say=lambda _: None):
        options = resolve(["--dataset", "digits", "--output", str(tmp_path), *more])
        return run_folder(options, ALONE, fresh=fresh, say=say)

    return call


def _save(folder: Path, *, epoch: int = 0) -> Path:
    """Write what counts as the checkpoint of a run."""
    path = folder / f"checkpoint-{epoch}.pth.tar"
    torch.save({"epoch": epoch + 1, "batch": 0, "state_dict": {}}, path)
    return path


def test_two_runs_started_together_get_folders_of_their_own(take):
    told = []
    with take() as first, take(say=told.append) as second:
        assert first != second
        assert second.name == f"{first.name}-1"
    assert told == [f"{first} is another run's; this one writes to {second}"]


def test_two_runs_of_one_name_are_not_mixed(take):
    with take("--experiment", "one"):
        with pytest.raises(UserError, match=r"--experiment: .*one' is in use by another process"):
            take("--experiment", "one").__enter__()
        with pytest.raises(UserError, match="in use"):
            take("--experiment", "one", "--eval", "--pretrained", fresh=False).__enter__()
    with take("--experiment", "one"):
        pass


def test_an_evaluation_does_not_write_into_the_folder_of_a_living_run(take):
    with take() as training, take("--eval", "--pretrained", fresh=False) as evaluation:
        assert evaluation != training
    with take("--eval", "--pretrained", fresh=False) as evaluation:
        assert evaluation == training


def test_the_second_resume_of_a_folder_is_refused(take, tmp_path):
    path = _save(tmp_path)
    with take("--resume", str(tmp_path), fresh=False) as folder:
        assert folder == tmp_path
        for named in (tmp_path, path):
            with pytest.raises(UserError, match=r"--resume: .* is in use by another process.*--eval_checkpoint"):
                take("--resume", str(named), fresh=False).__enter__()
    with take("--resume", str(path), fresh=False) as folder:
        assert folder == tmp_path


def test_a_killed_process_keeps_no_folder(take, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    command = [sys.executable, "-c", HOLD, str(folder / ".lock")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="in use"):
        take("--experiment", "one").__enter__()
    holder.kill()
    holder.communicate()
    with take("--experiment", "one"):
        pass


def test_a_file_system_without_locks_is_named_and_used(take, monkeypatch):
    def none(*_, **__):
        raise OSError(places._NO_LOCKS[0], "No locks available")

    told = []
    monkeypatch.setattr(places.FileLock, "acquire", none)
    with take("--experiment", "one", say=told.append) as folder:
        assert folder.is_dir()
    assert told == [f"{folder} lies on a file system without locks: take care that no other run uses it meanwhile"]


@pytest.mark.parametrize("left", ["tmp.pth.tar", "recovery_tmp.pth.tar", ".last.pth.tar.99999999.tmp"])
def test_a_run_that_died_before_its_first_checkpoint_starts_anew_under_its_name(take, tmp_path, left):
    folder = tmp_path / "one"
    folder.mkdir()
    _save(folder).rename(folder / left)
    with take("--resume", str(folder), fresh=False):
        assert not (folder / left).exists()
        with pytest.raises(UserError, match="ended before its first one: start it anew, without --resume"):
            places.find_state(folder, print)
    _save(folder).rename(folder / left)
    with take("--experiment", "one") as taken:
        assert taken == folder
        assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_folder_with_damaged_checkpoints_only_has_one_way_out(take, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    _save(folder).write_bytes(b"")
    with pytest.raises(UserError, match="none that a run can go on from; choose another name, or delete the folder"):
        take("--experiment", "one").__enter__()
    with pytest.raises(UserError, match="start anew under another --experiment, or delete the folder"):
        places.find_state(folder, lambda _: None)


def test_a_sound_run_of_that_name_is_to_be_resumed(take, tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    _save(tmp_path / "one")
    monkeypatch.setattr(places, "find_state", lambda path, say: (path, {}))  # what is sound, other tests say
    with pytest.raises(UserError, match=r"holds a run; continue it with --resume .*one, or choose another name"):
        take("--experiment", "one").__enter__()
