"""Samples of depth estimation: spike tensors with their depth maps, paired by time, and windows of raw streams.

The layout of a sequence is the official one: `spike/r128/spike_0000000001.npy` with `timestamps.txt` beside it, and
`depth/data/depth_0000000001.npy` likewise.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ...data.loading.folders import visible
from ...errors import UserError, listed
from ...runtime.batch import Batch
from .files import Stream, array_shape, read_depth, read_spikes, read_times
from .labels import to_label

__all__ = ["DepthFrames", "Pair", "Reading", "StreamWindows", "centre_crop", "find_sequences", "flip", "pair_files"]

EARLIER = 0.01
"""Seconds by which the first depth map that is not earlier than the spikes may be later; else the one before counts."""
LATER = 1e-5
"""Seconds by which the depth map that was found may be later."""


@dataclass(frozen=True)
class Pair:
    """A spike tensor and its depth map.

    Args:
        sequence: name of the folder.
        number: of the depth map's file.
        place: of the pair in its sequence, from 0.
    """

    spikes: Path
    depth: Path
    sequence: str
    number: int
    place: int


@dataclass(frozen=True)
class Reading:
    """How samples are read.

    Args:
        size: height and width that a network sees.
        clip_distance, reg_factor: of `labels.to_label`.
        normalize: see `files.read_spikes`.
        flip: chance of a horizontal flip in training, where the crop is random; None for the centre crop of the test.
    """

    size: tuple[int, int]
    clip_distance: float
    reg_factor: float
    normalize: bool = False
    flip: float | None = None


def find_sequences(folder: Path, spikes: str = "") -> list[tuple[Path, Path]]:
    """Return the sequences below a folder, each with its folder of spike tensors, sorted by name.

    Args:
        folder: one of the set's parts.
        spikes: folder of the spike tensors below that of a sequence; by default the only one `spike/r*`.

    Raises:
        UserError: for a sequence without spikes or depth, or with several folders of spikes to choose from.
    """
    found = []
    for sequence in (path for path in visible(folder, "*") if path.is_dir()):
        several = [path for path in visible(sequence, "spike/r*") if re.fullmatch(r"r\d+", path.name)]
        if spikes:
            several = [sequence / spikes] if (sequence / spikes).is_dir() else []
        if not several:
            raise UserError(f"{sequence}: has no spikes in {spikes or 'spike/r128'}; complete it, or remove it")
        if len(several) > 1:
            names = listed([f"spike/{path.name}" for path in several])
            raise UserError(f"{sequence}: has spikes in {names}; choose with --task-kwargs spikes=spike/r128")
        if not (sequence / "depth" / "data").is_dir():
            raise UserError(f"{sequence}: has no depth maps in depth/data; complete it, or remove it")
        found.append((sequence, several[0]))
    return found


def pair_files(sequence: Path, spikes: Path) -> list[Pair]:
    """Return the pairs of a sequence by the official rule.

    Times count from that of the first spike tensor, which is skipped itself. A tensor belongs to the first depth map
    that is not earlier. If that one is more than 0.01 s away, it is the one before. The official code takes that one
    however early it is; here it may be 0.01 s earlier at most.

    Raises:
        UserError: for missing files, or a tensor without a depth map of its time.
    """
    depths, (lists, ends) = sequence / "depth" / "data", ([], [])
    for folder in (spikes, depths):
        lists.append(read_times(folder / "timestamps.txt"))
        ends.append({path.name for path in folder.glob("*.npy")})
    times, stamps = (one - lists[0][0] for one in lists)
    if len(times) < 2:
        raise UserError(f"{spikes / 'timestamps.txt'}: needs two spike tensors or more, of which the first is skipped")
    pairs = []
    for number, time in enumerate(times.tolist()[1:], 1):
        place = bisect_left(stamps, time)
        if place == len(stamps) or stamps[place] - time > EARLIER:
            place -= 1
        if place < 0 or not -EARLIER <= stamps[place] - time < LATER:
            raise UserError(
                f"{depths / 'timestamps.txt'}: no depth map has the time of spike tensor {number}, "
                f"{times[number] + lists[0][0]:.9g} s; the two lists of times don't belong together"
            )
        names = f"spike_{number:010d}.npy", f"depth_{place:010d}.npy"
        for folder, name, there in zip((spikes, depths), names, ends, strict=True):
            if name not in there:
                raise UserError(f"{folder / name}: is missing, though timestamps.txt lists it; complete the folder")
        pairs.append(Pair(spikes / names[0], depths / names[1], sequence.name, place, number - 1))
    return pairs


def check_shapes(pair: Pair, frames: int | None, size: tuple[int, int]) -> int:
    """Return the number of frames of a pair's spikes, by the headings of its files.

    Raises:
        UserError: for another number than `frames`, a depth map of another size, or frames smaller than `size`.
    """
    shape, depth = array_shape(pair.spikes), array_shape(pair.depth)
    if len(shape) == 3 and frames not in (None, shape[0]):
        raise UserError(f"{pair.spikes}: holds {shape[0]} frames; the first sequence has {frames}")
    if len(shape) == 3 and len(depth) in (2, 3):
        _require_size(pair, shape[1:], depth[:2])
        if any(side < wanted for side, wanted in zip(shape[1:], size, strict=True)):
            raise UserError(
                f"{pair.spikes}: {shape[1]}x{shape[2]} pixels are fewer than the {size[0]}x{size[1]} of a crop; give a "
                "smaller --img-size"
            )
    return shape[0] if shape else 0


def _require_size(pair: Pair, spikes: Sequence[int], depth: Sequence[int]) -> None:
    if tuple(spikes) != tuple(depth):
        raise UserError(
            f"{pair.depth}: a depth map of {depth[0]}x{depth[1]} pixels; its spikes {pair.spikes.name} have "
            f"{spikes[0]}x{spikes[1]}"
        )


def flip(x: Tensor, flipped: bool) -> Tensor:
    """Return maps `(C, H, W)` resampled on their own pixels, mirrored or not, as the official augmentation does.

    Even unmirrored, values move by about 1e-6, and NaN spreads to the neighbours.
    """
    turn = torch.tensor([[[-1.0 if flipped else 1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    grid = F.affine_grid(turn, [1, *x.shape], align_corners=False)
    return F.grid_sample(x[None], grid, align_corners=False)[0]


def centre_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle of maps `(C, H, W)`; of two middles the one that is even, as in the official code."""
    top, left = (round((side - wanted) / 2) for side, wanted in zip(x.shape[1:], size, strict=True))
    return x[:, top : top + size[0], left : left + size[1]]


