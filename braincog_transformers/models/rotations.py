"""Rotations of joints as matrices, and the projection of points into the picture.

Source: Zou et al., Highly Efficient 3D Human Pose Tracking from Events (arXiv 2303.09681); official code at 766c4af,
utils/geometry.py. Rotations of six numbers: Zhou et al., On the Continuity of Rotation Representations in Neural
Networks (CVPR 2019, arXiv 1812.07035).
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Camera", "matrices_from_axis_angles", "matrices_from_six", "project"]

_SMALLEST = 1e-8


class Camera(NamedTuple):
    """A pinhole camera; the defaults are those of the recordings of MMHPSD, whose pictures have 1280 pixels a side.

    Args:
        fx, fy: focal lengths, pixels.
        cx, cy: where the axis meets the picture, pixels.
        width, height: of the picture, pixels.
    """

    fx: float = 1679.3
    fy: float = 1679.3
    cx: float = 641.0
    cy: float = 641.0
    width: float = 1280.0
    height: float = 1280.0


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(_SMALLEST)


def matrices_from_six(numbers: Tensor) -> Tensor:
    """Return rotations, of which the numbers give the directions of two axes.

    The first three are along x, the last three somewhere in the plane of x and y: z is across both, and y across z and
    x.

    Args:
        numbers: `(..., 6)`.

    Returns:
        `(..., 3, 3)`, whose columns are x, y and z.
    """
    first, second = numbers.unflatten(-1, (2, 3)).unbind(-2)
    x = _unit(first)
    z = _unit(torch.linalg.cross(x, second))
    return torch.stack((x, torch.linalg.cross(z, x), z), -1)


def matrices_from_axis_angles(turns: Tensor) -> Tensor:
    """Return rotations by a vector, whose direction is the axis and whose length the angle in radians.

    Args:
        turns: `(..., 3)`.

    Returns:
        `(..., 3, 3)`.
    """
    angle = (turns + _SMALLEST).norm(dim=-1, keepdim=True)  # the offset keeps the gradient of no turn finite
    quaternion = torch.cat(((angle / 2).cos(), (angle / 2).sin() * turns / angle), -1)
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        *(w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (w * y + x * z)),
        *(2 * (w * z + x * y), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (w * x + y * z), w * w - x * x - y * y + z * z),
    )
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def project(points: Tensor, camera: Camera) -> Tensor:
    """Return where points are seen, as shares of the picture's width and height: 0 to 1 inside of it.

    Args:
        points: `(..., 3)`, metres: to the right, down, and away from the camera.
        camera: the camera.

    Returns:
        `(..., 2)`, column and row.
    """
    x, y, z = points.unbind(-1)
    away = z + 1e-5
    columns = (x / away * camera.fx + camera.cx) / camera.width
    rows = (y / away * camera.fy + camera.cy) / camera.height
    return torch.stack((columns, rows), -1)
