"""What the head learns at each location of its map, and the losses, as in SiamFC++ (Xu et al., AAAI 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from ...runtime.batch import Batch

__all__ = ["Locations", "TrackingLoss", "box_loss", "centerness_loss", "class_loss"]

IGNORED = -1.0
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Locations:
    """The centres of a square map of locations in the pixels of a search crop.

    Args:
        count: locations in a row.
        stride: pixels from one to the next.
        size: of the search crop.
    """

    count: int
    stride: int
    size: int

    @property
    def offset(self) -> int:
        """Place of the first one."""
        return (self.size - 1 - (self.count - 1) * self.stride) // 2

    def targets(self, box: Tensor, *, negative: bool = False) -> Batch:
        """Return what is to be learnt of a box.

        A location inside of the box is positive. Its centre-ness is the root of
        `min(l, r) min(t, b) / (max(l, r) max(t, b))` of the distances to the four sides.

        Args:
            box: corners x0, y0, x1, y1 `(4,)` in pixels of the crop.
            negative: whether the object in the crop is not the template's: then its locations are negative, and what is
                around it is ignored. The centre-ness and the box stay, as in the official code.

        Returns:
            `cls (N, 1)` with 1, 0 and -1 for ignored, `ctr (N, 1)`, `boxes (N, 4)`, N locations row by row.
        """
        places = torch.arange(self.count, dtype=box.dtype) * self.stride + self.offset
        y, x = (axis.flatten() for axis in torch.meshgrid(places, places, indexing="ij"))
        left, top, right, bottom = x - box[0], y - box[1], box[2] - x, box[3] - y
        inside = torch.stack([left, top, right, bottom]).amin(0) > 0
        near = torch.minimum(left, right) * torch.minimum(top, bottom)
        far = torch.maximum(left, right) * torch.maximum(top, bottom)
        ctr = torch.where(inside, (near / (far + 1e-5)).abs().sqrt(), 0.0)
        cls = torch.where(inside, 0.0, IGNORED) if negative else inside
        boxes = torch.where(inside[:, None], box, 0.0)
        return Batch(cls=cls.float()[:, None], ctr=ctr.float()[:, None], boxes=boxes.float())


def class_loss(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """Return the focal loss (Lin et al., ICCV 2017) over the locations that aren't ignored, per positive one.

    Args:
        logits: `(B, N, 1)`.
        target: 1, 0, or -1 for ignored `(B, N, 1)`.
        alpha: weight of positive locations; that of negative ones is 1 - alpha.
        gamma: exponent.
    """
    used = target > IGNORED
    losses = sigmoid_focal_loss(logits[used], target[used], alpha=alpha, gamma=gamma)
    return losses.sum() / (target > 0).sum().clamp(min=1)


def centerness_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross entropy less the target's entropy, over locations with a target: logits, target
    `(B, N, 1)`."""
    used = target != 0
    if not used.any():
        return logits.sum() * 0
    logits, target = logits[used], target[used]
    entropy = F.binary_cross_entropy(target, target)
    return F.binary_cross_entropy_with_logits(logits, target) - entropy


def box_loss(boxes: Tensor, target: Tensor, positive: Tensor) -> Tensor:
    """Return the mean of -ln IoU at positive locations, of boxes that include their last pixel.

    Args:
        boxes: corners `(B, N, 4)`.
        target: likewise.
        positive: `(B, N)`.
    """
    if not positive.any():
        return boxes.sum() * 0
    ours, theirs = boxes[positive], target[positive]
    first = torch.maximum(ours[:, :2], theirs[:, :2])
    last = torch.minimum(ours[:, 2:], theirs[:, 2:])
    common = (last - first + 1).clamp(min=0).prod(1)
    areas = [(one[:, 2:] - one[:, :2] + 1).prod(1) for one in (ours, theirs)]
    return -(common / (areas[0] + areas[1] - common)).clamp(min=_TINY).log().mean()


class TrackingLoss(nn.Module):
    """The weighted sum of the three losses.

    Args:
        cls_weight, ctr_weight, box_weight: of the terms.
        alpha, gamma: of the focal loss.
    """

    def __init__(self, cls_weight: float, ctr_weight: float, box_weight: float, alpha: float, gamma: float):
        super().__init__()
        self.weights = cls_weight, ctr_weight, box_weight
        self.alpha, self.gamma = alpha, gamma

    def forward(self, output: Batch, target: Batch) -> Tensor:
        """Return the loss of a batch, see `Locations.targets`."""
        terms = (
            class_loss(output.cls, target.cls, self.alpha, self.gamma),
            centerness_loss(output.ctr, target.ctr),
            box_loss(output.boxes, target.boxes, target.cls[..., 0] > 0),
        )
        return sum(weight * term for weight, term in zip(self.weights, terms, strict=True))
