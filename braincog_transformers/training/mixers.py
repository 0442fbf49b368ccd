"""Mixing of training samples: timm's for images (and for event frames), ours for events."""

from collections.abc import Sequence

import torch
from timm.data import Mixup
from torch import Tensor

from .losses import soft_labels
from .step import Mixer

__all__ = ["EventMixer", "ImageMixer"]


class ImageMixer:
    """Mix by timm's `Mixup`; all frames of an event sample are mixed alike.

    Args:
        mixup: timm's mixer; it draws from NumPy's global generator.
    """

    def __init__(self, mixup: Mixup):
        self.mixup = mixup

    def __call__(self, x: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        # timm pairs samples from both ends, in place: an odd one is left out, and the loader's batch stays as it is
        pairs = len(x) - len(x) % 2 if len(x) > 1 else 0
        if not pairs:
            return x, soft_labels(target, num_classes=self.mixup.num_classes, smoothing=self.mixup.label_smoothing)
        x = x[:pairs].clone()
        frames = x.flatten(1, 2) if x.ndim == 5 else x
        frames, soft = self.mixup(frames, target[:pairs])
        return frames.view_as(x), soft


class EventMixer:
    """Mix event frames on smoothed targets, by one mixer after the other.

    Args:
        mixers: each takes frames `(B, T, P, H, W)`, distributions `(B, K)` and a generator, and returns both mixed.
        num_classes: number of classes K.
        smoothing: label smoothing.
    """

    def __init__(self, mixers: Sequence[Mixer], *, num_classes: int, smoothing: float = 0.0):
        self.mixers = tuple(mixers)
        self.num_classes = num_classes
        self.smoothing = smoothing

    def __call__(self, x: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        soft = soft_labels(target, num_classes=self.num_classes, smoothing=self.smoothing)
        for mixer in self.mixers:
            x, soft = mixer(x, soft, generator)
        return x, soft
