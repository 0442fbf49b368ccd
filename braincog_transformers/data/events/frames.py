"""From events to frames, by explicit rules of the cut, the remainder, the resizing and the scale.

Published checkpoints depend on all of them. With N events and T frames of counts:

* by `number`: N // T events a frame; by `time`: (last time - first time) // T microseconds a frame;
* what is left over goes into the last frame (`last`, as in SpikingJelly) or is dropped (`drop`, as in tonic, which by
  time always loses the last event). A recording with fewer events, or microseconds, than frames is all remainder.

Voxel grids and time surfaces are tonic's; their cut is by time and leaves nothing over.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from ...errors import UserError
from ..readers import Recording, read_recording
from ..settings import Rule, choices, option

__all__ = ["STORED_TYPES", "FrameRule", "event_channels", "events_to_frames"]

_GIVEN_US = 8000  # all recordings of ES-ImageNet: eight steps, read as milliseconds
_CUTS = (*choices("frames_by"), "given")
_REMAINDERS, _RESIZES, _NORMS = choices("remainder"), choices("event_resize"), choices("frame_norm")
STORED_TYPES = (np.uint8, np.uint16, np.float32)
"""Of frames in the cache: the narrowest that holds their counts, or float32 where they are fractions."""


def event_channels(kind: str, *, merge: bool = False, appended: bool = False) -> int:
    """Return P, the channels of one frame: a voxel grid is signed and has one, as have merged polarities."""
    return (1 if merge or kind == "voxel" else 2) + appended


def events_to_frames(
    events: np.ndarray,
    steps: int,
    size: tuple[int, int],
    *,
    by: Literal["number", "time", "given"] = "number",
    remainder: Literal["last", "drop"] = "last",
    merge: bool = False,
    span: tuple[int, int] | None = None,
) -> np.ndarray:
    """Count events per frame, polarity and pixel.

    Args:
        events: (N,) with fields t in microseconds, x, y and p, sorted by time, inside of the sensor.
        steps: T, number of frames, at least 1.
        size: (H, W) of the sensor.
        by: equal numbers of events, equal times, or, of recordings that come in eight steps, equal numbers of those.
        remainder: what is left over joins the last frame or is dropped.
        merge: count both polarities together.
        span: start and duration in microseconds of what equal times divide; by default that of the events.

    Returns:
        counts (T, P, H, W) float32; of P = 2 channels, 0 holds OFF events and 1 ON events.

    Raises:
        ValueError: for T below 1 or an unknown rule.
    """
    if steps < 1:
        raise ValueError(f"events_to_frames: the number of steps must be at least 1; got {steps}")
    if by not in _CUTS or remainder not in _REMAINDERS:
        rules = f"by must be in {_CUTS}, remainder in {_REMAINDERS}"
        raise ValueError(f"events_to_frames: {rules}; got {by!r}, {remainder!r}")
    height, width = size
    cuts = _cuts(events, steps, by, span)
    if remainder == "last":
        cuts[-1] = len(events)
    cell = events["y"].astype(np.intp) * width + events["x"]
    if not merge:
        cell += events["p"].astype(np.intp) * (height * width)
    chans = event_channels("count", merge=merge)
    frames = np.empty((steps, chans * height * width), np.float32)
    for step in range(steps):
        frames[step] = np.bincount(cell[cuts[step] : cuts[step + 1]], minlength=frames.shape[1])
    return frames.reshape(steps, chans, height, width)


def _cuts(events: np.ndarray, steps: int, by: str, span: tuple[int, int] | None = None) -> np.ndarray:
    """Return (T + 1,): frame k has the events from place k to place k + 1; those behind the last are the remainder."""
    edges = np.arange(steps + 1)
    if by == "number":
        return edges * (len(events) // steps)
    if by == "given":
        return np.searchsorted(events["t"], edges * (_GIVEN_US // steps))
    if not len(events):
        return edges * 0
    t = np.ascontiguousarray(events["t"])
    start, duration = span or (t[0], t[-1] - t[0])
    return np.searchsorted(t, start + edges * (duration // steps))


def voxel_grid(events: np.ndarray, steps: int, size: tuple[int, int]) -> np.ndarray:
    """Spread each event's sign over the two nearest of T points in time, by tonic's function.

    Bin k has weight 1 at first time + k / T of the duration, so that the last event has none. Without a duration, all
    events count fully in the first bin.

    Args:
        events: as in `events_to_frames`, at least one.
        steps: T, number of bins.
        size: (H, W) of the sensor.

    Returns:
        grid (T, 1, H, W) float32; ON events count +1, OFF events -1.

    Source: Zhu et al., Unsupervised Event-based Learning of Optical Flow, Depth, and Egomotion (CVPR 2019), equation 2.
    """
    from tonic.functional import to_voxel_grid_numpy

    if events["t"][0] == events["t"][-1]:
        events = _with_end(events, 1)
    # tonic writes -1 into `p`, which a boolean field would turn into True
    signed = events.astype([(name, "i8") for name in ("t", "x", "y", "p")])
    return to_voxel_grid_numpy(signed, (size[1], size[0], 2), steps).astype(np.float32)


def time_surfaces(
    events: np.ndarray, steps: int, size: tuple[int, int], *, tau_us: float, merge: bool = False
) -> np.ndarray:
    """Let each pixel show the age of its last event, exp(-age / tau), at the end of T windows, by tonic's function.

    A window is duration // T + 1 microseconds, so that the T of them hold every event of the longest and the shortest
    recording.

    Args:
        events: as in `events_to_frames`, at least one.
        steps: T, number of windows.
        size: (H, W) of the sensor.
        tau_us: time constant in microseconds, above 0.
        merge: take both polarities as one.

    Returns:
        surfaces (T, P, H, W) float32, from 0 (no event so far) to below 1.

    Source: Lagorce et al., HOTS: A Hierarchy of Event-based Time-Surfaces for Pattern Recognition (TPAMI 2017).
    """
    from tonic.functional import to_timesurface_numpy

    window = int(events["t"][-1] - events["t"][0]) // steps + 1
    ended = _with_end(events, steps * window)
    if merge:
        ended["p"] = False
    chans = event_channels("surface", merge=merge)
    return to_timesurface_numpy(ended, (size[1], size[0], chans), window, tau_us).astype(np.float32)


def _with_end(events: np.ndarray, length: int) -> np.ndarray:
    """Return a copy with one event more, `length` microseconds after the first: an end, which tonic never counts."""
    ended = np.append(events, events[-1:])
    ended["t"][-1] = events["t"][0] + length
    return ended


def normalize_frames(frames: np.ndarray, rule: Literal["none", "max", "mean"]) -> np.ndarray:
    """Divide a sample by its largest absolute value, or its mean absolute value; one of zeros stays as it is.

    Args:
        frames: (T, P, H, W) of one sample.
        rule: `none` leaves raw counts, as every published recipe does.

    Raises:
        ValueError: for an unknown rule.
    """
    if rule not in _NORMS:
        raise ValueError(f"normalize_frames: rule must be one of {_NORMS}; got {rule!r}")
    if rule == "none":
        return frames
    scale = np.abs(frames).max() if rule == "max" else np.abs(frames).mean()
    return frames / scale if scale else frames


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
    if rule not in _RESIZES:
        raise ValueError(f"resize_counts: rule must be one of {_RESIZES}; got {rule!r}")
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


@dataclass(frozen=True, kw_only=True)
class FrameRule(Rule):
    """Say how a recording becomes frames; every field is part of the cache's key.

    Args:
        sensor: (H, W) of the camera; `build_datasets` fills in the set's.
        size: (H, W) of the frames; by default the set's.
        steps: T, frames per recording.
        kind: `count`, `voxel` or `surface`, see `events_to_frames`, `voxel_grid` and `time_surfaces`.
        by: see `events_to_frames`; for counts.
        remainder: the same.
        clip: largest count of a pixel of the sensor, before resizing; 1 makes binary frames.
        merge: take both polarities as one; for counts and surfaces.
        tau_us: time constant of surfaces.
        resize: see `resize_counts`.
        norm: see `normalize_frames`; comes last.
    """

    sensor: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    steps: int = option("step", default=4)
    kind: str = option("frames", kind="kind of --frames")
    by: str = option("frames_by", choices=_CUTS, kind="rule of --frames-by")
    remainder: str = option("remainder", kind="rule of --remainder")
    clip: int | None = option("clip_counts")
    merge: bool = option("merge_polarity")
    tau_us: float = option("surface_tau", unit=" microseconds")
    resize: str = option("event_resize", "resize", kind="resizing of events")
    norm: str = option("frame_norm", kind="rule of --frame-norm")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, P, H, W) of a sample."""
        return (self.steps, event_channels(self.kind, merge=self.merge), *self.size)

    @property
    def factor(self) -> int | None:
        """Number by which the frames become whole counts, None where there is none."""
        return count_factor(self.sensor, self.size, self.resize) if self.kind == "count" else None

    def __call__(self, path: Path | Recording) -> np.ndarray:
        """Read a recording and return its frames (T, P, H, W) float32."""
        return normalize_frames(self._frames(path), self.norm)

    def pack(self, path: Path | Recording) -> np.ndarray:
        """Read a recording and return its frames as they are stored: whole counts in the narrowest type, or float32."""
        frames = self._frames(path)
        if not self.factor:
            return frames
        counts = np.rint(frames * self.factor)  # a 25th, times 25, may be a little less than 1
        most = counts.max()
        return counts.astype(next(kind for kind in STORED_TYPES if kind is np.float32 or most <= np.iinfo(kind).max))

    def unpack(self, stored: np.ndarray) -> np.ndarray:
        """Return the frames of `pack`'s result."""
        return normalize_frames(stored.astype(np.float32) / np.float32(self.factor or 1), self.norm)

    def of_events(self, events: np.ndarray, span: tuple[int, int]) -> np.ndarray:
        """Return the frames (T, P, H, W) of a stretch of a recording, which may hold no events: then they are zeros.

        Args:
            events: checked, sorted by time.
            span: start and duration of the stretch in microseconds, which counts by time divide.
        """
        if not len(events):
            return np.zeros(self.shape, np.float32)
        return normalize_frames(self._fitted(self._converted(events, span)), self.norm)

    def _frames(self, path: Path | Recording) -> np.ndarray:
        frames = self._converted(read_recording(path, self.sensor))
        if not frames.any():
            rule = "last" if self.remainder == "drop" else self.remainder
            raise UserError(f"{path}: no event is left in its frames; use fewer steps, or --remainder {rule}")
        return self._fitted(frames)

    def _converted(self, events: np.ndarray, span: tuple[int, int] | None = None) -> np.ndarray:
        """Return frames of the sensor's size."""
        if self.kind == "voxel":
            return voxel_grid(events, self.steps, self.sensor)
        if self.kind == "surface":
            return time_surfaces(events, self.steps, self.sensor, tau_us=self.tau_us, merge=self.merge)
        cut = {"by": self.by, "remainder": self.remainder, "merge": self.merge, "span": span}
        return events_to_frames(events, self.steps, self.sensor, **cut)

    def _fitted(self, frames: np.ndarray) -> np.ndarray:
        if self.clip:
            np.minimum(frames, self.clip, out=frames)
        return resize_counts(frames, self.size, self.resize)
