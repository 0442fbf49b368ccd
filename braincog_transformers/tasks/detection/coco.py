"""Annotations in COCO's JSON: everything is checked before it is used, and each mistake is one line with the file.

Source: https://cocodataset.org/#format-data, object detection.
"""

import json
import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...data.formats.opening import named
from ...data.loading.folders import MissingData
from ...errors import UserError, listed, quoted, shown
from .annotations import Annotations, Boxes, gather, left_out_or_refused

__all__ = ["read_coco", "require_pictures"]

TOLERANCE = 2.0
"""Pixels by which a box may reach out of its picture: coordinates are rounded. It is cut off there in training."""
_LARGEST_SIDE = 1 << 16
_LARGEST_NUMBER = 1 << 53


def read_coco(path: Path, *, skip_bad_boxes: bool = False) -> tuple[Annotations, list[str]]:
    """Read a file of annotations.

    Args:
        path: of the JSON.
        skip_bad_boxes: leave out boxes that are empty or reach out of their picture, however many they are.

    Returns:
        The annotations, and a line about boxes that were left out, if there are any.

    Raises:
        UserError: for a file that is missing, no such JSON, or contradicts itself.
    """
    with named(path):
        content = _parsed(path)
        images, notes, categories = (_entries(content, name) for name in ("images", "annotations", "categories"))
        ids, names, sizes = _images(images)
        known = _categories(categories)
        owners, boxes, problems = _boxes(notes, ids, sizes, {number: i for i, (number, _) in enumerate(known)})
    lines = left_out_or_refused(str(path), problems, len(notes), skip=skip_bad_boxes)
    if problems:
        kept = np.ones(len(notes), bool)
        kept[[place for place, _ in problems]] = False
        owners, boxes = owners[kept], Boxes(*(column[kept] for column in vars(boxes).values()))
    if not len(owners):
        raise UserError(f"{path}: holds no box, so there is nothing to learn or to compare with")
    return gather(str(path), names, ids, sizes, owners, boxes, known), lines


def require_pictures(folder: Path, annotations: Annotations) -> None:
    """Refuse annotations of pictures that are not there.

    Raises:
        MissingData: naming the first ones.
    """
    by_folder: dict[str, set[str]] = {}
    missing = []
    for name in annotations.names:
        below, _, file = name.rpartition("/")
        if below not in by_folder:
            place = folder / below
            by_folder[below] = set(os.listdir(place)) if place.is_dir() else set()
        if file not in by_folder[below]:
            missing.append(name)
    if missing:
        raise MissingData(
            f"{annotations.source}: {len(missing)} of its {len(annotations)} pictures are not in {folder}: "
            f"{listed([shown(name, 80) for name in missing], 2)}; complete the folder, or name another one with "
            "--task-kwargs images=FOLDER"
        )


