"""Metres to the numbers that a network learns, and back: `y = 1 + ln(d / 1000) / 5.7`, clipped to 0 and 1.

Source: the official data loader and evaluation, see `models.spike_transformer_depth`.
"""

import math

import torch
from torch import Tensor

__all__ = ["CLIP_DISTANCE", "REG_FACTOR", "to_label", "to_metres"]

CLIP_DISTANCE = 1000.0
REG_FACTOR = 5.7


def to_label(depth: Tensor, clip_distance: float = CLIP_DISTANCE, reg_factor: float = REG_FACTOR) -> Tensor:
    """Return normalised logarithmic depths from 0 to 1.

    Args:
        depth: metres, any shape; what is not known is NaN and stays it.
        clip_distance: metres that become 1; all that is farther does, too.
        reg_factor: `clip_distance * exp(-reg_factor)` becomes 0, as all that is nearer.
    """
    return (1 + torch.log(depth.clamp(0, clip_distance) / clip_distance) / reg_factor).clamp(0, 1)


def to_metres(label: Tensor, clip_distance: float = CLIP_DISTANCE, reg_factor: float = REG_FACTOR) -> Tensor:
    """Return the metres of `to_label`'s numbers, clipped to those that it can tell apart."""
    metres = clip_distance * torch.exp(reg_factor * (label - 1))
    return metres.clamp(clip_distance * math.exp(-reg_factor), clip_distance)
