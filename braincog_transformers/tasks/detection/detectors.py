"""torchvision's detectors on a spiking backbone: RetinaNet and Faster R-CNN, with its feature pyramid.

Only the backbone spikes. Pyramid and heads are torchvision's own classes, with ReLU. With `head_time="each"` they read
each step, and what a head predicts is averaged over steps before it becomes losses or boxes.
"""

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from ...errors import UserError
from ...runtime.batch import Batch
from ..backbone import SpikingBackbone
from .settings import DetectionSettings

__all__ = ["DetectionLoss", "Detector", "build_detector"]

LAST_STRIDE = {"retinanet": 128, "fasterrcnn": 64}
"""Of the coarsest level, as in torchvision with a ResNet."""
LAST_REGION = 32
"""Stride of the coarsest level that regions are cut from."""
FIRST_STRIDE = {"retinanet": 8, "fasterrcnn": 4}
ANCHOR_SCALE = {"retinanet": 4.0, "fasterrcnn": 8.0}
RATIOS = (0.5, 1.0, 2.0)
MOST_BOXES = 100
"""Of a picture: as many as COCO's figures count."""


class DetectionLoss(nn.Module):
    """The sum of a detector's losses, each of which is a mean over the batch."""

    def forward(self, output: dict[str, Tensor], target: Batch) -> Tensor:
        """Map the detector's losses by name to a scalar."""
        return torch.stack(list(output.values())).sum()


