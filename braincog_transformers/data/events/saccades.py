"""Simulated saccade recordings of scikit-learn's digits (`ndigits`): how N-MNIST was recorded, without the camera.

A digit on a dark field moves along N-MNIST's three saccades; every pixel emits an event whenever the logarithm of its
brightness has left its reference level by one threshold. The recordings are written once, as `.bin` files in N-MNIST's
folders, and read by the reader of the real ones. They are a simulation, not N-MNIST.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..pictures.digits import digit_pictures
from ..readers import encode_bin, make_events
from .cache import build_once

__all__ = ["Saccades", "ndigits_folder", "simulate"]

_VERSION = 1
_BATCH = 32
_PATH = ((0.0, 0.0), (3.5, 7.0), (7.0, 0.0), (0.0, 0.0))


@dataclass(frozen=True, kw_only=True)
class Saccades:
    """Set up the simulated camera; the `repr` names the folder of the recordings.

    Args:
        side: of the square field in pixels.
        digit: side of the digit in pixels.
        steps: simulated steps per saccade.
        duration_us: of one saccade, with the rest at its end.
        motion_us: of the movement in it, with a minimum-jerk profile.
        threshold: of the logarithm of brightness for one event.
        mismatch: standard deviation of a pixel's threshold, as a share of it.
        dark: brightness of the background, added to the digit's 0 to 1.
        noise_hz: events per second and pixel without any cause.
        jitter_us: standard deviation of an event's time.
        seed: of the thresholds, the noise and the jitter, with the number of the digit.
    """

    side: int = 34
    digit: int = 28
    steps: int = 60
    duration_us: int = 105_000
    motion_us: int = 100_000
    threshold: float = 0.45
    mismatch: float = 0.10
    dark: float = 0.12
    noise_hz: float = 0.2
    jitter_us: float = 600.0
    seed: int = 0

    @property
    def total_us(self) -> int:
        """Length of a recording."""
        return self.duration_us * (len(_PATH) - 1)


def ndigits_folder(cache: Path, setup: Saccades | None = None) -> Path:
    """Return the folder `Train`, `Test` / class / NNNNN.bin of the simulated recordings, writing them first if needed.

    Args:
        cache: folder of the cache; made if missing.
        setup: of the simulation; by default the published one.
    """
    setup = setup or Saccades()
    digest = hashlib.sha256(f"{_VERSION} {setup!r}".encode()).hexdigest()[:16]
    target = cache / f"ndigits-{digest}"
    build_once(cache, target.is_dir, lambda: _write(target, setup), way_out="")  # there is no set without these files
    return target


def _write(target: Path, setup: Saccades) -> None:
    for abandoned in target.parent.glob(".ndigits-*.folder.partial"):  # by a process that was killed: we hold the lock
        shutil.rmtree(abandoned)
    partial = target.with_name(f".{target.name}-{os.getpid()}.folder.partial")
    try:
        for folder, first in (("Train", 0), ("Test", 100_000)):
            pictures, labels = digit_pictures(train=folder == "Train")
            for label in range(10):
                (partial / folder / str(label)).mkdir(parents=True)
            recordings = simulate(pictures, setup, range(first, first + len(pictures)))
            bar = tqdm(recordings, f"saccades of ndigits, {folder}", len(pictures), unit="file", mininterval=0.5)
            for index, events in enumerate(bar):
                (partial / folder / str(labels[index]) / f"{index:05d}.bin").write_bytes(encode_bin(events))
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def simulate(pictures: np.ndarray, setup: Saccades, numbers: range) -> Iterator[np.ndarray]:
    """Yield the recording of each picture.

    Args:
        pictures: (N, h, w) from 0 to 1, of any size.
        setup: of the simulation.
        numbers: of the pictures, for their seeds; a recording depends on its picture, its number and the set-up alone.

    Yields:
        events (M,) sorted by time, from 0 to below `setup.total_us`.
    """
    for start in range(0, len(pictures), _BATCH):
        batch = _on_field(pictures[start : start + _BATCH], setup)
        generators = [np.random.default_rng((setup.seed, number)) for number in numbers[start : start + _BATCH]]
        t, pixel, p = _crossings(batch, setup, generators)
        bounds = np.searchsorted(pixel, np.arange(len(batch) + 1) * setup.side**2)
        for index, rng in enumerate(generators):
            own = slice(bounds[index], bounds[index + 1])
            yield _recording(t[own], pixel[own] % setup.side**2, p[own], setup, rng)


def _on_field(pictures: np.ndarray, setup: Saccades) -> np.ndarray:
    """Enlarge to the digit's side, smooth once, and add a margin: (N, side + 2, side + 2) from 0 to 1."""
    from PIL import Image

    box = (setup.digit, setup.digit)
    large = [Image.fromarray(p.astype(np.float32)).resize(box, Image.Resampling.BICUBIC) for p in pictures]
    margin = setup.side + 2 - setup.digit
    # One empty row and column before the field: the bilinear shift looks one pixel back.
    field = np.pad(np.clip(np.stack(large), 0, 1), ((0, 0), (1, margin - 1), (1, margin - 1)))
    for axis in (1, 2):
        field = 0.15 * np.roll(field, 1, axis) + 0.7 * field + 0.15 * np.roll(field, -1, axis)
    return field.astype(np.float32)


