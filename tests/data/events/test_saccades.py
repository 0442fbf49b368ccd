"""The simulated saccade recordings: like N-MNIST in what was measured there, the same every time, written whole."""

import multiprocessing

import numpy as np
import pytest

from braincog_transformers.data.events import saccades
from braincog_transformers.data.events.saccades import Saccades, ndigits_folder, simulate
from braincog_transformers.data.pictures.digits import digit_pictures
from braincog_transformers.data.readers import read_recording

SETUP = Saccades()


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(saccades, "digit_pictures", _few)


def _few(*, train):
    pictures, labels = digit_pictures(train=train)
    return pictures[:12], labels[:12]


def recordings(count=12, first=0):
    return list(simulate(_few(train=True)[0][:count], SETUP, range(first, first + count)))


def test_event_count_polarity_and_bursts_resemble_the_camera():
    found = recordings()
    events = np.concatenate(found)
    assert 3500 < len(events) / len(found) < 5500
    assert 0.45 < events["p"].mean() < 0.55
    per_burst = np.histogram(events["t"], bins=21, range=(0, 315_000))[0].reshape(3, 7)
    # Each saccade is fastest in its middle.
    assert (per_burst.argmax(1) // 2 == 1).all()
    assert (per_burst.max(1) > 5 * per_burst[:, 0]).all()


def test_events_are_sorted_and_inside_of_field_and_time():
    for events in recordings():
        assert (np.diff(events["t"]) >= 0).all()
        assert events["t"].min() >= 0
        assert events["t"].max() < 315_000
        assert 0 <= events["x"].min() <= events["x"].max() < 34
        assert 0 <= events["y"].min() <= events["y"].max() < 34


def test_saccades_move_right_and_down_then_up_then_left():
    picture = np.zeros((1, 8, 8), np.float32)
    picture[0, 3:5, 3:5] = 1
    (events,) = simulate(picture, SETUP, range(1))

    def centre(low, high):
        part = events[(events["t"] >= low) & (events["t"] < high)]
        return np.array([part["x"].mean(), part["y"].mean()])

    first, second, third = ([centre(t, t + 35_000), centre(t + 70_000, t + 105_000)] for t in (0, 105_000, 210_000))
    assert (first[1] - first[0] > [1.5, 3]).all()
    assert second[1][1] - second[0][1] < -3
    assert third[1][0] - third[0][0] < -3


def test_a_recording_depends_on_picture_and_number_alone():
    batch, alone = recordings(12)[5], next(simulate(_few(train=True)[0][5:6], SETUP, range(5, 6)))
    other = next(simulate(_few(train=True)[0][5:6], SETUP, range(6, 7)))
    assert np.array_equal(batch, alone)
    assert not np.array_equal(alone[:100], other[:100])


@pytest.mark.usefixtures("few")
def test_recordings_are_written_once_in_the_folders_of_nmnist(tmp_path):
    folder = ndigits_folder(tmp_path / "c")
    files = sorted((folder / "Train").rglob("*.bin"))
    assert len(files) == 12
    assert len(list((folder / "Test").rglob("*.bin"))) == 12
    assert {path.name for path in folder.iterdir()} == {"Train", "Test"}
    first = next(path for path in files if path.name == "00000.bin")
    assert first.parent.name == str(_few(train=True)[1][0])
    assert np.array_equal(read_recording(first, (34, 34)), recordings(1)[0])
    stamp = first.stat().st_mtime_ns
    assert ndigits_folder(tmp_path / "c") == folder
    assert first.stat().st_mtime_ns == stamp


@pytest.mark.usefixtures("few")
def test_another_setup_or_version_lies_in_another_folder(tmp_path, monkeypatch):
    folders = {ndigits_folder(tmp_path), ndigits_folder(tmp_path, Saccades(threshold=0.6))}
    monkeypatch.setattr(saccades, "_VERSION", 99)
    assert len(folders | {ndigits_folder(tmp_path)}) == 3


@pytest.mark.usefixtures("few")
def test_an_interrupted_run_leaves_nothing_that_passes_for_a_set(tmp_path, monkeypatch):
    def stop(events):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(saccades, "encode_bin", stop)
        with pytest.raises(KeyboardInterrupt):
            ndigits_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    (tmp_path / ".ndigits-0-1.folder.partial").mkdir()
    folder = ndigits_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", folder.name}


def _generate(folder, start, results):
    saccades.digit_pictures = _few
    start.wait()
    results.put(str(ndigits_folder(folder)))


def test_two_processes_generate_at_once(tmp_path):
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=_generate, args=(tmp_path / "c", start, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    start.set()
    folders = {results.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(folders) == 1
    assert len(list((tmp_path / "c").rglob("*.bin"))) == 24
