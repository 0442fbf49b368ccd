"""A small set of shapes on a plain ground, written in VOC's layout."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ...data.registry import TaskSet
from ..scenes import write_scene
from .masks import VOID, mask_picture

__all__ = ["scene_folder"]

_SEED = 17
_COLOURS = np.array([(190, 90, 80), (90, 165, 90), (90, 105, 190)])
"""Of discs, squares and triangles, which vary; a network that also sees their forms is still better."""
_SIDES = (64, 89)
"""Sides of pictures, the second not included."""


def scene_folder(info: TaskSet, data_dir: Path) -> Path:
    """Return the scene's folder VOC2012 below `data_dir`, which is written where it isn't there, see `write_scene`."""
    inside, parts = Path("VOCdevkit", "VOC2012"), dict(zip(("train", "val"), info.samples, strict=True))
    return write_scene(data_dir / info.name, lambda folder: _write(folder / inside, parts)) / inside


def _write(root: Path, parts: dict[str, int]) -> None:
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    rng, number = np.random.default_rng(_SEED), 0
    for part, count in parts.items():
        names = [f"{number + i:06d}" for i in range(count)]
        for name in names:
            picture, numbers = draw_scene(rng)
            picture.save(root / "JPEGImages" / f"{name}.jpg", quality=92)
            mask_picture(numbers).save(root / "SegmentationClass" / f"{name}.png")
        number += count
        (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def draw_scene(rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """Return a picture of one to three shapes, and its numbers (H, W).

    The ground is 0, a disc 1, a square 2, a triangle 3, and the outline of a shape, one pixel wide, is void as in VOC.
    Shapes have colours about those of their class, the ground is nearly grey.
    """
    width, height = (int(side) for side in rng.integers(*_SIDES, size=2))
    ground = rng.integers(50, 201) + rng.integers(-15, 16, size=3)
    picture, mask = Image.new("RGB", (width, height), tuple(ground.tolist())), Image.new("L", (width, height))
    drawn, labelled = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(1, 4))):
        kind, radius = int(rng.integers(1, 4)), float(rng.uniform(10, 20))
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        colour = tuple((_COLOURS[kind - 1] + rng.integers(-50, 51, size=3)).tolist())
        if kind == 1:
            box = (x - radius, y - radius, x + radius, y + radius)
            drawn.ellipse(box, fill=colour)
            labelled.ellipse(box, fill=kind, outline=VOID)
            continue
        corners, turn = (4, rng.uniform(-0.2, 0.2)) if kind == 2 else (3, rng.uniform(-0.3, 0.3))
        angles = turn + 2 * np.pi * np.arange(corners) / corners + (np.pi / 4 if kind == 2 else -np.pi / 2)
        points = [(x + radius * np.cos(angle), y + radius * np.sin(angle)) for angle in angles]
        drawn.polygon(points, fill=colour)
        labelled.polygon(points, fill=kind, outline=VOID)
    noise = rng.normal(0, 4, size=(height, width, 3))
    shown = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(shown), np.asarray(mask)
