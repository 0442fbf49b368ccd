"""Event frames: ours beside tonic's and SpikingJelly's, from memory, from files and from caches; and what a step waits.

    pip install spikingjelly==2.0.0 aedat
    python -m benchmarks.events

The recordings are random ones in the format of N-MNIST (4,000 events) and of tonic's CIFAR10-DVS (100,000 events),
written by this script. Both sides' frames are compared first; then the sides take turns, so that whatever else the
machine does meets all of them. Ratios are taken round by round, and their median is shown with its quartiles.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import struct
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from tonic import DiskCachedDataset
from tonic.datasets import CIFAR10DVS, NMNIST
from tonic.transforms import ToFrame
from torch.nn import functional as F

import braincog_transformers  # noqa: F401 - registers the models
from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.events.cache import cached_frames
from braincog_transformers.data.events.dataset import EventDataset
from braincog_transformers.data.events.frames import FrameRule, events_to_frames
from braincog_transformers.data.loading.loader import make_loader
from braincog_transformers.data.readers import encode_bin, make_events

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCH, STEPS, SIDE = 8, 4, 64

Sides = dict[str, Callable[[], object]]


def recording(count: int, side: int, seed: int) -> np.ndarray:
    """Return random events of 300 ms."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, side, (2, count))
    return make_events(np.sort(rng.integers(0, 300_000, count)), x, y, rng.random(count) < 0.5)


def aedat4(events: np.ndarray) -> bytes:
    """Return an uncompressed AEDAT4 file of one packet and one stream."""
    xml = (
        b'<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">'
        b'<node name="0" path="/mainloop/Recorder/outInfo/0/"><attr key="compression" type="string">NONE</attr>'
        b'<attr key="typeIdentifier" type="string">EVTS</attr><node name="info">'
        b'<attr key="sizeX" type="int">128</attr><attr key="sizeY" type="int">128</attr>'
        b'<attr key="source" type="string">DVS</attr></node></node></node></dv>'
    )
    heading = struct.pack("<I4s6x5HiiIqI", 24, b"IOHE", 10, 20, 4, 12, 8, 10, 0, 12, -1, len(xml)) + xml + b"\0"
    heading += bytes(-len(heading) % 4)
    stored = np.zeros(len(events), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("pad", "V3")])
    for name in ("t", "x", "y", "p"):
        stored[name] = events[name]
    packet = struct.pack("<II4s2x3HiII", 28 + 16 * len(events), 16, b"EVTS", 6, 8, 4, 6, 4, len(events))
    packet += stored.tobytes()
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(heading)) + heading + struct.pack("<ii", 0, len(packet)) + packet


class TonicNMNIST(NMNIST):
    """tonic's set, which takes no fewer files than all for present."""

    def _check_exists(self) -> bool:
        return True


class TonicCIFAR10DVS(CIFAR10DVS):
    """The same."""

    def _check_exists(self) -> bool:
        return True


def compare(title: str, sides: Sides, *, rounds: int, unit: str, amount: float) -> None:
    """Time the sides in turn, and print rates and ratios to the first one."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for call in sides.values():
        call()
    for _ in range(rounds):
        for side, call in sides.items():
            started = time.perf_counter()
            call()
            seconds[side].append(time.perf_counter() - started)
    print(f"\n| {title} | {unit} | this / ours | quartiles |\n|---|---|---|---|")
    ours = next(iter(seconds.values()))
    for side, times in seconds.items():
        low, middle, high = np.percentile([a / b for a, b in zip(times, ours, strict=True)], (25, 50, 75))
        rate = amount / statistics.median(times)
        print(f"| {side} | {rate:,.0f} | {middle:.2f} | {low:.2f} to {high:.2f} |")


def spikingjelly_integration() -> Callable:
    """Return SpikingJelly's function from its file alone: the package around it asks for torchaudio and more."""
    folder = importlib.util.find_spec("spikingjelly").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("spikingjelly.datasets.utils", Path(folder) / "datasets" / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.integrate_events_by_fixed_frames_number


def measure_integration(rounds: int) -> None:
    """Compare counting alone, on events in memory."""
    integrate = spikingjelly_integration()
    for count, side, steps in ((4_000, 34, 10), (100_000, 128, 10)):
        events, size = recording(count, side, 0), (side, side)
        columns = {name: np.ascontiguousarray(events[name]).astype(int) for name in ("t", "x", "y", "p")}
        for by, bins in (("number", "n_event_bins"), ("time", "n_time_bins")):
            to_frame = ToFrame(sensor_size=(side, side, 2), **{bins: steps})

            def ours(remainder, events=events, steps=steps, size=size, by=by):
                return events_to_frames(events, steps, size, by=by, remainder=remainder)

            def theirs(columns=columns, steps=steps, side=side, by=by):
                return integrate(columns, by, steps, side, side)

            if not (np.array_equal(ours("drop"), to_frame(events)) and np.array_equal(ours("last"), theirs())):
                raise SystemExit("the frames differ")
            calls = {
                "ours": lambda ours=ours: ours("last"),
                "tonic's ToFrame": lambda to_frame=to_frame, events=events: to_frame(events),
                f"spikingjelly {version('spikingjelly')}": theirs,
            }
            title = f"{count:,} events, {side}x{side}, T={steps}, by {by}"
            compare(title, calls, rounds=rounds, unit="recordings/s", amount=1)


def write_nmnist(root: Path, count: int) -> list[Path]:
    paths = [root / "TonicNMNIST" / "Train" / str(k % 10) / f"{k:05d}.bin" for k in range(count)]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_bin(recording(4_000, 34, seed)))
    return sorted(paths)


