"""Loss of poses, as the published training script has it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ...runtime.batch import Batch

__all__ = ["WEIGHTS", "PoseLoss", "rotation_distance"]

WEIGHTS = {"trans": 50.0, "theta": 10.0, "beta": 1.0, "joints3d": 1.0, "joints2d": 10.0}
"""Of the published training script."""
_NEAR_ONE = 1e-6


def rotation_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the angles (...) in radians between rotation matrices (..., 3, 3).

    They stay a little above 0 and below pi, where the gradient is infinite.
    """
    trace = (first * second).sum(dim=(-2, -1))
    return torch.acos(((trace - 1) / 2).clamp(_NEAR_ONE - 1, 1 - _NEAR_ONE))


class PoseLoss(nn.Module):
    """Weighted sum of the errors of translation, rotations, shape, and joints in space and in the picture.

    Predicted joints in the picture are clamped to it, so those outside have no gradient.

    Args:
        weights: of `trans`, `theta`, `beta`, `joints3d` and `joints2d`; a term of weight 0 is not computed.
        geodesic: whether the error of a rotation is its angle, or else the mean squared error of its matrix.
    """

    def __init__(self, weights: Mapping[str, float] = WEIGHTS, *, geodesic: bool = True):
        super().__init__()
        self.weights, self.geodesic = dict(weights), geodesic

    def terms(self, output: Batch, target: Batch) -> dict[str, Tensor]:
        """Return the weighted terms by name.

        Args:
            output, target: rotations (B, T+1, 24, 3, 3), trans (B, T+1, 3), beta (B, T+1, 10), joints3d
                (B, T+1, 24, 3) in metres, and joints2d (B, T+1, 24, 2) in sides of the picture.
        """
        weights = {name: weight for name, weight in self.weights.items() if weight}
        return {name: weight * getattr(self, f"_{name}")(output, target) for name, weight in weights.items()}

    def forward(self, output: Batch, target: Batch) -> Tensor:
        """Return the sum of `terms`."""
        return torch.stack(list(self.terms(output, target).values())).sum()

    def _trans(self, output: Batch, target: Batch) -> Tensor:
        return mse_loss(output.trans, target.trans)

    def _theta(self, output: Batch, target: Batch) -> Tensor:
        if not self.geodesic:
            return mse_loss(output.rotations, target.rotations)
        return rotation_distance(output.rotations, target.rotations).mean()

    def _beta(self, output: Batch, target: Batch) -> Tensor:
        return mse_loss(output.beta, target.beta)

    def _joints3d(self, output: Batch, target: Batch) -> Tensor:
        return mse_loss(output.joints3d, target.joints3d)

    def _joints2d(self, output: Batch, target: Batch) -> Tensor:
        return mse_loss(output.joints2d.clamp(0, 1), target.joints2d)
