"""Writers of small recordings and picture files in the real formats, from NumPy and struct alone."""

import gzip
import struct
from pathlib import Path

import h5py
import numpy as np

from braincog_transformers.data.readers import encode_bin, make_events

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def random_events(count, side=34, seed=0, longest=300_000):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, longest, count))
    return make_events(t, rng.integers(0, side, count), rng.integers(0, side, count), rng.random(count) < 0.5)


def write_bin(path, events):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_bin(events))
    return path


def write_aedat2(path, events, heading=b"#!AER-DAT2.0\r\n# a comment\r\n"):
    """Write what read_aedat2 is to turn into `events`: both axes and the polarity turned over."""
    address = (127 - events["x"].astype(np.uint32)) << 8 | (127 - events["y"].astype(np.uint32)) << 1 | ~events["p"]
    pairs = np.stack([address.astype(np.uint32) & 0x7FFF, events["t"].astype(np.uint32)], 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(heading + pairs.astype(">u4").tobytes())
    return path


def aedat4_bytes(events, packets=2, compression=0, compress=bytes, stream=0):
    xml = (
        '<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">'
        f'<node name="{stream}" path="/mainloop/Recorder/outInfo/{stream}/">'
        '<attr key="compression" type="string">NONE</attr><attr key="typeIdentifier" type="string">EVTS</attr>'
        '<node name="info"><attr key="sizeX" type="int">128</attr><attr key="sizeY" type="int">128</attr>'
        '<attr key="source" type="string">DVS</attr></node></node></node></dv>'
    ).encode()
    body = struct.pack("<I4s6x5HiiIq", 24, b"IOHE", 10, 20, 4, 12, 8, 10, compression, 12, -1)
    body += struct.pack("<I", len(xml)) + xml + b"\0"
    body += bytes(-len(body) % 4)
    parts = [b"#!AER-DAT4.0\r\n", struct.pack("<I", len(body)), body]
    for chunk in np.array_split(events, packets):
        stored = np.zeros(len(chunk), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "u1"), ("pad", "V3")])
        for field, source in (("t", "t"), ("x", "x"), ("y", "y"), ("on", "p")):
            stored[field] = chunk[source]
        head = struct.pack("<II4s2x3HiII", 28 + 16 * len(chunk), 16, b"EVTS", 6, 8, 4, 6, 4, len(chunk))
        payload = compress(head + stored.tobytes())
        parts += [struct.pack("<ii", stream, len(payload)), payload]
    return b"".join(parts)


def write_aedat4(path, events, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(aedat4_bytes(events, **how))
    return path


def write_nmnist(root: Path, train=2, test=1, count=200):
    for folder, number in (("Train", train), ("Test", test)):
        for label in range(10):
            for index in range(number):
                seed = label * 100 + index + (10_000 if folder == "Test" else 0)
                write_bin(root / folder / str(label) / f"{index:05d}.bin", random_events(count, seed=seed))


def write_dvsc10(root: Path, per_class=5, ending=".aedat", count=100, numbers=None):
    write = write_aedat2 if ending == ".aedat" else write_aedat4
    for label, name in enumerate(CLASSES):
        for index in numbers or range(per_class):
            write(root / name / f"cifar10_{name}_{index}{ending}", random_events(count, 128, seed=label * 1000 + index))


def aedat3_bytes(events, packets=2, overflows=0, special=True):
    """Write an AEDAT 3.1 recording: polarity events in packets, with a packet of special events (type 0) between."""
    parts = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"]
    for chunk in np.array_split(events, packets):
        address = events_address(chunk)
        parts.append(struct.pack("<HHIIIIII", 1, 1, 8, 4, overflows, len(chunk), len(chunk), len(chunk)))
        parts.append(np.stack([address, chunk["t"].astype(np.uint32)], 1).astype("<u4").tobytes())
        if special:
            parts.append(struct.pack("<HHIIIIII", 0, 1, 8, 4, overflows, 1, 1, 1) + struct.pack("<II", 3, 7))
    return b"".join(parts)


def events_address(events):
    x, y, p = (events[field].astype(np.uint32) for field in ("x", "y", "p"))
    return x << 17 | y << 2 | p << 1 | 1


GESTURES = [*range(1, 9), 8, 9, 10, 11]
"""Classes of a trial's twelve gestures: arm roll comes twice."""


def write_gesture(root: Path, train=("user01_led", "user02_fluorescent"), test=("user24_led",), count=1200):
    """Write official files: every trial has twelve gestures of 10 ms, each followed by 2 ms of pause."""
    root.mkdir(parents=True, exist_ok=True)
    for seed, trial in enumerate([*train, *test]):
        (root / f"{trial}.aedat").write_bytes(aedat3_bytes(random_events(count, 128, seed, 150_000), packets=7))
        rows = [f"{label},{12_000 * k},{12_000 * k + 10_000}" for k, label in enumerate(GESTURES)]
        text = "class,startTime_usec,endTime_usec\n" + "\n".join(rows) + "\n"
        (root / f"{trial}_labels.csv").write_text(text)
    for name, trials in (("trials_to_train.txt", train), ("trials_to_test.txt", test)):
        (root / name).write_text("".join(f"{trial}.aedat\n" for trial in trials) + "\n")


def write_tonic_gesture(root: Path, trials=("user02_led", "user01_led"), dtype=np.int64):
    """Write tonic's folders: one array of x, y, p and milliseconds for each class."""
    for folder in ("ibmGestureTrain", "ibmGestureTest"):
        for trial in trials:
            (root / folder / trial).mkdir(parents=True)
            for label in range(11):
                events = random_events(40, 128, label, 90_000)
                rows = np.stack([events["x"], events["y"], events["p"], events["t"] // 1000], 1)
                np.save(root / folder / trial / f"{label}.npy", rows.astype(dtype))


def random_spikes(samples, seed=0, most=300):
    rng = np.random.default_rng(seed)
    counts = rng.integers(most // 3, most, samples)
    times = [np.sort(rng.uniform(0, 1.1, count)).astype(np.float16) for count in counts]
    units = [rng.integers(0, 700, count).astype(np.uint16) for count in counts]
    return times, units


def write_shd_file(path: Path, times, units, labels, names=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    with h5py.File(plain, "w") as stored:
        for name, kind, rows in (("times", np.float16, times), ("units", np.uint16, units)):
            column = stored.create_dataset(f"spikes/{name}", (len(rows),), h5py.vlen_dtype(kind))
            for index, row in enumerate(rows):
                column[index] = row
        stored["labels"] = np.asarray(labels, np.uint16)
        stored["extra/speaker"] = np.zeros(len(labels), np.uint16)
        stored["extra/keys"] = np.array([f"word {k}".encode() for k in range(names)])
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return path


def write_shd(root: Path, train=6, test=4, ending=".h5"):
    for seed, (part, samples) in enumerate((("train", train), ("test", test))):
        write_shd_file(
            root / f"shd_{part}{ending}", *random_spikes(samples, seed), [k * 3 % 20 for k in range(samples)]
        )
