"""A generated scene for depth: planes at known depth, seen by a spike camera that moves past them.

Each plane has a texture of fixed grain in metres, so what is near is coarse and moves fast; haze takes contrast and
adds light with the distance. A pixel adds up the light and fires at the threshold, as a spike camera's does (Zhang et
al., ECCV 2022, section on spike generation). The files are those of the real set, with 32 frames in a tensor.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..scenes import write_scene

__all__ = ["integrate_and_fire", "make_scene", "render"]

HEIGHT, WIDTH, FRAMES = 52, 60, 32
PARTS = {"train": 12, "validation": 1, "test": 4}
TENSORS = 4
"""In a sequence; the first one is skipped by the reader."""
_SEED, _RATE = 0, 40_000.0
_FOCAL, _SPEED = 60.0, 0.02
_HAZE, _LIGHT, _THRESHOLD = 40.0, 0.95, 2.0
_GRAIN, _GRID = 0.6, 64


def integrate_and_fire(light: np.ndarray, threshold: float, charge: np.ndarray | None = None) -> np.ndarray:
    """Return the spikes of pixels that add up light: `a += I; s = a >= threshold; a -= threshold * s`.

    Args:
        light: intensities `(T, H, W)`.
        threshold: of the charge.
        charge: before the first frame, `(H, W)`; by default 0.

    Returns:
        0 and 1 as bytes, `(T, H, W)`.
    """
    charge = np.zeros(light.shape[1:]) if charge is None else charge.astype(float)
    spikes = np.empty(light.shape, np.uint8)
    for frame, intensity in enumerate(light):
        charge += intensity
        spikes[frame] = charge >= threshold
        charge -= threshold * spikes[frame]
    return spikes


def render(
    planes: np.ndarray, textures: np.ndarray, frame: float, height: int = HEIGHT, width: int = WIDTH
) -> tuple[np.ndarray, np.ndarray]:
    """Return light and depth of one frame, each `(H, W)`.

    Args:
        planes: a row for each, the last in front of the others: depth, left, right, top, bottom, in metres.
        textures: brightness of each plane on a grid that repeats, `(planes, grid, grid)`, from 0 to 1.
        frame: number of the frame; the camera moves to the right.
    """
    rows, columns = np.mgrid[:height, :width] + 0.5
    light, depth = np.zeros((height, width)), np.full((height, width), np.nan)
    for (distance, left, right, top, bottom), texture in zip(planes, textures, strict=True):
        x = (columns - width / 2) * distance / _FOCAL + _SPEED * frame
        y = (rows - height / 2) * distance / _FOCAL
        seen = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        clear = np.exp(-distance / _HAZE)
        light[seen] = (_bilinear(texture, y / _GRAIN, x / _GRAIN) * clear + _LIGHT * (1 - clear))[seen]
        depth[seen] = distance
    return light, depth


def _bilinear(grid: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return values of a grid that repeats, between its places."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    side = len(grid)
    corners = [[grid[(top + i) % side, (left + j) % side] for j in (0, 1)] for i in (0, 1)]
    lines = [line[0] * (1 - right) + line[1] * right for line in corners]
    return lines[0] * (1 - down) + lines[1] * down


def _planes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a far wall and four to six signs in front of it."""
    planes = [(rng.uniform(80, 120), -np.inf, np.inf, -np.inf, np.inf)]
    for distance in sorted(np.exp(rng.uniform(np.log(5), np.log(60), rng.integers(4, 7))), reverse=True):
        across, down = rng.uniform(0.2, 0.5, 2) * (WIDTH, HEIGHT) * distance / _FOCAL
        x, y = rng.uniform(-0.45, 0.45, 2) * (WIDTH, HEIGHT) * distance / _FOCAL
        planes.append((distance, x - across / 2, x + across / 2, y - down / 2, y + down / 2))
    return np.array(planes), rng.uniform(0, 1, (len(planes), _GRID, _GRID))


def _write_sequence(folder: Path, rng: np.random.Generator) -> None:
    planes, textures = _planes(rng)
    spikes, depths = folder / "spike" / f"r{FRAMES}", folder / "depth" / "data"
    spikes.mkdir(parents=True)
    depths.mkdir(parents=True)
    frames = [render(planes, textures, frame) for frame in range(TENSORS * FRAMES)]
    light = np.stack([one for one, _ in frames])
    fired = integrate_and_fire(light, _THRESHOLD, rng.uniform(0, _THRESHOLD, light.shape[1:]))
    times = []
    for number in range(TENSORS):
        end = (number + 1) * FRAMES
        np.save(spikes / f"spike_{number:010d}.npy", fired[end - FRAMES : end])
        np.save(depths / f"depth_{number:010d}.npy", frames[end - 1][1].astype(np.float32))
        times.append(f"{number} {end / _RATE:.9f}\n")
    for place in (spikes, depths):
        (place / "timestamps.txt").write_text("".join(times), encoding="utf-8")


def make_scene(folder: Path) -> None:
    """Write the scene into `folder`, unless it is there, see `scenes.write_scene`."""
    write_scene(folder, _write)


def _write(folder: Path) -> None:
    names = [(part, number) for part, count in PARTS.items() for number in range(count)]
    for seed, (part, number) in enumerate(tqdm(names, "planes of depth_scene", unit="sequence", mininterval=0.5)):
        _write_sequence(folder / part / f"sequence_{number:02d}", np.random.default_rng((_SEED, seed)))