def _group_norm(channels: int) -> nn.GroupNorm:
    """Return the normalisation of torchvision's RetinaNet of 2022 (`retinanet_resnet50_fpn_v2`), which trains from the
    start where heads without one hardly do; of fewer channels than usual, in fewer groups. A group has two channels or
    more, since the coarsest map of a small picture is a single place."""
    return nn.GroupNorm(math.gcd(32, max(1, channels // 2)), channels)


class Coarser(ExtraFPNBlock):
    """Further levels of a pyramid, each with half the sides of the one before.

    `torchvision.ops.feature_pyramid_network` has one (`LastLevelMaxPool`) or two (`LastLevelP6P7`); a backbone whose
    last stride is 16 needs more to reach the same stride.

    Args:
        channels: of each level.
        count: number of levels.
        convolves: by a convolution with a ReLU in front of all but the first, as RetinaNet's; otherwise by taking every
            second value, as Faster R-CNN's.
    """

    def __init__(self, channels: int, count: int, convolves: bool):
        super().__init__()
        self.count = count
        layers = [nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(count if convolves else 0)]
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """Append the levels, and their names."""
        for i in range(self.count):
            last = results[-1]
            if self.layers:
                results.append(self.layers[i](torch.relu(last) if i else last))
            else:
                results.append(last[..., ::2, ::2])
            names.append(f"coarser{i}")
        return results, names


class Levels(nn.Module):
    """The backbone with its pyramid, as torchvision's detectors want it.

    Args:
        body: the backbone.
        channels: of each level.
        first, last: stride of the finest and of the coarsest level; where the backbone has no maps between them, its
            last one is the first level.
        convolves: see `Coarser`.
    """

    def __init__(self, body: SpikingBackbone, channels: int, first: int, last: int, convolves: bool):
        super().__init__()
        kept = [i for i, stride in enumerate(body.strides) if first <= stride <= last] or [len(body.strides) - 1]
        self.body, self.kept, self.out_channels = body, [str(i) for i in kept], channels
        self.strides = [body.strides[i] for i in kept]
        while self.strides[-1] * 2 <= last:
            self.strides.append(self.strides[-1] * 2)
        extra = Coarser(channels, len(self.strides) - len(kept), convolves) if len(self.strides) > len(kept) else None
        widths = [body.channels[i] for i in kept]
        self.fpn = FeaturePyramidNetwork(widths, channels, extra, norm_layer=_group_norm)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """Map pictures to levels `(steps*B, channels, h, w)`, the finest first."""
        maps = self.body(x)
        levels = self.fpn(OrderedDict((name, maps[name]) for name in self.kept))
        return OrderedDict((str(i), level) for i, level in enumerate(levels.values()))


class _ReadsSteps:
    """Mixin of a head that reads `(steps*B, ...)`, steps outermost."""

    steps = 1

    def _mean(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (self.steps, -1)).mean(0) if self.steps > 1 else x


class _RetinaNetHead(_ReadsSteps, RetinaNetHead):
    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        return {name: self._mean(values) for name, values in super().forward(x).items()}


class _RPNHead(_ReadsSteps, RPNHead):
    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, boxes = super().forward(x)
        return [self._mean(one) for one in logits], [self._mean(one) for one in boxes]


class _RegionAlign(_ReadsSteps, MultiScaleRoIAlign):
    """Cut the same regions from the maps of every step."""

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        return super().forward(x, boxes * self.steps, image_shapes * self.steps)


class _RegionPredictor(_ReadsSteps, FastRCNNPredictor):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = super().forward(x)
        return self._mean(scores), self._mean(boxes)


class _AsGiven(nn.Module):
    """Takes the place of torchvision's transform: samples are resized and normalised already, and have one size.

    Args:
        multiple: zeros are added until the sides are multiples of it, so that anchors lie where the maps look.
    """

    def __init__(self, multiple: int):
        super().__init__()
        self.multiple = multiple

    def forward(self, images: list[Tensor], targets: Any = None) -> tuple[ImageList, Any]:
        sides = images[0].shape[-2:]
        low, right = (-side % self.multiple for side in sides)
        return ImageList(pad(torch.stack(images), (0, right, 0, low)), [tuple(sides)] * len(images)), targets

    def postprocess(self, result: list[dict[str, Tensor]], *_: Any) -> list[dict[str, Tensor]]:
        return result


class Detector(nn.Module):
    """A detector of torchvision's that reads batches.

    Args:
        model: the detector; its backbone is `Levels`.
        background: number of labels in front of the first class: 1 if 0 is the background.
    """

    def __init__(self, model: nn.Module, background: int):
        super().__init__()
        self.model, self.background = model, background

    @property
    def body(self) -> SpikingBackbone:
        """The network of the zoo."""
        return self.model.backbone.body

    def forward(self, x: Tensor, target: Batch | None = None) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Map `(B, C, H, W)` or `(B, T, C, H, W)` to losses by name, in training with a target, or to one dict for each
        sample: `boxes (N, 4)`, corners in pixels, `scores (N,)` and `labels (N,)`, the best first."""
        steps = self.body.steps
        for module in self.model.modules():
            if isinstance(module, _ReadsSteps):
                module.steps = steps
        found = self.model(list(x.unbind()), None if target is None else self._targets(target))
        if isinstance(found, dict):
            return found
        return [{**one, "labels": one["labels"] - self.background} for one in found]

    def _targets(self, target: Batch) -> list[dict[str, Tensor]]:
        there = target.labels >= 0
        return [
            {"boxes": boxes[seen], "labels": labels[seen] + self.background}
            for boxes, labels, seen in zip(target.boxes, target.labels, there, strict=True)
        ]


def build_detector(kind: str, body: SpikingBackbone, num_classes: int, settings: DetectionSettings) -> Detector:
    """Build a detector.

    Args:
        kind: "retinanet" or "fasterrcnn".
        body: the backbone.
        num_classes: of objects.
        settings: sizes of its parts.

    Raises:
        UserError: for a first stride that the backbone doesn't have.

    Source: Lin et al., Focal Loss for Dense Object Detection (ICCV 2017); Ren et al., Faster R-CNN (NeurIPS 2015).
    """
    first = settings.first_stride or FIRST_STRIDE[kind]
    scale = settings.anchor_scale or ANCHOR_SCALE[kind]
    if settings.first_stride and first not in body.strides:
        strides = ", ".join(map(str, body.strides))
        raise UserError(f"--task-kwargs first_stride={first}: the backbone has maps of stride {strides}")
    levels = Levels(body, settings.channels, first, LAST_STRIDE[kind], convolves=kind == "retinanet")
    octaves = (0, 1 / 3, 2 / 3) if kind == "retinanet" else (0,)
    sides = tuple(tuple(scale * stride * 2**octave for octave in octaves) for stride in levels.strides)
    anchors = AnchorGenerator(sides, (RATIOS,) * len(sides))
    count, width = anchors.num_anchors_per_location()[0], settings.channels
    common = {"image_mean": [0.0], "image_std": [1.0]}
    if kind == "retinanet":
        head = _RetinaNetHead(width, count, num_classes, norm_layer=_group_norm)
        model: nn.Module = RetinaNet(
            levels, num_classes, anchor_generator=anchors, head=head, detections_per_img=MOST_BOXES, **common
        )
    else:
        regions = [str(i) for i, stride in enumerate(levels.strides) if stride <= LAST_REGION] or ["0"]
        align = _RegionAlign(regions, output_size=7, sampling_ratio=2)
        model = FasterRCNN(
            levels, rpn_anchor_generator=anchors, rpn_head=_RPNHead(width, count), box_roi_pool=align,
            box_head=TwoMLPHead(width * 7**2, settings.box_channels),
            box_predictor=_RegionPredictor(settings.box_channels, num_classes + 1),
            box_detections_per_img=MOST_BOXES, **common,
        )  # fmt: skip
    model.transform = _AsGiven(math.lcm(body.multiple, 32))
    return Detector(model, background=int(kind == "fasterrcnn"))
