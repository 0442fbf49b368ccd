"""A disk that is full, a folder that can't be written or was removed: one line, and what was saved stays sound."""

import errno
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_run import assert_same

from braincog_transformers.errors import UserError
from braincog_transformers.training import journal as journals
from braincog_transformers.training import results as assembly
from braincog_transformers.training.journal import Journal, open_tensorboard


def _full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")


class _Limit:
    """Keep files from growing beyond so many bytes, as a full disk does, while the context is open."""

    def __init__(self, size: int):
        resource = pytest.importorskip("resource")
        self.kind, self.set = resource.RLIMIT_FSIZE, resource.setrlimit
        self.before = resource.getrlimit(self.kind)
        self.size = size

    def __enter__(self):
        self.set(self.kind, (self.size, self.before[1]))

    def __exit__(self, *_):
        self.set(self.kind, self.before)


@pytest.mark.parametrize("recovery", [0, 1], ids=["after the epoch", "within it"])
def test_a_full_disk_stops_with_one_line_and_the_run_resumes_from_what_was_saved(run, recovery):
    whole = run("whole").fit()
    run("parts", recovery_interval=recovery).fit(max_steps=7)
    parts = run("parts", recovery_interval=recovery).resume()
    with _Limit(2000), pytest.raises(UserError, match=r"no checkpoint can be written .*go on with --resume") as caught:
        parts.fit()
    assert "\n" not in str(caught.value)
    assert not [path for path in parts.folder.iterdir() if path.name.startswith(".")]
    assert_same(run("parts").resume().fit(), whole)


def test_a_removed_folder_is_named_and_not_made_again(run):
    one = run("one")
    one.learner.test_call = lambda x: (shutil.rmtree(one.folder, ignore_errors=True), one.learner.network(x))[1]
    with pytest.raises(UserError, match="the folder was removed while the run wrote to it"):
        one.fit()
    assert not one.folder.exists()


def test_a_table_that_cannot_be_written_is_said_once_and_the_training_goes_on(run):
    whole, one = run("whole").fit(), run("one")
    (one.folder / "summary.csv").mkdir()
    one.fit()
    told = [line for line in one.said if "summary.csv" in line]
    assert len(told) == 1
    assert "can't be written (Is a directory); the run goes on without them" in told[0]
    assert all(torch.equal(value, one.weights[name]) for name, value in whole.weights.items())


def test_a_closed_output_does_not_end_the_training(run):
    one = run("one")
    one.said = SimpleNamespace(append=_full)  # as printing into a file on a full disk
    assert len(one.fit().rows) == 3


ROW = {"epoch": 0, "train_loss": 1.0, "train_top1": 1.0, "test_loss": 1.0, "test_top1": 1.0, "lr": 1.0}


def test_tensorboard_that_cannot_write_any_more_is_given_up_in_one_line(tmp_path, capfd):
    pytest.importorskip("tensorboard")
    told = []
    journal = Journal(tmp_path, epochs=3, printer=told.append)
    journal.tensorboard = open_tensorboard(tmp_path / "logs", wanted=True)
    journal.write_row([ROW])
    shutil.rmtree(tmp_path / "logs")
    for _ in range(3):
        journal.write_row([ROW])
    journal.close()
    assert [line for line in told if "TensorBoard" in line] == [
        "TensorBoard's logs can't be written (No such file or directory); the run goes on without them"
    ]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("small_digits")
def test_a_folder_of_tensorboard_that_cannot_be_made_does_not_keep_from_training(go, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").touch()
    assert go("--tensorboard-dir", str(tmp_path / "file"), "--max-steps", "1")["steps"] == 1
    assert capsys.readouterr().out.count("TensorBoard's logs can't be written") == 1


@pytest.mark.usefixtures("small_digits")
def test_pictures_and_results_that_cannot_be_written_leave_the_training_whole(go, monkeypatch, capsys):
    monkeypatch.setattr(assembly, "write_results", _full)
    found = go("--max-steps", "1")
    assert Path(found["checkpoint"]).is_file()
    assert "results of the run can't be written (No space left on device)" in capsys.readouterr().out


@pytest.mark.usefixtures("small_digits")
def test_an_evaluation_whose_results_cannot_be_written_says_so(go, monkeypatch):
    trained = go("--max-steps", "1")
    monkeypatch.setattr(assembly, "write_results", _full)
    with pytest.raises(UserError, match="/somewhere can't be read or written: No space left on device"):
        go("--eval_checkpoint", trained["checkpoint"])


def test_what_torch_says_of_its_archive_is_replaced_by_what_the_file_said(run):
    parts = run("parts").fit(max_steps=1)
    with _Limit(2000), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        parts.checkpoints.save_last({"weights": torch.zeros(10_000)})


def test_only_the_thread_of_tensorboard_fails_in_silence(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    heard = []
    monkeypatch.setattr(threading, "excepthook", lambda caught: heard.append(caught.exc_value))
    journals._hush_writing_thread.__wrapped__()
    theirs = type("Writer", (threading.Thread,), {"__module__": "tensorboard.summary.writer"})
    for kind, error in ((theirs, OSError("full")), (threading.Thread, OSError("ours")), (theirs, KeyError("bug"))):
        thread = kind(target=_raiser(error))
        thread.start()
        thread.join()
    assert [str(error) for error in heard] == ["ours", "'bug'"]


def _raiser(error: Exception):
    def target():
        raise error

    return target
