"""The options of depth estimation."""

import math
from dataclasses import dataclass
from typing import Literal

from ...errors import UserError
from ..task import TaskSettings
from .labels import CLIP_DISTANCE, REG_FACTOR
from .metrics import CUTOFFS

__all__ = ["DepthSettings"]


@dataclass(frozen=True, kw_only=True)
class DepthSettings(TaskSettings):
    """The defaults are those of the official code.

    Args:
        spikes: folder of the spike tensors below that of a sequence; by default the only one `spike/r*`.
        scored: part of the set that is scored: test, or validation, by which the published run chose its network.
        normalize: accept spike tensors with other values than 0 and 1, and normalise them, see `files.read_spikes`.
        clip_distance, reg_factor: of the labels, see `labels.to_label`.
        si_lambda, grad_weight: of the loss, see `losses`.
        cutoffs: metres, see `metrics`.
        skip_first: frames at the start of each sequence that are neither scored nor written. The official test leaves
            out 2, for networks with a state, which this one doesn't have.
        maps: test frames, from the first one on, whose predicted depth is written.
        height, width: of the frames of a raw stream, in pixels.
        frames: of a window of a raw stream.
        stride: frames from one window of a raw stream to the next.
    """

    spikes: str = ""
    scored: Literal["test", "validation"] = "test"
    normalize: bool = False
    clip_distance: float = CLIP_DISTANCE
    reg_factor: float = REG_FACTOR
    si_lambda: float = 1.0
    grad_weight: float = 0.25
    cutoffs: tuple[int, ...] = CUTOFFS
    skip_first: int = 0
    maps: int = 100
    height: int = 250
    width: int = 400
    frames: int = 128
    stride: int = 128

    def __post_init__(self) -> None:
        for name in ("clip_distance", "reg_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name}: needs a number above 0; got {getattr(self, name)}")
        for name in ("si_lambda", "grad_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}: needs a number from 0 on; got {getattr(self, name)}")
        for name, least in {"skip_first": 0, "maps": 0, "height": 1, "width": 1, "frames": 1, "stride": 1}.items():
            if not least <= getattr(self, name) <= 2**20:
                raise UserError(f"{name}: needs a whole number from {least} to {2**20}; got {getattr(self, name)}")
        if self.height * self.width % 8:
            raise UserError(f"height, width: a frame fills whole bytes; {self.height}x{self.width} bits don't")
        if any(one < 1 for one in self.cutoffs) or len(set(self.cutoffs)) < len(self.cutoffs):
            raise UserError(f"cutoffs: needs different metres from 1 on; got {self.cutoffs}")
        if ".." in self.spikes.split("/") or self.spikes.startswith("/"):
            raise UserError(f"spikes: needs a folder below that of a sequence; got {self.spikes}")
