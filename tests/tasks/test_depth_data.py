"""Files of depth estimation: read, paired by time, cropped, generated; and what is wrong with them, in one line."""

import io
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from braincog_transformers import UserError
from braincog_transformers.cli import main
from braincog_transformers.data import DATASETS
from braincog_transformers.recipe import Options
from braincog_transformers.tasks import find_task
from braincog_transformers.tasks.depth import scene
from braincog_transformers.tasks.depth.files import Stream, pack_frames, read_depth, read_spikes, read_times
from braincog_transformers.tasks.depth.frames import DepthFrames, Reading, StreamWindows, pair_files
from braincog_transformers.tasks.depth.labels import to_label
from braincog_transformers.tasks.depth.meter import DepthMeter
from braincog_transformers.tasks.depth.settings import DepthSettings

FRAMES, HEIGHT, WIDTH = 16, 20, 28


def write_sequence(folder, tensors=4, name="r16", spike_times=None, depth_times=None, seed=0):
    """Write a sequence in the official layout: every depth map has its own distance."""
    rng = np.random.default_rng(seed)
    spikes, depths = folder / "spike" / name, folder / "depth" / "data"
    spikes.mkdir(parents=True)
    depths.mkdir(parents=True)
    spike_times = np.arange(tensors) * 0.1 + 5 if spike_times is None else spike_times
    depth_times = spike_times if depth_times is None else depth_times
    for number in range(len(spike_times)):
        fired = (rng.random((FRAMES, HEIGHT, WIDTH)) < 0.3).astype(np.uint8)
        np.save(spikes / f"spike_{number:010d}.npy", fired)
    for number in range(len(depth_times)):
        np.save(depths / f"depth_{number:010d}.npy", np.full((HEIGHT, WIDTH), 10.0 + number, np.float32))
    for place, times in ((spikes, spike_times), (depths, depth_times)):
        (place / "timestamps.txt").write_text("".join(f"{i} {time:.9f}\n" for i, time in enumerate(times)))
    return folder


@pytest.fixture
def dense(tmp_path):
    """Return a data folder with a tiny set in the layout of DENSE-spike."""
    for part, count in (("train", 2), ("validation", 1), ("test", 2)):
        for number in range(count):
            write_sequence(tmp_path / "DENSE" / part / f"seq{number}", seed=number)
    return tmp_path


def build(data_dir, dataset="dense_spike", side=16, hflip=None, **kwargs):
    """Return the task and its data."""
    values = {"task": "depth", "dataset": dataset, "model": "spike_transformer_depth_small", "img_size": side}
    values |= {"task_kwargs": [f"{name}={value}" for name, value in kwargs.items()]} if kwargs else {}
    values |= {} if hflip is None else {"hflip": hflip}
    task = find_task("depth")(Options.from_dict(values))
    return task, task.build_data(DATASETS[dataset], data_dir)


def wrong(data_dir, **kwargs):
    """Return the line with which data are refused when they are listed or read."""
    with pytest.raises(UserError) as caught:  # noqa: PT012 - either may refuse
        bundle = build(data_dir, **kwargs)[1]
        for part in (bundle.train, bundle.test):
            for index in range(len(part)):
                part[index]
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 900
    return line


def test_the_official_layout_is_read(dense):
    _, bundle = build(dense)
    assert (len(bundle.train), len(bundle.test), bundle.input_shape) == (6, 6, (FRAMES, 16, 16))
    x, target = bundle.test[4]
    assert (x.shape, x.dtype, target.depth.shape) == ((FRAMES, 16, 16), torch.float32, (1, 16, 16))
    raw = np.load(dense / "DENSE/test/seq1/spike/r16/spike_0000000002.npy")  # the first is skipped: 1, 2, 3 | 1, 2, 3
    assert torch.equal(x, torch.from_numpy(raw[:, 2:18, 6:22]).float())
    assert torch.allclose(target.depth, to_label(torch.full((1, 16, 16), 12.0)))
    assert bundle.test.place(4) == ("seq1", 2, 1)
    assert len(pickle.loads(pickle.dumps(bundle.train))) == 6
    assert len(build(dense, scored="validation")[1].test) == 3


