"""Geometry of poses: the crop of a picture, the place of a body before the camera, and similarities.

Units are metres and degrees. The camera looks along z, x points to the right and y down.
"""

import torch
from torch import Tensor

from ...models.rotations import Camera

__all__ = ["aligned", "crop_matrix", "fit_translation", "plane_rotation", "transform", "warp"]


def fit_translation(joints3d: Tensor, joints2d: Tensor, camera: Camera) -> Tensor:
    """Find the translation (..., 3) that brings joints closest to where the camera sees them, by least squares.

    Args:
        joints3d: (..., N, 3) in metres, without translation.
        joints2d: (..., N, 2), in [0, 1] inside the picture.
        camera: that sees them.
    """
    size = joints3d.new_tensor([camera.width, camera.height])
    focal, centre = joints3d.new_tensor(camera[:4]).view(2, 2) / size
    offset = joints2d - centre
    # f (X + tx) = (u - cx) (Z + tz), for each joint and axis: linear in the translation
    left = torch.cat([torch.diag(focal).expand(*offset.shape, 2), -offset[..., None]], dim=-1)
    right = offset * joints3d[..., 2:] - focal * joints3d[..., :2]
    left, right = left.flatten(-3, -2), right.flatten(-2)[..., None]
    return torch.linalg.solve(left.mT @ left, left.mT @ right)[..., 0]


def plane_rotation(degrees: float) -> Tensor:
    """Return the rotation (2, 2) in the plane of the picture."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)


def crop_matrix(
    centre: tuple[float, float], size: tuple[float, float], target: tuple[float, float], degrees: float
) -> Tensor:
    """Return the affine map (2, 3) from the pixels of a picture to those of a turned and scaled crop.

    Args:
        centre: of the crop (x, y) in the picture.
        size: of the crop (width, height) in the picture.
        target: size (width, height) of the new picture.
        degrees: by which the crop is turned.
    """
    centre, size, target = (torch.tensor(pair, dtype=torch.float64) for pair in (centre, size, target))
    linear = (target / size)[:, None] * plane_rotation(-degrees)
    return torch.cat([linear, (target / 2 - linear @ centre)[:, None]], dim=1)


def transform(points: Tensor, matrix: Tensor) -> Tensor:
    """Apply an affine map (2, 3) to points (..., 2)."""
    matrix = matrix.to(points)
    return points @ matrix[:, :2].T + matrix[:, 2]


def warp(frames: Tensor, matrix: Tensor) -> Tensor:
    """Move pictures (..., H, W) by an affine map of their pixels, to the nearest one; what comes from outside is 0."""
    height, width = frames.shape[-2:]
    inverse = torch.linalg.inv(matrix[:, :2])
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = (torch.stack([x, y], dim=-1) - matrix[:, 2]) @ inverse.T
    x, y = (places + 0.5).floor().long().unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    source = (y * width + x).where(inside, 0).flatten()
    flat = frames.flatten(-2)
    return flat.gather(-1, source.expand(flat.shape)).view(frames.shape) * inside.to(frames.dtype)


def aligned(points: Tensor, target: Tensor) -> Tensor:
    """Return points (..., N, 3) moved, turned and scaled to lie closest to `target`, without a reflection.

    Procrustes analysis, one similarity for each set of N points.
    """
    centre = target.mean(dim=-2, keepdim=True)
    points, goal = points - points.mean(dim=-2, keepdim=True), target - centre
    left, _, right = torch.linalg.svd(points.mT @ goal)
    sign = torch.linalg.det(left @ right).sign()
    left = torch.cat([left[..., :2], left[..., 2:] * sign[..., None, None]], dim=-1)
    turned = points @ left @ right
    spread = points.square().sum(dim=(-2, -1), keepdim=True)
    scale = (turned * goal).sum(dim=(-2, -1), keepdim=True) / spread.clamp_min(1e-12)
    return scale * turned + centre
