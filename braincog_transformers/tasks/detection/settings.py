"""The options of detection in --task-kwargs."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from ...errors import UserError, quoted
from ..task import TaskSettings

__all__ = ["OF_LAYOUT", "DetectionSettings"]

_LARGEST = 16_384
OF_LAYOUT = {
    "coco": ("train_json", "val_json", "images", "keep_empty"),
    "gen1": ("test_split", "window_us", "skip_us", "min_side", "min_diagonal"),
}
"""Options that only sets of one layout have."""


@dataclass(frozen=True, kw_only=True)
class DetectionSettings(TaskSettings):
    """Say how pictures are varied and read, and what the detector is built of.

    Args:
        size: (H, W) of a sample, where --img-size (of events --event-size), which is square, won't do.
        jitter: smallest and largest factor by which a training picture is enlarged beyond what fits; what is then too
            large is cropped at random. (0.1, 2.0) is large-scale jitter.
        channels: of the feature pyramid and the heads.
        box_channels: of the two layers that read a region (fasterrcnn).
        first_stride: of the finest level (default: 8 for retinanet, 4 for fasterrcnn).
        anchor_scale: side of a level's anchors over its stride (default: 4 and 8, as in torchvision).
        skip_bad_boxes: leave out boxes that are empty or outside, however many; without it one in a thousand may be.
        train_json, val_json: annotations, below the set's folder; COCO's names by default.
        images: folder of all pictures, below the set's folder; `train2017` and `val2017` by default.
        keep_empty: train on pictures without a box, too.
        test_split: of Gen1, which folder figures come from.
        window_us: microseconds of events in front of a labelled moment.
        skip_us: boxes up to this time of a recording are skipped, as Prophesee's toolbox does.
        min_side, min_diagonal: smallest box in pixels, of the toolbox, too.

    Raises:
        UserError: for a value out of range.
    """

    size: tuple[int, int] | None = None
    jitter: tuple[float, float] = (1.0, 1.0)
    channels: int = 256
    box_channels: int = 1024
    first_stride: int | None = None
    anchor_scale: float | None = None
    skip_bad_boxes: bool = False
    train_json: str = "annotations/instances_train2017.json"
    val_json: str = "annotations/instances_val2017.json"
    images: str = ""
    keep_empty: bool = False
    test_split: Literal["test", "val"] = "test"
    window_us: int = 50_000
    skip_us: int = 500_000
    min_side: float = 10.0
    min_diagonal: float = 30.0

    def __post_init__(self) -> None:
        scale, stride = self.anchor_scale, self.first_stride
        rules = (
            ("size", self.size is None or all(1 <= side <= _LARGEST for side in self.size),
             f"height and width from 1 to {_LARGEST}"),
            ("jitter", all(map(isfinite, self.jitter)) and 0.05 <= self.jitter[0] <= self.jitter[1] <= 20,
             "the smaller and the larger factor, from 0.05 to 20"),
            ("channels", 2 <= self.channels <= 4096, "from 2 to 4096"),
            ("box_channels", 1 <= self.box_channels <= 16_384, "from 1 to 16384"),
            ("first_stride", stride is None or stride in (1, 2, 4, 8, 16, 32), "1, 2, 4, 8, 16 or 32"),
            ("anchor_scale", scale is None or 0.5 <= scale <= 64, "from 0.5 to 64"),
            ("window_us", 1 <= self.window_us <= 1 << 31, f"from 1 to {1 << 31}"),
            ("skip_us", -1 <= self.skip_us <= 1 << 32, f"from -1 (none) to {1 << 32}"),
            ("min_side", 0 <= self.min_side <= _LARGEST, f"from 0 to {_LARGEST}"),
            ("min_diagonal", 0 <= self.min_diagonal <= _LARGEST, f"from 0 to {_LARGEST}"),
            ("train_json", bool(self.train_json), "a file below the set's folder"),
            ("val_json", bool(self.val_json), "a file below the set's folder"),
        )  # fmt: skip
        for name, holds, must in rules:
            if not holds:
                raise UserError(f"{name}: must be {must}; got {quoted(getattr(self, name), 80)}")