class DepthFrames(Dataset):
    """Samples `(spikes (C, h, w), Batch(depth=(1, h, w), index))`, the depth as labels and NaN where not known.

    Args:
        pairs: where they are from.
        reading: how they are read, and varied.
        frames: C, which every file has to have.
    """

    labelled = True

    def __init__(self, pairs: list[Pair], reading: Reading, frames: int):
        self.pairs, self.reading, self.frames = pairs, reading, frames

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Batch]:
        pair, how = self.pairs[index], self.reading
        spikes = torch.from_numpy(read_spikes(pair.spikes, normalize=how.normalize))
        depth = torch.from_numpy(read_depth(pair.depth))[None]
        if len(spikes) != self.frames:
            raise UserError(f"{pair.spikes}: holds {len(spikes)} frames; the first one of the set has {self.frames}")
        _require_size(pair, spikes.shape[1:], depth.shape[1:])
        label = to_label(depth, how.clip_distance, how.reg_factor)
        spikes, label = self._varied(spikes, label) if how.flip is not None else self._centred(pair, spikes, label)
        return spikes, Batch(depth=label, index=torch.tensor(index))

    def _varied(self, spikes: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Flip at random, and crop at random."""
        if self.reading.flip:
            flipped = torch.rand(()).item() < self.reading.flip
            spikes, label = flip(spikes, flipped), flip(label, flipped)
        height, width = self.reading.size
        free = spikes.shape[1] - height, spikes.shape[2] - width
        top, left = (int(torch.randint(room + 1, ())) for room in free)
        return tuple(one[:, top : top + height, left : left + width] for one in (spikes, label))

    def _centred(self, pair: Pair, spikes: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        spikes, label = (centre_crop(one, self.reading.size) for one in (spikes, label))
        if label.isnan().all():
            height, width = self.reading.size
            raise UserError(f"{pair.depth}: no depth is known in its middle of {height}x{width} pixels")
        return spikes, label

    def place(self, index: int) -> tuple[str, int, int]:
        """Return the sequence of a sample, the number of its depth map, and its place in the sequence."""
        pair = self.pairs[index]
        return pair.sequence, pair.number, pair.place


class StreamWindows(Dataset):
    """Windows of raw streams, as the samples of `DepthFrames`, the depth all NaN.

    Args:
        streams: the files.
        reading: how they are read.
        frames: of a window, C.
        stride: frames from one window to the next.

    Raises:
        UserError: for a file that is no such stream, is shorter than a window, or has smaller frames than the crop.
    """

    labelled = False

    def __init__(self, streams: list[Stream], reading: Reading, frames: int, stride: int):
        self.streams, self.reading, self.frames, self.stride = streams, reading, frames, stride
        counts = []
        for stream in streams:
            if (count := stream.count()) < frames:
                raise UserError(f"{stream.path}: has {count} frames, fewer than the {frames} of a window")
            if stream.height < reading.size[0] or stream.width < reading.size[1]:
                raise UserError(
                    f"{stream.path}: {stream.height}x{stream.width} pixels are fewer than the "
                    f"{reading.size[0]}x{reading.size[1]} of a crop; give a smaller --img-size"
                )
            counts.append((count - frames) // stride + 1)
        self.ends = list(accumulate(counts))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def _window(self, index: int) -> tuple[Stream, int]:
        """Return the stream of a window, and the window's place in it."""
        number = bisect_left(self.ends, index + 1)
        return self.streams[number], index - (self.ends[number - 1] if number else 0)

    def __getitem__(self, index: int) -> tuple[Tensor, Batch]:
        stream, place = self._window(index)
        spikes = torch.from_numpy(stream.read(place * self.stride, self.frames))
        spikes = centre_crop(spikes, self.reading.size)
        unknown = spikes.new_full((1, *self.reading.size), torch.nan)
        return spikes, Batch(depth=unknown, index=torch.tensor(index))

    def place(self, index: int) -> tuple[str, int, int]:
        """Return the name of a window's stream, its first frame, and its place in the stream."""
        stream, place = self._window(index)
        return stream.name, place * self.stride, place