def write_cifar(root: Path, count: int) -> list[Path]:
    paths = [root / "TonicCIFAR10DVS" / CLASSES[k % 10] / f"{k:05d}.aedat4" for k in range(count)]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(aedat4(recording(100_000, 128, seed)))
    return sorted(paths)


def measure_files(name: str, files: list[Path], tonic_set: Callable, side: int, folder: Path, rounds: int) -> None:
    """Compare samples of frames from files and from caches."""
    steps = 10
    rule = FrameRule(sensor=(side, side), size=(side, side), steps=steps, by="time", remainder="drop")
    labels = [0] * len(files)
    direct = EventDataset(files, labels, rule)
    cached = EventDataset(files, labels, rule, cache=cached_frames(folder / f"ours-{name}", name, files, rule))
    theirs = tonic_set(transform=ToFrame(sensor_size=(side, side, 2), n_time_bins=steps))
    kept = DiskCachedDataset(theirs, cache_path=str(folder / f"tonic-{name}"))
    places = {Path(path).name: place for place, path in enumerate(theirs.data)}
    for index in range(0, len(files), max(1, len(files) // 8)):
        frames = theirs[places[files[index].name]][0]
        if not (np.array_equal(direct[index][0], frames) and np.array_equal(cached[index][0], frames)):
            raise SystemExit("the frames differ")

    def through(dataset):
        return lambda: [dataset[index] for index in range(len(files))]

    for title, ours, other in (("files", direct, theirs), ("caches", cached, kept)):
        sides = {"ours": through(ours), f"tonic {version('tonic')}": through(other)}
        amount = len(files) * steps
        compare(f"{name}-like, {len(files)} {title}", sides, rounds=rounds, unit="frames/s", amount=amount)


def waiting(dataset: torch.utils.data.Dataset, workers: int, epochs: int) -> tuple[float, float]:
    """Return the share of the time that training waits for batches, and milliseconds of a step with its wait."""
    torch.manual_seed(0)
    model = timm.create_model("spikformer_2_256_dvs", step=STEPS, img_size=SIDE, num_classes=10).train()
    optimizer = torch.optim.AdamW(model.parameters())
    loader = make_loader(dataset, batch_size=BATCH, train=True, seed=0, workers=workers, persistent_workers=True)
    waits, wholes = [], []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        batches = iter(loader)
        for number in range(len(loader)):
            started = time.perf_counter()
            x, y = next(batches)
            arrived = time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if number:  # the first batch of an epoch waits for the processes to start
                waits.append(arrived - started)
                wholes.append(time.perf_counter() - started)
    return sum(waits) / sum(wholes), 1000 * statistics.median(wholes)


def measure_waiting(root: Path, folder: Path, epochs: int) -> None:
    print(f"\n| spikformer_2_256_dvs, batch {BATCH}, {SIDE}x{SIDE}, T={STEPS} | workers | waiting | ms by step |")
    print("|---|---|---|---|")
    options = {"step": STEPS, "size": (SIDE, SIDE), "cache_dir": folder, "train_portion": 0.8}
    (root / "TonicCIFAR10DVS").rename(root / "CIFAR10DVS")
    for title, use_cache in (("cached", True), ("--no-cache", False)):
        dataset = build_datasets("dvsc10", root, use_cache=use_cache, **options).train
        for workers in (0, 1, 2):
            share, milliseconds = waiting(dataset, workers, epochs)
            print(f"| {title} | {workers} | {100 * share:.1f} % | {milliseconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds of each side")
    parser.add_argument("--files", type=int, default=100, help="recordings of each format, at least 50")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each training whose waits are measured")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", ".*published figures need all of them")
    versions = {name: version(name) for name in ("torch", "numpy", "tonic", "spikingjelly")}
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {load}; {versions}")
    measure_integration(10 * args.rounds)
    with tempfile.TemporaryDirectory() as name:
        root, folder = Path(name) / "data", Path(name) / "cache"
        sets = (
            ("N-MNIST", write_nmnist, TonicNMNIST, 34),
            ("CIFAR10-DVS", write_cifar, TonicCIFAR10DVS, 128),
        )
        for title, write, cls, side in sets:

            def tonic_set(transform, cls=cls):
                return cls(str(root), transform=transform)

            measure_files(title, write(root, args.files), tonic_set, side, folder, args.rounds)
        measure_waiting(root, folder, args.epochs)


if __name__ == "__main__":
    main()
