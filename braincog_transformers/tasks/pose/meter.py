"""What an evaluation of poses measures and writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import NonFiniteLoss
from ...runtime.batch import Batch
from ..task import Meter
from .clips import PoseClips
from .metrics import figures

__all__ = ["PoseMeter"]

_WRITTEN = ("joints3d", "rotations", "trans", "beta")


class PoseMeter(Meter):
    """Errors of joints in mm, and shares of right joints in percent, over all poses of all clips; see `metrics`.

    Args:
        clips: the test set, which knows the names of its clips.
    """

    def __init__(self, clips: PoseClips):
        self.clips = clips
        self.found: dict[int, dict[str, np.ndarray]] = {}

    def update(self, call: Callable[[Any], Batch], x: Any, target: Batch) -> None:
        """Add a batch of clips."""
        output = call(x)
        arrays = {name: output[name].float().cpu().numpy() for name in _WRITTEN}
        arrays["truth"] = target.joints3d.float().cpu().numpy()
        for place, index in enumerate(target.clip.tolist()):
            self.found[index] = {name: array[place] for name, array in arrays.items()}

    def compute(self, gather: Callable[[dict], list[dict]]) -> dict[str, float]:
        """Return the figures by name, of each clip once, whichever ranks saw it.

        Raises:
            NonFiniteLoss: for predicted joints that are not finite.
        """
        parts = gather(self.found)
        self.found = {index: clip for part in parts for index, clip in part.items()}
        pred, truth = (np.stack([clip[name] for clip in self.found.values()]) for name in ("joints3d", "truth"))
        if not np.isfinite(pred).all():
            raise NonFiniteLoss("predicted joints are not finite, though the inputs are: activations overflow")
        return figures(torch.from_numpy(pred), torch.from_numpy(truth))

    def write(self, folder: Path) -> list[Path]:
        """Write the predicted joints3d, rotations, trans and beta of each clip, and the numbers of its `frames`.

        Returns:
            The folder of the files: ACTION_FRAME.npz, FRAME the clip's first.
        """
        target = folder / "poses"
        target.mkdir(exist_ok=True)
        for index, clip in sorted(self.found.items()):
            name = self.clips.clips[index].action.name.replace("/", "-")
            frames = self.clips.frames(index, self.clips.gaps[0])
            arrays = {name: clip[name] for name in _WRITTEN}
            np.savez(target / f"{name}_{frames[0]:04d}.npz", frames=np.array(frames), **arrays)
        return [target]
