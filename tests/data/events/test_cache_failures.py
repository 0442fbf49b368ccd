"""What can go wrong while a cache is built: damaged recordings, a full disk, a killed process, workers."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from writers import random_events, write_bin

from braincog_transformers.data.events.cache import CachedFrames, cached_frames, damaged_in
from braincog_transformers.data.events.frames import FrameRule
from braincog_transformers.data.loading import reading
from braincog_transformers.data.readers import make_events
from braincog_transformers.errors import UserError

RULE = FrameRule(sensor=(34, 34), size=(17, 17), steps=3)
COUNT = 12


@pytest.fixture
def files(tmp_path):
    return [write_bin(tmp_path / "set" / f"{i:02d}.bin", random_events(100, seed=i)) for i in range(COUNT)]


@pytest.fixture
def two_processes(monkeypatch):
    """Let few files suffice for a process."""
    monkeypatch.setattr(reading, "_FEWEST", 1)


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.parametrize("rule", [RULE, replace(RULE, norm="max"), replace(RULE, kind="voxel")], ids=str)
def test_processes_build_what_one_builds(files, tmp_path, two_processes, rule):
    events = make_events(*[np.zeros(300, int)] * 4)  # needs a wider type, in the middle
    files.insert(5, write_bin(tmp_path / "set" / "many.bin", events))
    alone = cached_frames(tmp_path / "a", "x", files, rule)
    together = cached_frames(tmp_path / "b", "x", files, rule, workers=2)
    assert alone.read_bytes() == together.read_bytes()
    assert np.array_equal([rule.unpack(row) for row in np.load(alone)], [rule(path) for path in files])


def test_the_building_process_reads_nothing_where_others_do(files, tmp_path, two_processes, monkeypatch):
    own = os.getpid()
    seen = []
    real = reading.read_or_damaged

    def watched(read, path):
        seen.append(os.getpid())
        return real(read, path)

    monkeypatch.setattr(reading, "read_or_damaged", watched)
    cached_frames(tmp_path / "c", "x", files, RULE, workers=2)
    assert own not in seen
    cached_frames(tmp_path / "d", "x", files, RULE)
    assert set(seen) == {own}


def test_where_no_process_can_be_started_one_builds(files, tmp_path, two_processes, monkeypatch):
    real = reading._loader

    def refusing(recordings, processes):
        if processes:
            raise OSError(11, "Resource temporarily unavailable")
        return real(recordings, processes)

    monkeypatch.setattr(reading, "_loader", refusing)
    assert len(np.load(cached_frames(tmp_path / "c", "x", files, RULE, workers=2))) == COUNT


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_damaged_recording_ends_the_build_in_one_line(files, tmp_path, two_processes, workers):
    files[3].write_bytes(b"1234567")
    files[7].write_bytes(b"")
    with pytest.raises(UserError, match=r"03\.bin: truncated .*; --skip-bad leaves such recordings out") as caught:
        cached_frames(tmp_path / "c", "x", files, RULE, workers=workers)
    assert "\n" not in str(caught.value)
    assert left(tmp_path / "c") == []


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_keeps_the_places_of_the_others(files, tmp_path, two_processes, workers):
    files[3].write_bytes(b"1234567")
    files[7].write_bytes(b"")
    path = cached_frames(tmp_path / "c", "x", files, RULE, workers=workers, skip_bad=True)
    damaged = damaged_in(path)
    assert list(damaged) == [3, 7]
    assert "03.bin: truncated" in damaged[3]
    assert "07.bin: the recording holds no events" in damaged[7]
    rows = np.load(path)
    assert rows[[3, 7]].sum() == 0
    assert np.array_equal(RULE.unpack(rows[8]), RULE(files[8]))


def test_a_cache_with_gaps_is_not_served_without_skipping(files, tmp_path):
    files[3].write_bytes(b"1234567")
    cached_frames(tmp_path / "c", "x", files, RULE, skip_bad=True)
    with pytest.raises(UserError, match=r"03\.bin: truncated .*--skip-bad"):
        cached_frames(tmp_path / "c", "x", files, RULE)


@pytest.mark.parametrize("damage", [None, "", "null", "[[1]]"])
def test_frames_without_their_list_of_damaged_recordings_are_built_anew(files, tmp_path, damage):
    files[3].write_bytes(b"1234567")
    path = cached_frames(tmp_path / "c", "x", files, RULE, skip_bad=True)
    beside = path.with_suffix(".damaged.json")
    beside.unlink() if damage is None else beside.write_text(damage)
    assert list(damaged_in(cached_frames(tmp_path / "c", "x", files, RULE, skip_bad=True))) == [3]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
@pytest.mark.parametrize("side", [17, 16])  # whole counts, and those that are widened on the way
def test_a_full_disk_ends_in_one_line_and_leaves_nothing(files, tmp_path, side):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "c").mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, hard))
    try:
        with pytest.raises(UserError, match=r"can't be written \(File too large\).*--cache-dir.*--no-cache") as caught:
            cached_frames(tmp_path / "c", "x", files, replace(RULE, size=(side, side)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert left(tmp_path / "c") == []


# the package without its networks, which take seconds to import
SLOW_BUILD = """
import sys, time, types
from pathlib import Path
package = sys.modules["braincog_transformers"] = types.ModuleType("braincog_transformers")
package.__path__ = ["braincog_transformers"]
from braincog_transformers.data.loading import reading
from braincog_transformers.data.events.cache import cached_frames
from braincog_transformers.data.events.frames import FrameRule

