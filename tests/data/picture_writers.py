"""Writers of small pictures, and of picture sets in the layouts that users have."""

import io
import pickle
import struct
import tarfile

import numpy as np
from PIL import Image

from braincog_transformers.data import DATASETS

CLASSES = ("cat", "dog", "owl")
WNIDS = DATASETS["tinyimagenet"].classes


def write_mnist(root, train=6, test=3, seed=0):
    root.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("t10k", test)):
        pixels = rng.integers(0, 256, (count, 28, 28), np.uint8)
        (root / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + pixels.tobytes())
        labels = np.arange(count, dtype=np.uint8)
        (root / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())
    return pixels


def write_cifar(root, fine):
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = ["train", "test"] if fine else [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name in names:
        pixels = rng.integers(0, 256, (2, 3072), np.uint8)
        content = {"data": pixels, "fine_labels" if fine else "labels": [1, 4]}
        (root / name).write_bytes(pickle.dumps(content))
    return pixels


def photo(value, kind="PNG"):
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(content, kind)
    return content.getvalue()


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def write_tiny(root, leave_out=()):
    folder = root / "tiny-imagenet-200"
    for number, wnid in enumerate(WNIDS):
        (folder / "train" / wnid / "images").mkdir(parents=True)
        if wnid not in leave_out:
            (folder / "train" / wnid / "images" / f"{wnid}_0.JPEG").write_bytes(photo(number, "JPEG"))
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t7\t7\n")
    (folder / "val" / "images").mkdir(parents=True)
    labels = [199, 0, 7]
    for index, label in enumerate(labels):
        (folder / "val" / "images" / f"val_{index}.JPEG").write_bytes(photo(label, "JPEG"))
    rows = [f"val_{index}.JPEG\t{WNIDS[label]}\t0\t0\t7\t7" for index, label in reversed(list(enumerate(labels)))]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    (folder / "wnids.txt").write_text("\n".join(reversed(WNIDS)) + "\n")
    return folder


def member(name, content=None, **given):
    content = photo(7) if content is None else content
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for key, value in given.items():
        setattr(entry, key, value)
    return entry, content


def packed(members, **options):
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w", **options) as tar:
        for entry, content in members:
            tar.addfile(entry, io.BytesIO(content))
    return stored.getvalue()


def classes(inside="{name}/{number}.png", **given):
    return [member(inside.format(name=name, number=number), **given) for name in CLASSES for number in range(2)]
