"""Pictures with boxes, whatever files they come from; the rules for boxes; and their form for pycocotools."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UserError, listed, shown

__all__ = ["Annotations", "Boxes", "compare_categories", "gather", "left_out_or_refused"]

FEW = 1000
"""Of so many boxes, one that can't be used is left out with a line; more are refused. COCO's own files need that: 4 of
860,001 training boxes are empty."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one picture.

    Args:
        corner: (M, 4), x and y of the top left corner, width, height, in pixels of the picture.
        labels: (M,), places in `Annotations.categories`.
        crowd: (M,), whether a box holds a group, which is neither learnt nor counted.
        areas: (M,) in pixels, by which figures of small and large objects are chosen.
    """

    corner: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class Annotations:
    """All pictures of a split with their boxes, in a few arrays.

    Args:
        source: file that they come from, in messages.
        names: of the pictures.
        ids: (N,), numbers of the pictures in files of results.
        sizes: (N, 2), height and width.
        starts: (N + 1,), the boxes of picture i are those from `starts[i]` to `starts[i + 1]`.
        boxes: of all pictures.
        categories: number in files of results, and name, in the order of the labels.
    """

    source: str
    names: Sequence[str]
    ids: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    boxes: Boxes
    categories: tuple[tuple[int, str], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def most(self) -> int:
        """Boxes of the picture that has most of them, at least 1."""
        return max(1, int(np.diff(self.starts).max(initial=0)))

    def of(self, i: int) -> Boxes:
        """Return the boxes of one picture."""
        part = slice(self.starts[i], self.starts[i + 1])
        return Boxes(*(column[part] for column in vars(self.boxes).values()))

    def chosen(self, kept: np.ndarray) -> "Annotations":
        """Return the pictures of some places, in their order."""
        counts = np.diff(self.starts)[kept]
        starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(self.starts[:-1][kept] - starts[:-1], counts) + np.arange(starts[-1])
        return Annotations(
            self.source, [self.names[i] for i in kept], self.ids[kept], self.sizes[kept], starts,
            Boxes(*(column[places] for column in vars(self.boxes).values())), self.categories,
        )  # fmt: skip

    def places_with_box(self) -> np.ndarray:
        """Return the places of pictures with a box that can be learnt."""
        learnt = np.concatenate([[0], np.cumsum(~self.boxes.crowd)])
        return np.flatnonzero(np.diff(learnt[self.starts]) > 0)

    def without_box(self) -> list[str]:
        """Return the classes that no box has."""
        found = np.bincount(self.boxes.labels, minlength=len(self.categories))
        return [name for (_, name), count in zip(self.categories, found, strict=True) if not count]

    def truth(self, pictures: Sequence[int]) -> Any:
        """Return the boxes of some pictures as pycocotools' `COCO`."""
        from pycocotools.coco import COCO

        found, number = [], 0
        for i in pictures:
            boxes = self.of(i)
            for corner, label, crowd, area in zip(*vars(boxes).values(), strict=True):
                number += 1  # pycocotools takes the number 0 for none
                found.append(
                    {
                        "id": number, "image_id": int(self.ids[i]), "category_id": self.categories[label][0],
                        "bbox": corner.tolist(), "area": float(area), "iscrowd": int(crowd),
                    }
                )  # fmt: skip
        truth = COCO()
        truth.dataset = {
            "images": [{"id": int(self.ids[i])} for i in pictures],
            "annotations": found,
            "categories": [{"id": number, "name": name} for number, name in self.categories],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
        return truth


def gather(
    source: str, names: Sequence[str], ids: np.ndarray, sizes: np.ndarray, owners: np.ndarray, boxes: Boxes,
    categories: tuple[tuple[int, str], ...],
) -> Annotations:  # fmt: skip
    """Sort boxes by the place of the picture that they belong to, `owners` (M,), and return all as one."""
    order = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[order], np.arange(len(names) + 1))
    sorted_boxes = Boxes(*(column[order] for column in vars(boxes).values()))
    return Annotations(source, names, ids, sizes, starts, sorted_boxes, categories)


def left_out_or_refused(source: str, problems: Sequence[tuple[int, str]], count: int, *, skip: bool) -> list[str]:
    """Say which boxes are left out, in one line, or refuse them.

    Args:
        source: their file.
        problems: place and description of each box that can't be used.
        count: number of all boxes.
        skip: whether any number may be left out.

    Raises:
        UserError: for more than one in `FEW`, unless `skip`.
    """
    if not problems:
        return []
    first = f"{len(problems)} of {count} boxes can't be used, the first is {problems[0][1]}"
    if not skip and len(problems) * FEW > count:
        raise UserError(f"{source}: {first}; correct it, or leave them out with --task-kwargs skip_bad_boxes=True")
    return [f"{source}: {first}; left out"]


def compare_categories(train: Annotations, val: Annotations) -> None:
    """Refuse splits whose classes differ.

    Raises:
        UserError: naming the first ones.
    """
    if train.categories == val.categories:
        return
    here, there = ({f"{shown(name, 40)} ({number})" for number, name in one.categories} for one in (train, val))
    only = listed(sorted(here ^ there), 4)
    raise UserError(f"{val.source}: its classes are not those of {train.source}; only one of both has {only}")
