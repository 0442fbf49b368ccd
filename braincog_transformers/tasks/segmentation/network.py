"""Heads for segmentation on the maps of a spiking backbone, and their loss."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import FeaturePyramidNetwork

from ...errors import UserError
from ..backbone import SpikingBackbone
from .masks import VOID
from .settings import SegmentationSettings

__all__ = ["FPNHead", "LastMap", "SegmentationLoss", "SegmentationNetwork"]


def _enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


class FPNHead(nn.Module):
    """Semantic FPN (Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019, section 3.1 and figure 3).

    A level goes through one convolution with normalisation and ReLU for each doubling of its size, at least one, until
    it has the finest level's size. The sum of all levels is classified. Here the normalisation is a batch one, as in
    mmsegmentation.

    Args:
        in_channels: of the maps, the finest first.
        strides: of the maps.
        channels: of the pyramid and of the sum.
        num_classes: K.
        dropout: chance that a channel of the sum is dropped.
    """

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], channels: int, num_classes: int, dropout: float
    ):
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(in_channels), channels)
        doublings = [max(1, round(math.log2(stride / strides[0]))) for stride in strides]
        self.levels = nn.ModuleList(
            nn.ModuleList(_conv_bn_relu(channels, channels) for _ in range(count)) for count in doublings
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        """Map features (N, C, h, w) by name, the finest first, to logits (N, K, h, w) of the finest size."""
        levels = list(self.pyramid(maps).values())
        size = levels[0].shape[-2:]
        total = torch.zeros((), device=levels[0].device, dtype=levels[0].dtype)
        for x, convolutions in zip(levels, self.levels, strict=True):
            for convolution in convolutions:
                x = convolution(x)
                height, width = (min(2 * has, most) for has, most in zip(x.shape[-2:], size, strict=True))
                x = _enlarged(x, (height, width))
            total = total + _enlarged(x, size)
        return self.classifier(self.dropout(total))


class SegmentationNetwork(nn.Module):
    """A spiking backbone with a head: pictures (B, 3, H, W) to logits (B, K, H, W).

    The head reads the mean of the maps over time, or each step, and then its logits are averaged. In training with an
    auxiliary head the result is `{"out": logits, "aux": logits}`.

    Args:
        backbone: see `tasks.backbone`.
        num_classes: K.
        settings: of the heads.

    Raises:
        UserError: for an auxiliary loss with a backbone of one map.
    """

    def __init__(self, backbone: SpikingBackbone, num_classes: int, settings: SegmentationSettings):
        super().__init__()
        widths, dropout = backbone.channels, settings.dropout
        self.backbone, self.auxiliary = backbone, None
        if settings.head == "fpn":
            self.head = FPNHead(widths, backbone.strides, settings.channels, num_classes, dropout)
        else:
            self.head = LastMap(widths[-1], num_classes, dropout)
        if settings.auxiliary:
            if len(widths) < 2:
                raise UserError("--task-kwargs auxiliary: reads the last map but one, and the network has a single one")
            self.auxiliary = fcn(widths[-2], num_classes, dropout)
        if settings.head == "fcn" and backbone.pyramid is not None:
            # what no head reads gets no gradient, which several processes would wait for
            for stage in backbone.pyramid.stages[: -2 if settings.auxiliary else -1]:
                stage.requires_grad_(False)

    @property
    def step(self) -> int:
        """Time steps T of the backbone."""
        return self.backbone.inner.step

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Map pictures to logits."""
        maps = self.backbone(x)
        logits = self._whole(self.head(maps), x)
        if self.auxiliary is None or not self.training:
            return logits
        return {"out": logits, "aux": self._whole(self.auxiliary(_last(maps, 2)), x)}

    def _whole(self, logits: Tensor, x: Tensor) -> Tensor:
        """Return logits averaged over time, in the size of the picture."""
        return _enlarged(self.backbone.mean_over_steps(logits), x.shape[-2:])


class LastMap(nn.Module):
    """torchvision's FCN head on the last map (Long et al., CVPR 2015).

    Args:
        in_channels: of the map.
        num_classes: K.
        dropout: chance that a channel is dropped in front of the classifier.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float):
        super().__init__()
        self.head = fcn(in_channels, num_classes, dropout)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        """Map features by name to logits of the last map's size."""
        return self.head(_last(maps, 1))


def fcn(in_channels: int, num_classes: int, dropout: float) -> FCNHead:
    """Return torchvision's FCN head (N, C, h, w) -> (N, K, h, w), which has a quarter of the channels inside."""
    head = FCNHead(in_channels, num_classes)
    head[3].p = dropout
    return head


class SegmentationLoss(nn.Module):
    """Cross entropy, averaged over all pixels that are not void, each by the weight of its class.

    Args:
        class_weights: (K,), or None for all alike.
        auxiliary: weight of the loss of the auxiliary head.
    """

    def __init__(self, class_weights: Sequence[float] | None = None, auxiliary: float = 0.0):
        super().__init__()
        self.class_weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.auxiliary = auxiliary

    def forward(self, output: Tensor | dict[str, Tensor], target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, H, W), or those of both heads, and labels (B, H, W)."""
        if isinstance(output, dict):
            return self._entropy(output["out"], target) + self.auxiliary * self._entropy(output["aux"], target)
        return self._entropy(output, target)

    def _entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        # PyTorch's own mean is not a number where all of a batch is void, as crops at a picture's border can be
        logits, target = logits.float(), target.long()
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        total = F.cross_entropy(logits, target, weight=weights, ignore_index=VOID, reduction="sum")
        counted = target != VOID
        count = counted.sum() if weights is None else (weights[target.where(counted, 0)] * counted).sum()
        return total / torch.where(count > 0, count, 1)


def _last(maps: dict[str, Tensor], place: int) -> Tensor:
    return list(maps.values())[-place]


def _conv_bn_relu(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    )
