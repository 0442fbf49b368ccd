"""Writers of small recordings and picture files in the real formats, from NumPy and struct alone."""

import struct
from pathlib import Path

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
