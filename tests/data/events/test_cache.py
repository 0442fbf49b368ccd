"""The cache of frames: right, compact, never stale, and safe when several processes ask at once."""

import multiprocessing
import os
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from writers import random_events, write_bin

from braincog_transformers.data.events import cache, frames
from braincog_transformers.data.events.cache import cache_key, cached_frames
from braincog_transformers.data.events.dataset import EventDataset
from braincog_transformers.data.events.frames import FrameRule, events_to_frames
from braincog_transformers.data.readers import make_events
from braincog_transformers.errors import UserError

_HEADER = b"{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }".ljust(69)
_OTHER = b"\x93NUMPY\x01\x00\x46\x00" + _HEADER + b"\nabc"
RULE = FrameRule(sensor=(34, 34), size=(17, 17), steps=3)


@pytest.fixture
def files(tmp_path):
    return [write_bin(tmp_path / "set" / f"{i}.bin", random_events(100, seed=i)) for i in range(4)]


def served(files, rule, folder):
    built = EventDataset(files, range(len(files)), rule, cache=cached_frames(folder, "x", files, rule))
    return np.stack([built[index][0].numpy() for index in range(len(files))])


@pytest.mark.parametrize("size", [(34, 34), (17, 17), (16, 16)])
def test_cached_frames_equal_those_read_directly(files, tmp_path, size):
    rule = replace(RULE, size=size)
    direct = EventDataset(files, range(4), rule)
    assert np.array_equal(served(files, rule, tmp_path / "c"), np.stack([direct[i][0].numpy() for i in range(4)]))


@pytest.mark.parametrize(
    ("size", "most", "kind"),
    [
        ((34, 34), 1, np.uint8),
        ((17, 17), 300, np.uint16),
        ((34, 34), 70_000, np.float32),
        ((16, 16), 1, np.float32),
    ],
)
def test_narrowest_type_that_holds_the_counts(files, tmp_path, size, most, kind):
    zeros = np.zeros(most, int)
    files.append(write_bin(tmp_path / "set" / "many.bin", make_events(zeros, zeros, zeros, zeros)))
    rule = replace(RULE, size=size, steps=1)
    assert np.load(cached_frames(tmp_path / "c", "x", files, rule)).dtype == kind
    assert served(files, rule, tmp_path / "c")[-1].sum() == pytest.approx(most * np.prod(size) / 34**2)
    expected = events_to_frames(random_events(100, seed=0), 1, (34, 34)).mean()
    assert served(files, rule, tmp_path / "c")[0].mean() == pytest.approx(expected, rel=1e-5)


def _longer(files):
    write_bin(files[1], random_events(101, seed=1))
    return files


def _same_size_other_content(files):
    write_bin(files[1], random_events(100, seed=9))
    return files


def _longer_but_as_old(files):
    stamp = files[1].stat().st_mtime_ns
    _longer(files)
    os.utime(files[1], ns=(stamp, stamp))
    return files


def _without_one(files):
    return files[:2] + files[3:]


def _other_order(files):
    return files[::-1]


@pytest.mark.parametrize("change", [_longer, _longer_but_as_old, _same_size_other_content, _without_one, _other_order])
def test_changed_files_are_never_served_from_before(files, tmp_path, change):
    served(files, RULE, tmp_path / "c")
    files = change(files)
    assert np.array_equal(served(files, RULE, tmp_path / "c"), np.stack([RULE(path) for path in files]))


@pytest.mark.parametrize(
    "change",
    [
        {"size": (34, 34)},
        {"steps": 2},
        {"by": "time"},
        {"remainder": "drop"},
        {"resize": "bilinear"},
        {"clip": 1},
        {"clip": 2},
        {"merge": True},
        {"kind": "voxel"},
        {"kind": "surface"},
        {"norm": "max"},
        {"norm": "mean"},
    ],
)
def test_every_part_of_the_rule_is_in_the_key(files, tmp_path, change):
    other = replace(RULE, **change)
    served(files, RULE, tmp_path / "c")
    assert np.array_equal(served(files, other, tmp_path / "c"), np.stack([other(path) for path in files]))
    assert cache_key("x", files, RULE) != cache_key("x", files, other)


def test_every_field_of_the_rule_is_in_the_key(files):
    other = {
        "sensor": (35, 34), "size": (34, 34), "steps": 2, "kind": "voxel", "by": "time", "remainder": "drop", "clip": 1,
        "merge": True, "tau_us": 1.0, "resize": "bilinear", "norm": "max",
    }  # fmt: skip
    assert set(other) == {field.name for field in fields(FrameRule)}
    keys = {cache_key("x", files, replace(RULE, **{name: value})) for name, value in other.items()}
    assert len(keys | {cache_key("x", files, RULE)}) == len(other) + 1