def test_training_crops_and_flips_spikes_and_depth_together(dense):
    folder = dense / "DENSE" / "train" / "seq0"
    ramp = np.tile(np.linspace(5, 90, WIDTH, dtype=np.float32), (HEIGHT, 1))
    for number in range(4):
        np.save(folder / f"depth/data/depth_{number:010d}.npy", ramp)
        fired = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
        fired[:, :, ::3] = True
        np.save(folder / f"spike/r16/spike_{number:010d}.npy", fired)
    shutil.rmtree(dense / "DENSE" / "train" / "seq1")
    _, bundle = build(dense, hflip=0.5)
    labels, seen = to_label(torch.from_numpy(ramp))[None], set()
    for seed in range(12):
        torch.manual_seed(seed)
        x, target = bundle.train[0]
        again = (torch.manual_seed(seed), bundle.train[0])[1]
        assert torch.equal(x, again[0])
        label = target.depth
        flipped = bool(label[0, 0, 0] > label[0, 0, -1])
        whole = labels.flip(2) if flipped else labels
        left = int((whole[0, 0] - label[0, 0, 0]).abs().argmin())
        assert torch.allclose(label[0], whole[0, :16, left : left + 16], atol=1e-5)
        columns = torch.arange(WIDTH).flip(0) if flipped else torch.arange(WIDTH)
        assert torch.allclose(x[0, 0], (columns[left : left + 16] % 3 == 0).float(), atol=1e-5)
        seen.add((flipped, left))
    assert len({flipped for flipped, _ in seen}) == 2
    assert len(seen) > 4
    x, _ = build(dense, hflip=0.0)[1].train[0]
    assert set(x.unique().tolist()) == {0.0, 1.0}  # nothing resampled


@pytest.mark.parametrize(
    ("spike_times", "depth_times", "found"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3]),
        ([0, 1, 2, 3], [-1, 0, 1, 2, 3], [2, 3, 4]),  # by time, not by number
        ([0, 1, 2], [0.5, 1.0, 1.000005, 2.0], [1, 3]),  # the first that is not earlier
        ([0, 1, 2], [0, 0.995, 1.995, 3], [1, 2]),  # later by more than 0.01 s: the one before
        ([7, 8], [7, 8.000009], [1]),
    ],
    ids=["equal", "shifted", "first", "before", "tolerance"],
)
def test_spikes_and_depth_are_paired_by_the_official_rule(tmp_path, spike_times, depth_times, found):
    times = {"spike_times": np.array(spike_times, float), "depth_times": np.array(depth_times, float)}
    folder = write_sequence(tmp_path / "one", **times)
    pairs = pair_files(folder, folder / "spike" / "r16")
    assert [int(pair.spikes.stem[-10:]) for pair in pairs] == list(range(1, len(spike_times)))
    assert [pair.number for pair in pairs] == found
    assert [int(pair.depth.stem[-10:]) for pair in pairs] == found


@pytest.mark.parametrize(
    ("spike_times", "depth_times"),
    [
        ([0, 1, 2], [0, 1.005, 2]),  # later by less than 0.01 s, and by more than 1e-5 s
        ([0, 1, 2], [0, 1]),
        ([0, 1, 2], [0, 1, 1.995]),  # where the official code fails
        ([0, 1, 2], [5, 6, 7]),
        ([0, 1, 2], [0, 0.5, 1.5, 3]),  # earlier by half a second, which the official code takes
    ],
    ids=["near", "short", "last", "behind", "early"],
)
def test_times_that_do_not_belong_together_are_refused(tmp_path, spike_times, depth_times):
    times = {"spike_times": np.array(spike_times, float), "depth_times": np.array(depth_times, float)}
    folder = write_sequence(tmp_path / "one", **times)
    with pytest.raises(UserError, match=r"timestamps.txt: no depth map has the time of spike tensor \d, ") as caught:
        pair_files(folder, folder / "spike" / "r16")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "it is empty"),
        ("0\n1\n", "got '0'"),
        ("0 0\n1 x\n", "got '1 x'"),
        ("0 0\n1 nan\n", "got '1 nan'"),
        ("0 0\n1 2\n2 2\n", "that of row 3, 2, does not"),
        ("0 0\n1 2\n2 1\n", "times have to grow"),
        (b"\xff\xfe\x00\x00\x01".decode("latin-1"), "is no UTF"),
    ],
    ids=["empty", "column", "text", "nan", "equal", "falling", "binary"],
)
def test_lists_of_times_that_are_none(tmp_path, text, line):
    path = tmp_path / "timestamps.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        read_times(path)
    assert str(path) in str(caught.value)
    assert line in str(caught.value)
    path.write_text("# number time\n0, 0.5\n1, 0.75\n")
    assert read_times(path).tolist() == [0.5, 0.75]