def _parsed(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(
            "there is no such file; --task-kwargs train_json=FILE val_json=FILE name others, below the set's folder"
        )
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError("is no text in UTF-8, as JSON is; fetch it anew") from None
    except RecursionError:
        raise UserError("nests lists too deeply for annotations; fetch it anew") from None
    except ValueError as error:
        raise UserError(f"is no complete JSON ({shown(error, 100)}); fetch it anew") from None
    if type(content) is not dict:
        raise UserError(f"must be a JSON object with images, annotations and categories; got {quoted(content, 60)}")
    return content


def _entries(content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = content.get(name)
    if type(found) is not list or not all(type(one) is dict for one in found):
        raise UserError(f"needs a list of objects under {name!r}, as COCO's JSON has it; got {quoted(found, 60)}")
    if not found:
        raise UserError(f"its list of {name} is empty")
    return found


def _numbers(entries: list[dict[str, Any]], kind: str, key: str, *, low: int = 0, high: int = _LARGEST_NUMBER) -> Any:
    """Return (N,): a whole number of each entry."""
    values = [one.get(key) for one in entries]
    for i, value in enumerate(values):
        if type(value) is float and value.is_integer():
            value = values[i] = int(value)
        if type(value) is not int or not low <= value <= high:
            raise UserError(
                f"{kind} {i}: its {key} must be a whole number from {low} to {high}; got {quoted(value, 40)}"
            )
    return np.array(values, np.int64)


def _unique(numbers: np.ndarray, kind: str) -> None:
    values, counts = np.unique(numbers, return_counts=True)
    if (twice := values[counts > 1]).size:
        raise UserError(
            f"{twice.size} {kind} share their id with another one, the first is {twice[0]}; ids must differ"
        )


def _images(images: list[dict[str, Any]]) -> tuple[np.ndarray, list[str], np.ndarray]:
    ids = _numbers(images, "images", "id")
    _unique(ids, "images")
    sides = [_numbers(images, "images", side, low=1, high=_LARGEST_SIDE) for side in ("height", "width")]
    names = []
    for i, one in enumerate(images):
        name = one.get("file_name")
        if type(name) is not str or not name or "\0" in name:
            raise UserError(f"images {i}: its file_name must be a text; got {quoted(name, 60)}")
        name = name.replace("\\", "/")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"images {i}: its file_name {quoted(name, 60)} leads out of the folder of pictures")
        names.append(name)
    return ids, names, np.stack(sides, 1)


def _categories(categories: list[dict[str, Any]]) -> tuple[tuple[int, str], ...]:
    ids = _numbers(categories, "categories", "id")
    _unique(ids, "categories")
    names = [one.get("name") for one in categories]
    for i, name in enumerate(names):
        if type(name) is not str or not name.strip():
            raise UserError(f"categories {i}: its name must be a text; got {quoted(name, 60)}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"two categories are called {quoted(twice[0], 60)}; names must differ")
    return tuple(sorted(zip(ids.tolist(), names, strict=True)))


def _boxes(
    notes: list[dict[str, Any]], ids: np.ndarray, sizes: np.ndarray, labels: dict[int, int]
) -> tuple[np.ndarray, Boxes, list[tuple[int, str]]]:
    """Return the place of the picture of each box, the boxes, and what is wrong with some."""
    _unique(_numbers(notes, "annotations", "id"), "annotations")
    numbers, of_class = _numbers(notes, "annotations", "image_id"), _numbers(notes, "annotations", "category_id")
    place = {number: i for i, number in enumerate(ids.tolist())}
    for i, (picture, category) in enumerate(zip(numbers.tolist(), of_class.tolist(), strict=True)):
        if picture not in place:
            raise UserError(f"{_called(notes, i)}: its image_id {picture} is the id of no image")
        if category not in labels:
            raise UserError(f"{_called(notes, i)}: its category_id {category} is the id of no category")
    owners = np.array([place[number] for number in numbers.tolist()], np.int64)
    corner = np.empty((len(notes), 4))
    for i, one in enumerate(notes):
        box = one.get("bbox")
        if type(box) is not list or len(box) != 4 or not all(type(side) in (int, float) for side in box):
            raise UserError(f"{_called(notes, i)}: its bbox must be [x, y, width, height]; got {quoted(box, 60)}")
        corner[i] = [float(side) if abs(side) < _LARGEST_NUMBER else np.inf for side in box]
    if not (finite := np.isfinite(corner).all(1)).all():
        first = int(finite.argmin())
        raise UserError(f"{_called(notes, first)}: its bbox {quoted(notes[first]['bbox'], 60)} is not finite")
    empty = (corner[:, 2:] <= 0).any(1)
    limits = sizes[owners][:, ::-1]  # width, height
    outside = (corner[:, :2] < -TOLERANCE).any(1) | (corner[:, :2] + corner[:, 2:] > limits + TOLERANCE).any(1)
    outside |= (corner[:, :2] >= limits).any(1) | (corner[:, :2] + corner[:, 2:] <= 0).any(1)
    problems = []
    for i in np.flatnonzero(empty | outside).tolist():
        width, height = limits[i]
        what = "is empty" if empty[i] else f"reaches out of its picture of {width} x {height} pixels"
        problems.append((i, f"that of {_called(notes, i)}, whose bbox {corner[i].tolist()} {what}"))
    areas = [one.get("area") for one in notes]
    sides = corner[:, 2] * corner[:, 3]
    usable = [type(area) in (int, float) and 0 <= area < _LARGEST_NUMBER for area in areas]
    areas = np.array([area if good else side for area, good, side in zip(areas, usable, sides, strict=True)], float)
    crowd = np.array([one.get("iscrowd") in (1, True) for one in notes], bool)
    by_class = np.array([labels[number] for number in of_class.tolist()], np.int64)
    return owners, Boxes(corner, by_class, crowd, areas), problems


def _called(notes: list[dict[str, Any]], i: int) -> str:
    return f"annotation {quoted(notes[i].get('id'), 24)} of image {quoted(notes[i].get('image_id'), 24)}"
