"""Runs the tracker over sequences and measures the boxes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...analysis.recorder import unwrap
from ...errors import UserError
from ...files import write_text
from ..task import Meter
from .files import Video
from .metrics import center_error, figures, overlap
from .tracker import Tracker

__all__ = ["TrackingMeter"]


class TrackingMeter(Meter):
    """Boxes of each sequence, and how well they follow the true ones.

    Args:
        **rules: of `Tracker`.
    """

    def __init__(self, **rules: float):
        self.rules = rules
        self.tracks: dict[str, dict[str, Any]] = {}

    def update(self, call: Callable[[Any], Any], x: Video, target: Any) -> None:
        """Track the object of a sequence."""
        boxes = []
        for box in Tracker(unwrap(call), **self.rules).run(x):
            # at once: the next region can't be cut around a box that is not finite
            if not torch.isfinite(box).all():
                raise UserError(f"{x.folder}: the tracker's boxes are not finite; the weights may be damaged")
            boxes.append(box.tolist())
        self.tracks[x.name] = {"boxes": boxes, "truth": x.boxes.tolist(), "size": tuple(x.size)}

    def compute(self, gather: Callable[[dict], list[dict]]) -> dict[str, float]:
        """Return the figures, see `metrics.figures`. The first frame, whose box is given, and those without the object
        don't count."""
        self.tracks = {name: track for part in gather(self.tracks) for name, track in part.items()}
        measured = [self._measured(track) for track in self.tracks.values()]
        measured = [parts for parts in measured if len(parts[0])]
        if not measured:
            raise UserError("--task track: no frame behind the first of a sequence has a box, so nothing can be scored")
        return figures(*map(list, zip(*measured, strict=True)))

    def _measured(self, track: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        boxes, truth = (np.array(track[name])[1:] for name in ("boxes", "truth"))
        seen = truth[:, 2:].min(1) > 0
        boxes, truth, (height, width) = boxes[seen], truth[seen], track["size"]
        errors = (center_error(boxes, truth, normalized=normalized) for normalized in (False, True))
        return overlap(boxes, truth, (width, height)), *errors

    def curves(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return overlaps and distances of each sequence that has any."""
        measured = map(self._measured, self.tracks.values())
        return [(overlaps, errors) for overlaps, errors, _ in measured if len(overlaps)]

    def write(self, folder: Path) -> list[Path]:
        """Write the boxes of each sequence as `tracks/NAME.txt`, and the figures of each as `tracks.json`.

        A line of boxes is x, y, w, h of a frame.
        """
        places, rows = folder / "tracks", {}
        places.mkdir(exist_ok=True)
        for name, track in self.tracks.items():
            lines = (",".join(f"{value:.4f}" for value in box) for box in track["boxes"])
            path = places / f"{name}.txt"  # a name may have folders, and none that lead out
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "\n".join(lines) + "\n")
            measured = self._measured(track)
            rows[name] = figures(*([one] for one in measured)) if len(measured[0]) else {}
        write_text(folder / "tracks.json", json.dumps(rows, indent=1))
        return [places, folder / "tracks.json"]