SPIKES, DEPTH = "spike/r16/spike_0000000002.npy", "depth/data/depth_0000000002.npy"
ONES = np.ones((FRAMES, HEIGHT, WIDTH), np.uint8)
NEAR = np.ones((HEIGHT, WIDTH), np.float32)


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        (DEPTH, np.ones((HEIGHT, WIDTH + 1), np.float32), f"a depth map of {HEIGHT}x{WIDTH + 1} pixels; its spikes"),
        (DEPTH, NEAR * np.nan, "no depth is known, all of it is NaN"),
        (DEPTH, np.where(np.arange(WIDTH) < 3, NEAR, np.nan), "no depth is known in its middle of 16x16 pixels"),
        (DEPTH, NEAR.astype(np.int16), "depth is in metres as floating point, NaN where not known; this holds int16"),
        (DEPTH, -NEAR, "holds a depth of -1 m"),
        (DEPTH, np.ones(5, np.float32), "a depth map is (rows, columns), neither of them 0; this has the shape (5,)"),
        (DEPTH, np.ones((1, HEIGHT, WIDTH), np.float32), "a depth map is (rows, columns)"),
        (DEPTH, None, "is missing, though timestamps.txt lists it"),
        (DEPTH, b"", "not a complete .npy array"),
        (DEPTH, b"\x93NUMPY", "not a complete .npy array"),
        (SPIKES, ONES * 2, "holds other values than 0 and 1; --task-kwargs normalize=true reads counts"),
        (SPIKES, ONES * np.float32(np.nan), "holds other values than 0 and 1"),
        (SPIKES, ONES.astype(complex), "spikes are 0 and 1, as booleans or numbers; this holds complex128"),
        (SPIKES, ONES.astype("U1"), "spikes are 0 and 1, as booleans or numbers"),
        (SPIKES, ONES[:8], "holds 8 frames; the first one of the set has 16"),
        (SPIKES, ONES[0], "spikes are (frames, rows, columns), none of them 0; this has the shape (20, 28)"),
        (SPIKES, ONES[:, :0], "spikes are (frames, rows, columns), none of them 0"),
        (SPIKES, None, "is missing, though timestamps.txt lists it"),
        (SPIKES, "short", "are too few for its heading"),
        (SPIKES, "objects", "its type names Python objects"),
        (SPIKES, "huge", "are too few for its heading"),
    ],
    ids=lambda value: "" if not isinstance(value, str) else value[:20].replace("/", "-"),
)
def test_damaged_files_are_one_line_with_the_file(dense, file, content, line):
    path = dense / "DENSE" / "test" / "seq1" / file
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    elif content == "short":
        path.write_bytes(path.read_bytes()[:-1])
    elif content == "objects":
        np.save(path, np.array([{}]), allow_pickle=True)
    else:  # a heading that promises a tebibyte
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 1, 1)})
        path.write_bytes(stream.getvalue() + b"\0" * 10)
    found = wrong(dense)
    assert line in found
    assert str(path) in found


def test_sequences_that_lack_a_side_are_named(dense):
    test = dense / "DENSE" / "test"
    (test / "notes.txt").write_text("no sequence")
    assert "seq0: has spikes in spike/r16, spike/r8; choose with --task-kwargs spikes=" in _with_second(dense, test)
    assert len(build(dense, spikes="spike/r16")[1].test) == 6
    assert "has no spikes in spike/r4; complete it" in wrong(dense, spikes="spike/r4")
    shutil.rmtree(test / "seq0" / "depth")
    assert "seq0: has no depth maps in depth/data" in wrong(dense, spikes="spike/r16")
    (test / "seq0" / "depth" / "data").mkdir(parents=True)
    assert f"{test / 'seq0' / 'depth' / 'data' / 'timestamps.txt'}: can't be read" in wrong(dense, spikes="spike/r16")
    shutil.rmtree(test)
    assert "test: holds no sequences; complete it, or choose --task-kwargs scored=validation" in wrong(dense)
    shutil.rmtree(dense / "DENSE")
    assert "data set dense_spike not found" in wrong(dense)


