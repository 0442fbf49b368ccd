"""From events to frames: the rule of the cut, the rule of the remainder and the rule of the resizing are explicit.

Published checkpoints depend on all three. With N events and T frames:

* by `number`: N // T events a frame; by `time`: (last time - first time) // T microseconds a frame;
* what is left over goes into the last frame (`last`, as in SpikingJelly) or is dropped (`drop`, as in tonic, which by
  time always loses the last event). A recording with fewer events, or microseconds, than frames is all remainder.
"""

from functools import lru_cache
from typing import Literal

import numpy as np

__all__ = ["FRAMES_BY", "REMAINDERS", "RESIZES", "count_factor", "events_to_frames", "resize_counts"]

FRAMES_BY = ("number", "time")
REMAINDERS = ("last", "drop")
RESIZES = ("area", "bilinear")


def events_to_frames(
    events: np.ndarray,
    steps: int,
    size: tuple[int, int],
    *,
    by: Literal["number", "time"] = "number",
    remainder: Literal["last", "drop"] = "last",
) -> np.ndarray:
    """Count events per frame, polarity and pixel.

    Args:
        events: (N,) with fields t in microseconds, x, y and p, sorted by time, inside of the sensor.
        steps: T, number of frames, at least 1.
        size: (H, W) of the sensor.
        by: equal numbers of events, or equal times.
        remainder: what is left over joins the last frame or is dropped.

    Returns:
        counts (T, 2, H, W) float32; channel 0 holds OFF events, channel 1 ON events.

    Raises:
        ValueError: for T below 1 or an unknown rule.
    """
    if steps < 1:
        raise ValueError(f"events_to_frames: the number of steps must be at least 1; got {steps}")
    if by not in FRAMES_BY or remainder not in REMAINDERS:
        rules = f"by must be in {FRAMES_BY}, remainder in {REMAINDERS}"
        raise ValueError(f"events_to_frames: {rules}; got {by!r}, {remainder!r}")
    height, width = size
    frame = _frame_of(events, steps, by)
    if remainder == "drop":
        events, frame = events[frame < steps], frame[frame < steps]
    frame = np.minimum(frame, steps - 1)
    cell = ((frame * 2 + events["p"]) * height + events["y"]) * width + events["x"]
    counts = np.bincount(cell, minlength=steps * 2 * height * width)
    return counts.astype(np.float32).reshape(steps, 2, height, width)


def _frame_of(events: np.ndarray, steps: int, by: str) -> np.ndarray:
    """Return each event's frame; `steps` and above is the remainder."""
    if not len(events):
        return np.empty(0, np.int64)
    place = np.arange(len(events)) if by == "number" else events["t"] - events["t"][0]
    length = (len(events) if by == "number" else int(place[-1])) // steps
    if length == 0:
        return np.full(len(events), steps, np.int64)
    return place // length


def count_factor(source: tuple[int, int], target: tuple[int, int], rule: str) -> int | None:
    """Return the number by which resized counts become whole numbers, or None where there is none.

    Area resizing by whole factors averages H/h * W/w pixels, so that many times its result is a count.
    """
    if source == target:
        return 1
    if rule == "area" and source[0] % target[0] == 0 and source[1] % target[1] == 0:
        return (source[0] // target[0]) * (source[1] // target[1])
    return None


def resize_counts(frames: np.ndarray, size: tuple[int, int], rule: Literal["area", "bilinear"] = "area") -> np.ndarray:
    """Resize frames (T, P, H, W) to (T, P, *size), float32.

    `area` averages over each target pixel's share of the sensor and loses no event; `bilinear` samples four pixels with
    aligned corners, which is BrainCog's rule, and at size 48 of 128 never looks at half of the sensor.

    Raises:
        ValueError: for an unknown rule.
    """
    if rule not in RESIZES:
        raise ValueError(f"resize_counts: rule must be one of {RESIZES}; got {rule!r}")
    source = frames.shape[-2:]
    if source == tuple(size):
        return frames.astype(np.float32, copy=False)
    factor = count_factor(source, tuple(size), rule)
    if factor:  # whole numbers stay exact, and strided sums take half the time of the products below
        tall, wide = source[0] // size[0], source[1] // size[1]
        rows = sum(frames[..., row::tall, :] for row in range(tall))
        return (sum(rows[..., column::wide] for column in range(wide)) / np.float32(factor)).astype(np.float32)
    weights = _area_weights if rule == "area" else _bilinear_weights
    return weights(source[0], size[0]) @ frames.astype(np.float32) @ weights(source[1], size[1]).T


@lru_cache(maxsize=32)
def _area_weights(source: int, target: int) -> np.ndarray:
    """Return (target, source): the share of each source pixel in each target pixel, rows summing to 1."""
    edges = np.arange(target + 1) * (source / target)
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(overlap, 0, None) * (target / source)).astype(np.float32)


@lru_cache(maxsize=32)
def _bilinear_weights(source: int, target: int) -> np.ndarray:
    """Return (target, source): linear interpolation with the corner pixels' centres aligned."""
    place = np.arange(target) * ((source - 1) / (target - 1)) if target > 1 else np.zeros(1)
    return np.clip(1 - np.abs(place[:, None] - np.arange(source)), 0, None).astype(np.float32)