reading._FEWEST = 1
real = reading.read_or_damaged

def slow(read, path):
    time.sleep(0.2)
    return real(read, path)

reading.read_or_damaged = slow
files = sorted(Path(sys.argv[1]).glob("*.bin"))
rule = FrameRule(sensor=(34, 34), size=(17, 17), steps=3)
cached_frames(Path(sys.argv[2]), "x", files, rule, workers=int(sys.argv[3]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_build_killed_half_way_is_not_served_and_holds_nobody_up(files, tmp_path, workers):
    folder, root = tmp_path / "c", Path(__file__).parents[3]
    # with other processes reading, and without
    arguments = [sys.executable, "-c", SLOW_BUILD, str(tmp_path / "set"), str(folder), str(workers)]
    building = subprocess.Popen(arguments, cwd=root, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            if list(folder.glob(".*.partial")) or building.poll() is not None:
                break
            time.sleep(0.05)
        assert building.poll() is None
        time.sleep(0.3)
    finally:
        building.send_signal(signal.SIGKILL)
        building.wait()
    assert left(folder) != []
    path = cached_frames(folder, "x", files, RULE)  # waits until the killed one's workers have noticed
    assert np.array_equal([RULE.unpack(row) for row in np.load(path)], [RULE(file) for file in files])
    assert left(folder) == [f"{path.stem}.damaged.json", path.name]


@pytest.mark.parametrize("side", [17, 16])  # whole counts, and those that are widened on the way
def test_a_flipped_bit_of_the_cached_frames_is_named(files, tmp_path, side):
    rule = replace(RULE, size=(side, side))
    path = cached_frames(tmp_path / "c", "x", files, rule)
    stored = CachedFrames(path)
    assert all((stored[place] == rule.pack(file)).all() for place, file in enumerate(files))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    stored = CachedFrames(cached_frames(tmp_path / "c", "x", files, rule))
    assert stored[0].any()
    with pytest.raises(UserError, match=rf"{path.name}: the cached frames of sample {len(files) - 1} are damaged"):
        stored[len(files) - 1]


def test_a_cache_of_an_earlier_version_without_sums_is_served(files, tmp_path):
    path = cached_frames(tmp_path / "c", "x", files, RULE)
    path.with_suffix(".damaged.json").write_text("[]")
    written = path.stat().st_mtime_ns
    assert CachedFrames(cached_frames(tmp_path / "c", "x", files, RULE))[1].any()
    assert path.stat().st_mtime_ns == written