def _with_second(dense, test):
    shutil.copytree(test / "seq0" / "spike" / "r16", test / "seq0" / "spike" / "r8")
    return wrong(dense)


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_smaller_pictures_and_hostile_headings_are_named_wherever_they_are(dense, first):
    number = 1 if first else 2
    place = dense / "DENSE" / "test" / "seq1"
    path = place / f"spike/r16/spike_{number:010d}.npy"
    np.save(path, ONES[:, :12, :12])
    np.save(place / f"depth/data/depth_{number:010d}.npy", NEAR[:12, :12])
    assert f"{path}: 12x12 pixels" in wrong(dense)
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 20, 28)})
    path.write_bytes(stream.getvalue() + b"\0" * 10)
    found = wrong(dense)
    assert str(path) in found
    assert "for its heading" in found


def test_other_sizes_are_named_before_training(dense):
    assert "20x28 pixels are fewer than the 24x24 of a crop; give a smaller --img-size" in wrong(dense, side=24)
    only = dense / "DENSE" / "test" / "seq1" / "spike" / "r16" / "timestamps.txt"
    only.write_text("0 5.0\n")
    assert "needs two spike tensors or more" in wrong(dense)


def test_counts_are_normalised_where_that_is_asked_for(tmp_path):
    path, counts = tmp_path / "x.npy", np.zeros((2, 2, 2), np.int64)
    counts[0] = [[1, 2], [3, 0]]
    np.save(path, counts)
    normal = read_spikes(path, normalize=True)
    assert np.allclose(normal[0], [[-1.2247449, 0], [1.2247449, 0]])
    assert (normal[1] == 0).all()
    np.save(path, np.sign(counts))
    assert (read_spikes(path, normalize=True) == np.sign(counts)).all()  # zeros and ones stay
    np.save(path, np.where(counts, np.inf, 0))
    with pytest.raises(UserError, match="infinite or not a number"):
        read_spikes(path, normalize=True)


def test_depth_maps_of_other_floating_point_and_with_a_last_axis(tmp_path):
    path = tmp_path / "d.npy"
    for content in (NEAR.astype(np.float64), NEAR.astype(">f4"), NEAR.astype(np.float16)[..., None]):
        np.save(path, content)
        assert (read_depth(path) == 1).all()
        assert read_depth(path).shape == (HEIGHT, WIDTH)


def test_raw_streams_are_bits_lowest_first_and_the_lowest_row_first(tmp_path):
    frames = np.zeros((2, 2, 8), np.uint8)
    frames[0, 1, 0] = frames[0, 0, 7] = frames[1, 0, 2] = 1
    path = tmp_path / "s.dat"
    path.write_bytes(bytes([0b0000_0001, 0b1000_0000, 0, 0b0000_0100]))
    stream = Stream(path, 2, 8, "s")
    assert stream.count() == 2
    assert (stream.read(0, 2) == frames).all()
    assert (stream.read(1, 1) == frames[1:]).all()
    assert pack_frames(frames) == path.read_bytes()


def test_windows_of_raw_streams(tmp_path):
    rng = np.random.default_rng(0)
    all_frames = [(rng.random((count, 20, 24)) < 0.5).astype(np.uint8) for count in (40, 16, 33)]
    for name, frames in zip("abc", all_frames, strict=True):
        (tmp_path / f"{name}.dat").write_bytes(pack_frames(frames))
    given = {"height": 20, "width": 24, "frames": 16}
    _, bundle = build(tmp_path, "outdoor_spike", stride=8, **given)
    assert [bundle.test.place(index) for index in range(len(bundle.test))] == [
        *(("a", 8 * i, i) for i in range(4)), ("b", 0, 0), *(("c", 8 * i, i) for i in range(3)),
    ]  # fmt: skip
    assert (len(bundle.train), bundle.input_shape) == (0, (16, 16, 16))
    x, target = bundle.test[7]
    assert torch.equal(x, torch.from_numpy(all_frames[2][16:32, 2:18, 4:20]).float())
    assert target.depth.isnan().all()
    path = tmp_path / "b.dat"
    path.write_bytes(path.read_bytes()[:-1])
    assert "959 bytes are no whole number of frames of 20x24 pixels, 60 bytes each" in wrong(
        tmp_path, dataset="outdoor_spike", **given
    )
    path.write_bytes(b"")
    assert f"{path}: 0 bytes are no whole number of frames" in wrong(tmp_path, dataset="outdoor_spike", **given)
    path.write_bytes(bytes(60 * 15))
    assert "has 15 frames, fewer than the 16 of a window" in wrong(tmp_path, dataset="outdoor_spike", **given)
    path.unlink()
    assert "20x24 pixels are fewer than the 24x24" in wrong(tmp_path, dataset="outdoor_spike", side=24, **given)
    assert "data set outdoor_spike not found" in wrong(tmp_path / "nothing", dataset="outdoor_spike")
    (tmp_path / "Outdoor-Spike").mkdir()
    assert "Outdoor-Spike: holds no .dat files" in wrong(tmp_path, dataset="outdoor_spike")


