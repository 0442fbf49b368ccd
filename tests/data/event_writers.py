"""Writers of further event sets in their real formats, as small as they can be."""

import struct

import numpy as np
from scipy.io import savemat
from writers import aedat4_bytes, random_spikes, write_bin, write_shd_file

from braincog_transformers.data import DATASETS
from braincog_transformers.data.readers import make_events

BULLYING10K, HMDB51, NCALTECH101, NCARS, UCF101 = (
    DATASETS[name].classes for name in ("bullying10k", "HMDBDVS", "ncaltech101", "ncars", "UCF101DVS")
)


def wide_events(count, width, height, seed=0, longest=300_000):
    """Return random events of a sensor that is no square."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, longest, count))
    return make_events(t, rng.integers(0, width, count), rng.integers(0, height, count), rng.random(count) < 0.5)


def dat_bytes(events, heading=b"% Data file containing CD events.\r\n% Version 2\n% Date 2017-01-01 10:00:00\n"):
    x, y, p = (events[name].astype(np.uint32) for name in ("x", "y", "p"))
    pairs = np.stack([events["t"].astype(np.uint32), x | y << 14 | p << 28], 1)
    return heading + struct.pack("BB", 0, 8) + pairs.astype("<u4").tobytes()


def write_bytes(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_ncaltech101(root, per_class=2, count=60):
    for label, name in enumerate(NCALTECH101):
        for index in range(per_class):
            events = wide_events(count, 100 + label, 80, seed=label * 10 + index)
            events["x"] += 7
            events["y"] += 3
            write_bin(root / name / f"image_{index + 1:04d}.bin", events)


def write_ncars(root, train=3, test=2, count=80):
    for folder, number in (("train", train), ("test", test)):
        for label, name in enumerate(NCARS):
            for index in range(number):
                events = wide_events(count, 60 + index, 50, seed=label * 100 + index + 7 * (folder == "test"))
                write_bytes(root / folder / name / f"obj_{index:06d}_td.dat", dat_bytes(events))


def write_mat(path, events, rows=180):
    """Write what read_mat is to turn into `events`: columns, with y from below."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "ts": events["t"].astype(np.uint32),
        "x": events["x"].astype(np.uint8),
        "y": (rows - 1 - events["y"]).astype(np.uint8),
        "pol": events["p"].astype(np.uint8),
    }
    savemat(path, {name: column[:, None] for name, column in columns.items()})
    return path


def write_ucf101dvs(root, count=200):
    for number, folder in enumerate(("train", "val")):
        for label, name in enumerate(UCF101):
            events = wide_events(count, 240, 180, label * 2 + number)
            write_mat(root / folder / name / f"v_{name}_g01_c01.mat", events)


def write_hmdbdvs(root, per_class=2, count=200):
    for label, name in enumerate(HMDB51):
        for index in range(per_class):
            write_mat(root / name / f"{name}_{index}.mat", wide_events(count, 240, 180, label * 10 + index))


def packets_of(events, packets=3):
    """Return the object array that the recording software leaves: one structured array for each packet."""
    stored = np.empty(packets, object)
    kind = [("timestamp", "<i8"), ("x", "<i2"), ("y", "<i2"), ("polarity", "i1"), ("_p1", "u1"), ("_p2", "<i2")]
    for place, chunk in enumerate(np.array_split(events, packets)):
        stored[place] = np.zeros(len(chunk), kind)
        for name, source in (("timestamp", "t"), ("x", "x"), ("y", "y"), ("polarity", "p")):
            stored[place][name] = chunk[source]
    return stored


def write_bullying10k(root, per_class=5, count=50, ending=".npy"):
    for label, name in enumerate(BULLYING10K):
        for index in range(per_class):
            events = wide_events(count, 346, 260, label * 10 + index)
            path = root / name / f"scene{index % 2}" / f"clip_{index}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if ending == ".npy":
                np.save(path, packets_of(events), allow_pickle=True)
            else:
                path.write_bytes(aedat4_bytes(events))


def write_esimnet(root, samples=(("train", 4), ("val", 2)), count=300, tall=200, wide=240):
    for folder, number in samples:
        (root / folder).mkdir(parents=True)
        lines = []
        for index in range(number):
            rng = np.random.default_rng(index)
            rows = {
                name: np.stack(
                    [rng.integers(0, tall, count), rng.integers(0, wide, count), rng.integers(1, 9, count)], 1
                ).astype(np.int16)
                for name in ("pos", "neg")
            }
            np.savez(root / folder / f"n0144_{index}.npz", **rows)
            lines.append(f"n0144_{index}.JPEG {index * 3} {tall} {wide}\n")
        (root / f"{folder}label.txt").write_text("".join(lines))


def character(seed, count=400):
    """Return the events of one recording and the (start, end) of its twenty drawings, with pauses between them."""
    events = wide_events(count, 346, 260, seed, longest=10_000_000)
    events["t"] = np.arange(count) * 1000 + 5
    size = count // 20
    return events, [(int(events["t"][k * size]), int(events["t"][(k + 1) * size - 2])) for k in range(20)]


def write_nomni(root, names, count=400):
    for seed, name in enumerate(names):
        folder = root / ("dvs_background" if seed % 2 == 0 else "dvs_evaluation") / name
        folder.mkdir(parents=True)
        events, stretches = character(seed, count)
        (folder / f"{seed:04d}.aedat4").write_bytes(aedat4_bytes(events))
        rows = "".join(f"{k + 1},{start},{end}\n" for k, (start, end) in enumerate(stretches))
        (folder / f"{seed:04d}.csv").write_text("id,start,end\n" + rows)


def write_ssc(root, sizes=(("train", 6), ("valid", 3), ("test", 4)), ending=".h5", names=35):
    for seed, (part, samples) in enumerate(sizes):
        labels = [k * 5 % 35 for k in range(samples)]
        write_shd_file(root / f"ssc_{part}{ending}", *random_spikes(samples, seed), labels, names=names)
