"""Figures of COCO: average precision over thresholds of overlap, by pycocotools."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...files import write_text
from ...runtime.batch import Batch
from ..task import Call, Meter
from .annotations import Annotations

__all__ = ["DetectionMeter", "on_picture"]

_FIGURES = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
"""In the order of `COCOeval.stats`; in percent."""
_AREAS = {"map_small": (0, 32**2), "map_medium": (32**2, 96**2), "map_large": (96**2, 1e10)}


def on_picture(found: dict[str, Tensor], scale: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return a detector's boxes in the pixels of the picture, cut off at its edges: `(N, 4)` as x, y, width and height,
    with scores and labels; boxes of which nothing is left are dropped.

    Args:
        found: boxes on the canvas, scores and labels.
        scale: from the picture to the canvas, vertical and horizontal.
        size: height and width of the picture.
    """
    corners = found["boxes"].float().cpu().numpy().astype(np.float64) / np.tile(scale[::-1], 2)
    corners = np.clip(corners, 0, np.tile(size[::-1], 2))
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    left = (boxes[:, 2:] > 0).all(1)
    scores, labels = found["scores"].float().cpu().numpy(), found["labels"].cpu().numpy()
    return boxes[left], scores[left].astype(np.float64), labels[left]


class DetectionMeter(Meter):
    """COCO's mean average precision in percent: `map` over overlaps of 0.5 to 0.95, `map50`, `map75`, and those of
    small, medium and large objects, if there are such.

    Args:
        annotations: of the test set.
        threshold: least score of a box that is written; figures use all that the detector returns, those above 0.05.
        named: write the name of each picture, too, since its number is one of ours.
    """

    def __init__(self, annotations: Annotations, threshold: float, *, named: bool = False):
        self.annotations, self.threshold, self.named = annotations, threshold, named
        self._found: dict[int, list[np.ndarray]] = {}

    def update(self, call: Call, x: Tensor, target: Batch) -> None:
        places, scales = target.image.tolist(), target.scale.double().cpu().numpy()
        for place, scale, found in zip(places, scales, call(x), strict=True):
            self._found[place] = list(on_picture(found, scale, self.annotations.sizes[place]))

    def compute(self, gather: Callable[[dict], list[dict]]) -> dict[str, float]:
        """Return the figures; a sample that two ranks have seen counts once."""
        self._found = {place: found for part in gather(self._found) for place, found in part.items()}
        places = sorted(self._found)
        truth = self.annotations.truth(places)
        names = self._names(places)
        results = [
            {key: one[key] for key in ("image_id", "category_id", "bbox", "score")} for one in self._results(places)
        ]
        if not results:
            return dict.fromkeys(names, 0.0)
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):  # it prints a table
            evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
            evaluation.params.imgIds = [int(self.annotations.ids[place]) for place in places]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        stats = dict(zip(_FIGURES, evaluation.stats[: len(_FIGURES)].tolist(), strict=True))
        return {name: 100 * stats[name] for name in names}

    def _names(self, places: list[int]) -> list[str]:
        """Return the figures that there are; no small object, no figure of small ones."""
        counted = [boxes.areas[~boxes.crowd] for boxes in map(self.annotations.of, places)]
        areas = np.concatenate(counted) if counted else np.zeros(0)
        return [
            name for name in _FIGURES
            if name not in _AREAS or ((areas >= _AREAS[name][0]) & (areas <= _AREAS[name][1])).any()
        ]  # fmt: skip

    def _results(self, places: list[int], threshold: float = 0.0) -> list[dict[str, Any]]:
        """Return boxes in COCO's format of results."""
        annotations, results = self.annotations, []
        for place in places:
            picture = {"image_id": int(annotations.ids[place])}
            if self.named:
                picture["image"] = annotations.names[place]
            for box, score, label in zip(*self._found[place], strict=True):
                if score >= threshold:
                    category = annotations.categories[int(label)][0]
                    results.append({**picture, "category_id": category, "bbox": box.tolist(), "score": float(score)})
        return results

    def write(self, folder: Path) -> list[Path]:
        """Write `predictions.json` in COCO's format of results."""
        rounded = [
            {**one, "bbox": [round(side, 2) for side in one["bbox"]], "score": round(one["score"], 5)}
            for one in self._results(sorted(self._found), self.threshold)
        ]
        write_text(folder / "predictions.json", json.dumps(rounded))
        return [folder / "predictions.json"]