def test_a_stream_that_was_cut_off_meanwhile(tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(bytes(96))
    samples = StreamWindows([Stream(path, 8, 8, "a")], Reading((8, 8), 1000, 5.7), 4, 4)
    path.write_bytes(bytes(20))
    with pytest.raises(UserError, match=r"a.dat: ends before frame 12; fetch it anew"):
        samples[2]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"clip_distance": 0.0}, "clip_distance: needs a number above 0"),
        ({"reg_factor": float("nan")}, "reg_factor: needs a number above 0"),
        ({"si_lambda": -1.0}, "si_lambda: needs a number from 0 on"),
        ({"stride": 0}, "stride: needs a whole number from 1"),
        ({"maps": -1}, "maps: needs a whole number from 0"),
        ({"height": 3, "width": 5}, "height, width: a frame fills whole bytes; 3x5 bits don't"),
        ({"cutoffs": (10, 10)}, "cutoffs: needs different metres"),
        ({"spikes": "../x"}, "spikes: needs a folder below that of a sequence"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_are_checked(given, line):
    with pytest.raises(UserError) as caught:
        DepthSettings(**given)
    assert line in str(caught.value)


def test_settings_of_another_type_are_named_on_the_command_line(capsys, tmp_path):
    for text, line in (
        ("scored=tests", "--task-kwargs scored: takes"),
        ("stride=0", "--task-kwargs stride: needs a whole number from 1"),
        ("colour=1", "--task-kwargs colour: depth has no such option; it has spikes, scored"),
    ):
        assert main(["--task", "depth", "--task-kwargs", text, "--output", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1


def test_the_meter_averages_over_frames_and_leaves_out_what_is_asked_for(dense, tmp_path):
    _, bundle = build(dense)
    exact = bundle.test[1][1].depth[None]
    meter = DepthMeter(bundle.test, DepthSettings(maps=5))
    for index in range(6):
        x, target = bundle.test[index]
        batch = target.map(lambda value: value[None])
        meter.update(lambda x: exact, x[None], batch)
    # depths of 11, 12, 13 m twice, all predicted as 12 m; a rank that saw a frame again counts it once
    found = meter.compute(lambda own: [own, own])
    assert found["abs_rel"] == pytest.approx((1 / 11 + 0 + 1 / 13) / 3, rel=1e-5)
    assert found["abs_rel_20m"] == pytest.approx(found["abs_rel"])
    assert "abs_rel_10m" not in found
    written = meter.write(tmp_path)
    assert [path.name for path in written] == ["depth_metrics.json", "depth"]
    maps = sorted((tmp_path / "depth").rglob("*.npy"))
    assert [path.relative_to(tmp_path / "depth").as_posix() for path in maps] == [
        *(f"seq0/depth_000000000{i}.npy" for i in (1, 2, 3)), *(f"seq1/depth_000000000{i}.npy" for i in (1, 2)),
    ]  # fmt: skip
    assert np.allclose(np.load(maps[0]), 12, rtol=1e-5)
    assert np.load(maps[0]).dtype == np.float32
    late = DepthMeter(bundle.test, DepthSettings(skip_first=2))
    for index in range(6):
        x, target = bundle.test[index]
        late.update(lambda x: exact, x[None], target.map(lambda value: value[None]))
    assert late.compute(lambda own: [own])["abs_rel"] == pytest.approx(1 / 13, rel=1e-5)
    assert sorted(late.maps) == [2, 5]


def test_pixels_that_fire_are_those_that_added_up_to_the_threshold():
    light = np.full((6, 1, 2), 0.5)
    light[..., 1] = 0.3
    fired = scene.integrate_and_fire(light, 1.0)
    assert fired[:, 0, 0].tolist() == [0, 1, 0, 1, 0, 1]
    assert fired[:, 0, 1].tolist() == [0, 0, 0, 1, 0, 0]
    assert scene.integrate_and_fire(light, 1.0, np.full((1, 2), 0.5))[0, 0].tolist() == [1, 0]


@pytest.fixture
def tiny_scene(monkeypatch):
    monkeypatch.setattr(scene, "PARTS", {"train": 2, "test": 1})
    monkeypatch.setattr(scene, "TENSORS", 2)


def test_the_scene_is_written_whole_or_not_at_all_and_always_the_same(tmp_path, tiny_scene, monkeypatch):
    for name in ("a", "b"):
        scene.make_scene(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 3 * 6
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    depth = np.load(tmp_path / "a" / "train/sequence_00/depth/data/depth_0000000001.npy")
    assert 5 <= depth.min() < depth.max() <= 120
    assert len(np.unique(depth)) >= 3
    monkeypatch.setattr(scene, "_write_sequence", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        scene.make_scene(tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_is_near_moves_faster():
    rng = np.random.default_rng(0)
    near, far = ((np.array([[distance, -1e9, 1e9, -1e9, 1e9]]), rng.random((1, 64, 64))) for distance in (6.0, 30.0))
    moved = []
    for planes, textures in (near, far):
        before, after = (scene.render(planes, textures, frame)[0] for frame in (0, 30))
        shift = scene._SPEED * 30 * scene._FOCAL / planes[0, 0]
        moved.append(shift)
        whole = round(shift)
        apart, followed = np.abs(before - after), np.abs(before[:, whole:] - after[:, : -whole or None])
        assert followed.mean() < 0.5 * apart.mean() + 1e-3
    assert moved[0] == pytest.approx(5 * moved[1])


def test_a_scene_is_trained_scored_and_drawn(tmp_path, tiny_scene, capsys):
    given = [
        "-c", "depth_scene", "--data-dir", str(tmp_path / "data"), "--output", str(tmp_path), "--epochs", "1",
        "--batch-size", "2", "--tensorboard-dir", "", "--img-size", "16",
    ]  # fmt: skip
    assert main([*given, "--experiment", "run"]) == 0
    folder = tmp_path / "run"
    assert "test abs rel" in capsys.readouterr().out
    for name in ("depth.png", "depth_metrics.json", "depth/sequence_00/depth_0000000001.npy", "results.json"):
        assert (folder / name).stat().st_size > 0
    metres = np.load(folder / "depth/sequence_00/depth_0000000001.npy")
    assert metres.shape == (16, 16)
    assert ((metres > 3.3) & (metres < 1000)).all()
    assert main([*given, "--experiment", "look", "--eval_checkpoint", str(folder / "last.pth.tar")]) == 0


def test_predictions_for_raw_streams_are_written_and_drawn(tmp_path, tiny_scene, capsys):
    data = tmp_path / "data"
    rng = np.random.default_rng(0)
    (data / "Outdoor-Spike" / "day").mkdir(parents=True)
    (data / "Outdoor-Spike" / "day" / "one.dat").write_bytes(pack_frames(rng.random((70, 20, 24)) < 0.4))
    common = [
        "--task", "depth", "--model", "spike_transformer_depth_small", "--output", str(tmp_path), "--workers", "0",
        "--data-dir", str(data), "--img-size", "16", "--tensorboard-dir", "",
    ]  # fmt: skip
    train = [*common, "--dataset", "depth_scene", "--epochs", "1", "--batch-size", "2", "--experiment", "run"]
    assert main(train) == 0
    kwargs = ["--dataset", "outdoor_spike", "--task-kwargs", "height=20", "width=24", "frames=32", "stride=32"]
    look = [*common, *kwargs, "--eval_checkpoint", str(tmp_path / "run" / "last.pth.tar"), "--experiment", "look"]
    capsys.readouterr()
    assert main(look) == 0
    assert "frames 2.0000" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "look" / "depth" / "day" / "one").iterdir()) == [
        "depth_0000000000.npy", "depth_0000000032.npy",
    ]  # fmt: skip
    assert (tmp_path / "look" / "depth.png").stat().st_size > 0
    assert main([*common, *kwargs, "--epochs", "1"]) == 2
    assert "its training part is empty" in capsys.readouterr().err
    assert main([*look, "--img-size", "12"]) == 2
    assert "--img-size: spike_transformer_depth_small takes multiples of 8 pixels; got 12x12" in capsys.readouterr().err


def test_samples_without_a_flip_come_from_the_same_reader(dense):
    _, bundle = build(dense)
    one = DepthFrames(bundle.test.pairs, replace(bundle.test.reading, size=(8, 8)), FRAMES)
    assert torch.equal(one[0][0], bundle.test[0][0][:, 4:12, 4:12])
