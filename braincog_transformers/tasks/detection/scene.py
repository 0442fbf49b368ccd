"""A small set of shapes on a plain ground, written as PNG with COCO's JSON."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ...data.registry import TaskSet
from ..scenes import write_scene

__all__ = ["scene_folder"]

_SEED = 17
_COUNTS = {"train2017": 200, "val2017": 60}
_SIDES = (72, 97)
"""Sides of pictures, the second not included."""
_RADII = (8, 20)


def scene_folder(info: TaskSet, data_dir: Path) -> Path:
    """Return the scene's folder below `data_dir`, which is written where it isn't there, see `scenes.write_scene`."""
    return write_scene(data_dir / info.name, lambda folder: _write(folder, info.classes))


def _write(root: Path, classes: tuple[str, ...]) -> None:
    (root / "annotations").mkdir(parents=True)
    rng, number, box = np.random.default_rng(_SEED), 0, 0
    categories = [{"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(classes, start=1)]
    for part, count in _COUNTS.items():
        (root / part).mkdir()
        images, annotations = [], []
        for _ in range(count):
            number += 1
            picture, shapes = draw_scene(rng)
            name = f"{number:012d}.png"
            picture.save(root / part / name)
            images.append({"id": number, "file_name": name, "width": picture.width, "height": picture.height})
            for kind, outline in shapes:
                box += 1
                annotations.append({"id": box, "image_id": number, "category_id": kind + 1, **_described(outline)})
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = root / "annotations" / f"instances_{part}.json"
        path.write_text(json.dumps(content), encoding="utf-8")


def _described(outline: np.ndarray) -> dict:
    """Return polygon, box and area of an outline (N, 2), as COCO's JSON has them."""
    low, high = outline.min(0), outline.max(0)
    x, y = outline.T
    area = abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
    box = [round(float(side), 2) for side in (*low, *(high - low))]
    return {"segmentation": [outline.round(2).ravel().tolist()], "bbox": box, "area": round(area, 2), "iscrowd": 0}


def draw_scene(rng: np.random.Generator) -> tuple[Image.Image, list[tuple[int, np.ndarray]]]:
    """Return a picture of one to three shapes that don't touch, and the kind and the outline (N, 2) of each.

    A disc is 0, a square 1, a triangle 2; colours say nothing about the kind.
    """
    width, height = (int(side) for side in rng.integers(*_SIDES, size=2))
    ground = rng.integers(40, 216, size=3)
    picture = Image.new("RGB", (width, height), tuple(ground.tolist()))
    drawn, shapes = ImageDraw.Draw(picture), []
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(1, 4))):
        kind, radius = int(rng.integers(3)), float(rng.uniform(*_RADII))
        x, y = rng.uniform(radius + 1, width - radius - 1), rng.uniform(radius + 1, height - radius - 1)
        if any(np.hypot(x - a, y - b) < radius + r + 2 for a, b, r in taken):
            continue
        taken.append((x, y, radius))
        colour = rng.integers(0, 256, size=3)
        while abs(colour - ground).max() < 80:
            colour = rng.integers(0, 256, size=3)
        corners = (32, 4, 3)[kind]
        turn = (0, np.pi / 4, -np.pi / 2)[kind] + rng.uniform(-0.2, 0.2)
        angles = turn + 2 * np.pi * np.arange(corners) / corners
        outline = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
        drawn.polygon([tuple(point) for point in outline.tolist()], fill=tuple(colour.tolist()))
        shapes.append((kind, outline))  # Pillow fills half a pixel more on each side
    noise = rng.normal(0, 4, size=(height, width, 3)).round(-1)  # few values, so that a PNG is small
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)), shapes
