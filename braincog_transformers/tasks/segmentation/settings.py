"""The options of segmentation in --task-kwargs."""

from dataclasses import dataclass
from math import isfinite

from ...errors import UserError, quoted
from ..task import TaskSettings

__all__ = ["SegmentationSettings"]

_WIDEST, _LARGEST = 8192, 16_384


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings(TaskSettings):
    """Say what the head is, how pictures are cut, and what is written.

    Args:
        head: `fpn` sums the levels of a feature pyramid, `fcn` reads the last map.
        channels: of the pyramid and of its head.
        dropout: chance that a channel is dropped in front of the classifier.
        auxiliary: weight of a second loss, that of an FCN head on the last map but one; 0 is none. Usual is 0.4.
        class_weights: of each class in the loss.
        size: (H, W) of a training sample, where --img-size, which is square, won't do.
        resize: smallest and largest factor by which a training picture is enlarged beyond its size in the test.
        class_share: largest share of a training crop, without void, that one class may have; ten crops are tried.
        train_list: of VOC's layout, the list in ImageSets/Segmentation for training, such as `trainaug`.
        test_list: likewise for the test.
        num_classes: of your own set.
        class_names: text file with the names of your own classes, one a line, in the order of their numbers.
        skip_bad: look at all files first, and leave out samples that can't be used.
        save_masks: test samples, from the first on, whose predicted mask is written as PNG.

    Raises:
        UserError: for a value out of range.
    """

    head: str = "fpn"
    channels: int = 128
    dropout: float = 0.1
    auxiliary: float = 0.0
    class_weights: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    resize: tuple[float, float] = (0.5, 2.0)
    class_share: float = 1.0
    train_list: str = "train"
    test_list: str = "val"
    num_classes: int | None = None
    class_names: str = ""
    skip_bad: bool = False
    save_masks: int = 20

    def __post_init__(self) -> None:
        weights = self.class_weights
        rules = (
            ("head", self.head in ("fpn", "fcn"), "fpn or fcn"),
            ("channels", 1 <= self.channels <= _WIDEST, f"from 1 to {_WIDEST}"),
            ("dropout", 0 <= self.dropout < 1, "0 or more, and below 1"),
            ("auxiliary", 0 <= self.auxiliary <= 100, "from 0 to 100"),
            ("class_weights", weights is None or (all(0 <= one < 1e6 for one in weights) and any(weights)),
             "numbers of 0 or more, below 1e6 and not all 0"),
            ("size", self.size is None or all(1 <= side <= _LARGEST for side in self.size),
             f"height and width from 1 to {_LARGEST}"),
            ("resize", all(map(isfinite, self.resize)) and 0.05 <= self.resize[0] <= self.resize[1] <= 20,
             "the smaller and the larger factor, from 0.05 to 20"),
            ("class_share", 0 < self.class_share <= 1, "above 0, up to 1"),
            ("save_masks", self.save_masks >= 0, "0 or more"),
        )  # fmt: skip
        for name, holds, must in rules:
            if not holds:
                raise UserError(f"{name}: must be {must}; got {quoted(getattr(self, name), 80)}")