def _positions(setup: Saccades) -> np.ndarray:
    """Return the digit's shift (x, y) in pixels at the end of each step, (steps of all saccades, 2)."""
    u = np.arange(1, setup.steps + 1) / setup.steps * (setup.duration_us / setup.motion_us)
    u = np.minimum(u, 1.0)
    done = (10 * u**3 - 15 * u**4 + 6 * u**5)[:, None]
    path = np.asarray(_PATH)
    return np.concatenate([a + (b - a) * done for a, b in pairwise(path)])


def _log_brightness(field: np.ndarray, shift: np.ndarray, setup: Saccades) -> np.ndarray:
    """Return the logarithm of the brightness of the field moved by `shift` pixels, (N, side, side)."""
    whole = np.floor(shift).astype(int)
    fx, fy = (shift - whole).astype(np.float32)
    moved = np.zeros((len(field), setup.side + 1, setup.side + 1), np.float32)
    x, y = whole
    moved[:, y:, x:] = field[:, : setup.side + 1 - y, : setup.side + 1 - x]
    rows = moved[:, 1:] * (1 - fy) + moved[:, :-1] * fy
    return np.log(rows[:, :, 1:] * (1 - fx) + rows[:, :, :-1] * fx + np.float32(setup.dark))


def _crossings(
    field: np.ndarray, setup: Saccades, generators: list[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return time (us, float), pixel (counted through the batch) and polarity of each event, sorted by pixel."""
    shape = (setup.side, setup.side)
    threshold = np.stack([1 + setup.mismatch * rng.standard_normal(shape) for rng in generators])
    threshold = (setup.threshold * np.maximum(threshold, 0.5)).astype(np.float32)
    start = np.stack([rng.uniform(-0.5, 0.5, shape) for rng in generators]).astype(np.float32)
    level = _log_brightness(field, np.zeros(2), setup) + start * threshold
    length = setup.duration_us / setup.steps
    found = []
    for step, shift in enumerate(_positions(setup)):
        crossed = np.trunc((_log_brightness(field, shift, setup) - level) / threshold)
        pixel = np.flatnonzero(crossed)
        count = crossed.ravel()[pixel]
        level.ravel()[pixel] += count * threshold.ravel()[pixel]
        found.append((np.full(len(pixel), step), pixel, count.astype(np.int64)))
    step, pixel, count = map(np.concatenate, zip(*found, strict=True))
    order = np.argsort(pixel, kind="stable")
    step, pixel, count = step[order], pixel[order], count[order]
    number = np.abs(count)
    place = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    t = (np.repeat(step, number) + (place + 0.5) / np.repeat(number, number)) * length
    return t, np.repeat(pixel, number), np.repeat(count > 0, number)


def _recording(
    t: np.ndarray, pixel: np.ndarray, p: np.ndarray, setup: Saccades, rng: np.random.Generator
) -> np.ndarray:
    """Add jitter and noise to one picture's events and sort them by time."""
    noise = rng.poisson(setup.noise_hz * setup.side**2 * setup.total_us * 1e-6)
    t = np.concatenate([t + setup.jitter_us * rng.standard_normal(len(t)), rng.uniform(0, setup.total_us, noise)])
    t = np.clip(t, 0, setup.total_us - 1).astype(np.int64)
    pixel = np.concatenate([pixel, rng.integers(0, setup.side**2, noise)])
    p = np.concatenate([p, rng.random(noise) < 0.5])
    order = np.argsort(t, kind="stable")
    return make_events(t[order], pixel[order] % setup.side, pixel[order] // setup.side, p[order])
