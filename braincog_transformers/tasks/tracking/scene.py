"""A small scene to track in: two textured patterns before an event camera, of which the larger is followed."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..scenes import write_scene
from .files import SUB_FRAMES, event_frames, write_sequence

__all__ = ["make_scene"]

_SEED = 20
_HEIGHT, _WIDTH = 120, 160
_PARTS = {"train": (10, 16), "test": (3, 30)}
"""Sequences and frames of each part."""
_FINER = 2
"""Pictures within a sub-frame, between which events arise."""
_INTERVAL = 25_000
"""Microseconds from frame to frame."""
_PERIOD = 30
"""Frames of a slow turn of a pattern's path."""
_CONTRAST = 0.25
"""Change of the logarithm of the brightness that makes an event."""
_NOISE = 2e-4
"""Share of the pixels with an event of their own between two pictures."""
_EVENT = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "<i1")])


def _texture(height: int, width: int, kind: int) -> np.ndarray:
    """Return a pattern: stripes (0) or spots (1)."""
    y, x = np.mgrid[:height, :width]
    if kind:
        return 0.2 + 1.6 * (np.hypot(x % 8 - 4, y % 8 - 4) < 2.6)
    return 0.2 + 1.6 * ((x + y) // 4 % 2)


def _path(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Return the top left corner of a pattern at each picture `(count, 2)`: a slow curve that stays in the picture."""
    times = np.arange(count) / (SUB_FRAMES * _FINER * _PERIOD)
    room = np.array([_WIDTH - width, _HEIGHT - height]) / 2
    waves = rng.uniform(0.6, 1.1, 2), rng.uniform(0, 2 * np.pi, 2)
    return room * (1 + 0.9 * np.sin(2 * np.pi * times[:, None] * waves[0] + waves[1]))


def _pasted(picture: np.ndarray, pattern: np.ndarray, corner: np.ndarray) -> None:
    column, row = np.round(corner).astype(int)
    picture[row : row + pattern.shape[0], column : column + pattern.shape[1]] = pattern


def _events(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the events between pictures `(P, H, W)`; each pixel keeps the brightness of its last event."""
    bright, found = np.log(pictures), []
    last, step = bright[0].copy(), _INTERVAL / (SUB_FRAMES * _FINER)
    for number, now in enumerate(bright[1:]):
        fired, noise = np.abs(now - last) >= _CONTRAST, rng.random(now.shape) < _NOISE
        signs = np.where(fired, now > last, rng.random(now.shape) < 0.5)
        last[fired] = now[fired]
        y, x = np.nonzero(fired | noise)
        events = np.zeros(len(x), _EVENT)
        events["x"], events["y"], events["p"] = x, y, signs[y, x]
        events["t"] = (number + rng.random(len(x))) * step
        found.append(events)
    return np.concatenate(found)


def _write_sequence(root: Path, part: str, name: str, count: int, rng: np.random.Generator) -> None:
    height, width = rng.integers(26, 37, 2)
    kind = int(rng.integers(2))
    patterns = [_texture(height, width, kind), _texture(20, 20, 1 - kind)]
    pictures = count * SUB_FRAMES * _FINER + 1
    paths = [_path(rng, pictures, *pattern.shape) for pattern in patterns]
    ground = rng.uniform(0.8, 1.0, (_HEIGHT, _WIDTH))
    drawn = np.repeat(ground[None], pictures, axis=0)
    for picture, *corners in zip(drawn, *paths, strict=True):
        for pattern, corner in zip(patterns[::-1], corners[::-1], strict=True):  # what is followed lies in front
            _pasted(picture, pattern, corner)
    borders = np.arange(count + 1) * _INTERVAL
    # a frame's box is where the pattern is at the frame's end
    corners = paths[0][SUB_FRAMES * _FINER :: SUB_FRAMES * _FINER]
    boxes = np.concatenate([corners, np.broadcast_to([width, height], corners.shape)], axis=1)
    write_sequence(root, part, name, event_frames(_events(drawn, rng), borders, _HEIGHT, _WIDTH), boxes)


def make_scene(root: Path) -> None:
    """Write the scene into `root`, in the layout of `files`, unless it is there; see `scenes.write_scene`."""
    write_scene(root, _write)


def _write(root: Path) -> None:
    for number, (part, (count, frames)) in enumerate(_PARTS.items()):
        names = [f"pattern_{part}_{place:02d}" for place in range(1, count + 1)]
        for place, name in enumerate(tqdm(names, f"track_scene, {part}", mininterval=0.5)):
            _write_sequence(root, part, name, frames, np.random.default_rng((_SEED, number, place)))
        (root / "img_120_split" / part / "list.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
