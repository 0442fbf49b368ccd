"""Crops around an object: its side with context, and bilinear sampling.

Zhang et al., CVPR 2022, as SiamFC++ (Xu et al., AAAI 2020). Coordinates are of pixel centres, and a box of width w
covers the pixels from x to x + w - 1.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["centre_of", "corners_in_crop", "crop", "mean_colour", "side_with_context"]


def side_with_context(width: float, height: float, context: float = 0.5) -> float:
    """Return the side of the square `sqrt((w + p)(h + p))`, p = context (w + h), that a template is cut from."""
    margin = context * (width + height)
    return math.sqrt((width + margin) * (height + margin))


def centre_of(box: Tensor) -> Tensor:
    """Return the centres `(..., 2)` of boxes x, y, w, h `(..., 4)`."""
    return box[..., :2] + (box[..., 2:] - 1) / 2


def mean_colour(image: Tensor) -> Tensor:
    """Return the mean of each channel of an image `(C, H, W)`: `(C,)`, float64."""
    return image.double().mean((-2, -1))


def crop(images: Tensor, centre: tuple[float, float], side: float, size: int, fill: Tensor) -> Tensor:
    """Sample squares around a point of some images.

    Output pixel u lies at `x0 + u (side - 1) / (size - 1)`, with `x0 = centre - (side - 1) / 2`.

    Args:
        images: `(..., C, H, W)`, uint8.
        centre: x and y.
        side: of the square, in pixels of the images; need not be whole.
        size: of the crops.
        fill: what lies around an image: `(C,)`, whose integer part is taken.

    Returns:
        `(..., C, size, size)`, uint8, rounded.
    """
    *front, chans, height, width = images.shape
    fill = fill.to(images.device).trunc().float()[:, None, None]
    places = torch.arange(size, dtype=torch.float64, device=images.device) * (side - 1) / (size - 1) - (side - 1) / 2
    # places from -1 to 1, border pixels' centres at both ends
    x, y = (
        2 * (places + middle) / max(length - 1, 1) - 1 for middle, length in zip(centre, (width, height), strict=True)
    )
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).float()
    flat = (images.reshape(-1, chans, height, width).float() - fill).flatten(0, 1)[None]
    sampled = F.grid_sample(flat, grid[None], mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    sampled = sampled.unflatten(0, (-1, chans)) + fill
    return sampled.round().clamp(0, 255).to(torch.uint8).reshape(*front, chans, size, size)


def corners_in_crop(box: Tensor, centre: tuple[float, float], side: float, size: int) -> Tensor:
    """Return the corners x0, y0, x1, y1 of a box x, y, w, h `(4,)` in the pixels of a crop, see `crop`."""
    corners = torch.cat([box[:2], box[:2] + box[2:] - 1])
    start = torch.tensor(centre, dtype=box.dtype).repeat(2) - (side - 1) / 2
    return (corners - start) * (size - 1) / (side - 1)
