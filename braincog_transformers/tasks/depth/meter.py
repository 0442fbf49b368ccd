"""What an evaluation of depth measures and writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...files import write_text, write_whole
from ..task import Meter
from .frames import DepthFrames, StreamWindows
from .labels import to_metres
from .metrics import frame_figures
from .settings import DepthSettings

__all__ = ["DepthMeter"]


class DepthMeter(Meter):
    """The means over frames of `metrics.frame_figures`; of streams without labels the number of frames and their mean
    depth.

    Args:
        samples: the test set.
        settings: of the task.
    """

    def __init__(self, samples: DepthFrames | StreamWindows, settings: DepthSettings):
        self.samples, self.settings = samples, settings
        self.frames: dict[int, dict[str, float]] = {}
        self.maps: dict[int, np.ndarray] = {}
        self.means: dict[str, float] = {}

    def update(self, call: Callable[[Any], Any], x: Tensor, target: Any) -> None:
        """Add a batch."""
        ends = self.settings.clip_distance, self.settings.reg_factor
        predicted = to_metres(call(x).double(), *ends)[:, 0].cpu().numpy()
        truth = to_metres(target.depth.double(), *ends)[:, 0].cpu().numpy()
        for index, metres, known in zip(target.index.tolist(), predicted, truth, strict=True):
            if self.samples.place(index)[2] < self.settings.skip_first:
                continue
            self.frames[index] = (
                frame_figures(known, metres, self.settings.cutoffs)
                if self.samples.labelled
                else {"mean_depth": float(metres.mean())}
            )
            if index < self.settings.maps:
                self.maps[index] = metres.astype(np.float32)

    def compute(self, gather: Callable[[dict], list[dict]]) -> dict[str, float]:
        """Return the means; a figure below a cut-off is that of the frames with pixels that near."""
        parts = gather({"frames": self.frames, "maps": self.maps})
        self.frames = {index: figures for part in parts for index, figures in part["frames"].items()}
        self.maps = {index: metres for part in parts for index, metres in part["maps"].items()}
        names = dict.fromkeys(name for figures in self.frames.values() for name in figures)
        self.means = {
            name: float(np.mean([figures[name] for figures in self.frames.values() if name in figures]))
            for name in names
        }
        if not self.samples.labelled:
            self.means["frames"] = float(len(self.frames))
        return self.means

    def write(self, folder: Path) -> list[Path]:
        """Write the predicted maps as `depth/SEQUENCE/depth_0000000001.npy`, in metres as float32, and
        `depth_metrics.json` with the means and the figures of each frame."""
        rows = []
        for index in sorted(self.frames):
            sequence, number, _ = self.samples.place(index)
            rows.append({"sequence": sequence, "number": number, **self.frames[index]})
            if index in self.maps:
                place = folder / "depth" / sequence
                place.mkdir(parents=True, exist_ok=True)
                write_whole(place / f"depth_{number:010d}.npy", self._saver(index))
        path = folder / "depth_metrics.json"
        write_text(path, json.dumps({"means": self.means, "frames": rows}, indent=1))
        return [path, *([folder / "depth"] if self.maps else [])]

    def _saver(self, index: int) -> Callable[[Path], None]:
        def save(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, self.maps[index])

        return save