def test_set_and_format_version_and_folder_are_in_the_key(files, tmp_path, monkeypatch):
    copies = [write_bin(tmp_path / "copy" / path.name, random_events(100, seed=i)) for i, path in enumerate(files)]
    for path, copy in zip(files, copies, strict=True):
        os.utime(copy, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    keys = {cache_key("x", files, RULE), cache_key("y", files, RULE), cache_key("x", copies, RULE)}
    monkeypatch.setattr(cache, "_FORMAT_VERSION", 99)
    assert len(keys | {cache_key("x", files, RULE)}) == 4


def test_a_second_call_builds_nothing(files, tmp_path, monkeypatch):
    first = cached_frames(tmp_path / "c", "x", files, RULE)
    monkeypatch.setattr(frames, "read_recording", None)
    assert cached_frames(tmp_path / "c", "x", files, RULE) == first


@pytest.mark.parametrize("damage", [lambda old: b"", lambda old: b"garbage", lambda old: old[:-1], lambda old: _OTHER])
def test_a_damaged_cache_is_built_anew(files, tmp_path, damage):
    path = cached_frames(tmp_path / "c", "x", files, RULE)
    path.write_bytes(damage(path.read_bytes()))
    assert np.array_equal(served(files, RULE, tmp_path / "c"), np.stack([RULE(path) for path in files]))


def test_a_bad_recording_leaves_no_cache_behind(files, tmp_path):
    files[2].write_bytes(b"1234567")
    with pytest.raises(UserError, match=r"2\.bin: truncated"):
        cached_frames(tmp_path / "c", "x", files, RULE)
    assert [path.name for path in (tmp_path / "c").iterdir()] == [".lock"]


def test_what_a_killed_process_left_is_removed(files, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".x-1-ab.npy.partial").write_bytes(b"half")
    path = cached_frames(tmp_path / "c", "x", files, RULE)
    assert {left.name for left in (tmp_path / "c").iterdir()} == {".lock", path.name, f"{path.stem}.damaged.json"}


def test_a_recording_that_changes_while_it_is_read_is_noticed(files, tmp_path, monkeypatch):
    def reading(path, size):
        events = cache_read(path, size)
        os.utime(path, ns=(1, 1))
        return events

    cache_read = frames.read_recording
    monkeypatch.setattr(frames, "read_recording", reading)
    with pytest.raises(UserError, match="changed while they were read"):
        cached_frames(tmp_path / "c", "x", files, RULE)


def test_a_folder_that_cannot_be_written_names_the_remedy(files, tmp_path):
    (tmp_path / "c").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="--cache-dir"):
        cached_frames(tmp_path / "c", "x", files, RULE)


def _build(folder, files, start, results):
    start.wait()
    results.put(str(cached_frames(folder, "x", files, RULE)))


def test_two_processes_build_at_once(files, tmp_path):
    # Forking, where there is such a thing, saves two imports of torch.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=_build, args=(tmp_path / "c", files, start, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    start.set()
    paths = {results.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(paths) == 1
    assert np.array_equal(served(files, RULE, tmp_path / "c"), np.stack([RULE(path) for path in files]))
    assert len(list((tmp_path / "c").iterdir())) == 3


def test_a_pickled_set_does_not_carry_the_mapped_file(files, tmp_path):
    events = EventDataset(files, range(4), RULE, cache=cached_frames(tmp_path / "c", "x", files, RULE))
    first = events[0][0]
    assert np.array_equal(pickle.loads(pickle.dumps(events))[0][0], first)
    assert len(pickle.dumps(events)) < 5_000


def test_whole_counts_survive_a_factor_whose_fractions_are_rounded_down(tmp_path):
    # in float32 a 25th, times 25, is less than it was for 7 % of all counts
    counts = range(1, 80)
    places = np.repeat(np.arange(len(counts)), counts)
    events = make_events(np.arange(len(places)), places % 10 * 5, places // 10 * 5, np.zeros(len(places), bool))
    rule = FrameRule(sensor=(50, 50), size=(10, 10), steps=1)
    path = write_bin(tmp_path / "0.bin", events)
    assert rule.pack(path).ravel()[: len(counts)].tolist() == list(counts)
    assert np.array_equal(rule.unpack(rule.pack(path)), rule(path))


def test_clipping_limits_each_pixel_of_the_sensor_before_resizing(tmp_path):
    events = make_events(range(8), [0, 0, 0, 0, 1, 1, 2, 3], [0] * 8, [True] * 8)
    path = write_bin(tmp_path / "0.bin", events)
    frames = {n: FrameRule(sensor=(4, 4), size=(2, 2), steps=1, clip=n)(path)[0, 1, 0].tolist() for n in (None, 2, 1)}
    assert frames == {None: [1.5, 0.5], 2: [1.0, 0.5], 1: [0.5, 0.5]}
