"""Intersection over union at the masks' own sizes, and predictions in files."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import NonFiniteLoss
from ...files import write_text, write_whole
from ..task import Call, Meter
from .masks import VOID, mask_picture
from .samples import Segments

__all__ = ["SegmentationMeter", "labels_of"]

_VALUES = 2**26
"""Logits that are enlarged at a time."""


def labels_of(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class (H, W) that is largest in logits (K, h, w) enlarged to `size`, a few classes at a time."""
    best = label = None
    count = max(1, _VALUES // (size[0] * size[1]))
    for first in range(0, len(logits), count):
        part = F.interpolate(logits[None, first : first + count].float(), size, mode="bilinear", align_corners=False)
        value, place = part[0].max(0)
        if best is None:
            best, label = value, place
        else:
            label = torch.where(value > best, place + first, label)
            best = torch.maximum(value, best)
    return label


class SegmentationMeter(Meter):
    """Measure mean IoU and accuracies on whole pictures, at the size of their masks.

    Logits are enlarged to the mask's size, and the class is that of the largest. All pixels of all pictures that are
    not void are counted together. A class that is neither in the masks nor in the predictions has no IoU and is left
    out of the mean; one that is only predicted has 0. This is mmsegmentation's rule.

    Args:
        samples: of the test, for the names of their files.
        classes: names of the K classes.
        criterion: the loss; of the test it is the mean of the pictures' losses at the network's size.
        save_masks: samples, from the first on, whose mask is written as PNG.
    """

    def __init__(self, samples: Segments, classes: tuple[str, ...], criterion: nn.Module, save_masks: int):
        from torchmetrics.classification import MulticlassConfusionMatrix

        self.samples, self.classes, self.criterion, self.save_masks = samples, classes, criterion, save_masks
        self.matrix = MulticlassConfusionMatrix(len(classes), ignore_index=VOID, validate_args=False)
        self.losses: list[Tensor] = []
        self.found: list[dict[str, Any]] = []
        self.figures: dict[str, np.ndarray] = {}

    def update(self, call: Call, x: Tensor, target: Any) -> None:
        """Note what a network makes of pictures (1, 3, h, w), with `labels` (1, H, W) and `index` (1,)."""
        all_logits = call(x)
        self.matrix.to(all_logits.device)
        for logits, labels, index in zip(all_logits, target.labels, target.index.tolist(), strict=True):
            label = labels_of(logits, tuple(labels.shape))
            self.matrix.update(label[None], labels[None].long())
            small = F.interpolate(labels[None, None].float(), logits.shape[-2:], mode="nearest-exact")[0].byte()
            self.losses.append(self.criterion(logits[None], small).detach())
            self.found.append(self._prediction(label.cpu().numpy().astype(np.uint8), index))

    def compute(self, gather: Callable[[dict], list[dict]]) -> dict[str, float]:
        """Return `miou`, `pixel_accuracy` and `mean_class_accuracy` in percent, and `loss`."""
        losses = torch.stack(self.losses).cpu().tolist() if self.losses else []
        own = {"matrix": self.matrix.confmat.cpu().numpy(), "losses": losses, "found": self.found}
        parts = gather(own)
        self.found = sorted((one for part in parts for one in part["found"]), key=lambda one: one["index"])
        losses = [loss for part in parts for loss in part["losses"]]
        if not np.isfinite(losses).all():
            raise NonFiniteLoss("the loss of the evaluation is not finite, though its inputs are: activations overflow")
        matrix = sum(part["matrix"] for part in parts).astype(np.float64)
        hits, truth, guesses = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        with np.errstate(invalid="ignore"):  # 0 / 0 is what a class has that isn't there
            self.figures = {"iou": 100 * hits / (truth + guesses - hits), "accuracy": 100 * hits / truth}
        return {
            "miou": float(np.nanmean(self.figures["iou"])),
            "pixel_accuracy": float(100 * hits.sum() / matrix.sum()),
            "mean_class_accuracy": float(np.nanmean(self.figures["accuracy"])),
            "loss": sum(losses) / len(losses),
        }

    def write(self, folder: Path) -> list[Path]:
        """Write `class_iou.json`, `segmentations.json` as COCO has annotations, and the first masks as PNG."""
        paths = [folder / "class_iou.json", folder / "segmentations.json"]
        rows = zip(self.classes, *(self.figures[name].tolist() for name in ("iou", "accuracy")), strict=True)
        # NaN, of a class that isn't there, is no JSON
        own = [{"class": name, "iou": _or_none(iou), "accuracy": _or_none(accuracy)} for name, iou, accuracy in rows]
        write_text(paths[0], json.dumps(own, indent=1))
        write_text(paths[1], json.dumps(self._coco()))
        masks = [one for one in self.found if one["png"]]
        if not masks:
            return paths
        (folder / "masks").mkdir(exist_ok=True)
        for one in masks:
            name = f"{self.samples.pairs[one['index']][0].stem}.png"
            write_whole(folder / "masks" / name, lambda path, content=one["png"]: path.write_bytes(content))
        return [*paths, folder / "masks"]

    def _prediction(self, label: np.ndarray, index: int) -> dict[str, Any]:
        """Return a sample's prediction in plain values: run lengths of each class, and a PNG of the first samples."""
        from pycocotools.mask import encode

        classes = np.flatnonzero(np.bincount(label.ravel()))
        runs = encode(np.asfortranarray(label[..., None] == classes, dtype=np.uint8))
        file = io.BytesIO()
        if index < self.save_masks:
            mask_picture(self.samples.rule.numbers(label)).save(file, format="PNG")
        return {"index": index, "size": label.shape, "runs": dict(zip(classes.tolist(), runs, strict=True)),
                "png": file.getvalue()}  # fmt: skip

    def _coco(self) -> dict[str, list[dict[str, Any]]]:
        """Return all predictions as COCO's json has annotations: one for each class of a picture."""
        from pycocotools.mask import area, toBbox

        first, images, annotations = self.samples.rule.first, [], []
        for one in self.found:
            name, (height, width) = self.samples.pairs[one["index"]][0].name, one["size"]
            images.append({"id": one["index"] + 1, "file_name": name, "width": width, "height": height})
            for label, run in one["runs"].items():
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": one["index"] + 1,
                        "category_id": label + first,
                        "segmentation": {"size": [height, width], "counts": run["counts"].decode("ascii")},
                        "area": int(area(run)),
                        "bbox": toBbox(run).tolist(),
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": label + first, "name": name} for label, name in enumerate(self.classes)]
        return {"images": images, "categories": categories, "annotations": annotations}


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
