"""What an evaluation of a classifier measures: loss and accuracy."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NonFiniteLoss
from ..tasks import Meter
from .losses import mean_over_steps

__all__ = ["ClassMeter"]


class ClassMeter(Meter):
    """Loss and accuracy over all samples: `loss`, `top1` in percent, and `top5` where there are five classes.

    Of a network that computes its losses `(B,)` itself, without labels, the loss alone.

    Args:
        criterion: loss of logits and class indices, a mean over the batch.
    """

    def __init__(self, criterion: nn.Module):
        self.criterion = criterion
        self.sums: Tensor | None = None
        self.classes = 0

    def update(self, call: Callable[[Any], Any], x: Any, target: Tensor) -> None:
        """Add a batch."""
        logits = mean_over_steps(call(x)).float()
        self.classes = logits.shape[1] if logits.ndim > 1 else 0
        sums = torch.zeros(4, dtype=torch.float64, device=logits.device) if self.sums is None else self.sums
        best = logits.topk(min(5, self.classes), dim=1).indices if self.classes else None
        hits = sums.new_zeros(1, 1) if best is None else best == target[:, None]
        loss = self.criterion(logits, target).double() * len(x)
        self.sums = sums + torch.stack([loss, hits[:, 0].sum().double(), hits.sum().double(), sums.new_tensor(len(x))])

    def compute(self, gather: Callable[[dict], list[dict]]) -> dict[str, float]:
        """Return the means; raise `NonFiniteLoss` for a loss that is not finite."""
        own = {"sums": [0.0] * 4 if self.sums is None else self.sums.tolist(), "classes": self.classes}
        parts = gather(own)
        loss, top1, top5, count = (sum(column) for column in zip(*(part["sums"] for part in parts), strict=True))
        classes = max(part["classes"] for part in parts)
        if not math.isfinite(loss):
            raise NonFiniteLoss("the loss of the evaluation is not finite, though its inputs are: activations overflow")
        found = {"loss": loss / count} | ({"top1": 100.0 * top1 / count} if classes else {})
        return found | {"top5": 100.0 * top5 / count} if classes >= 5 else found
