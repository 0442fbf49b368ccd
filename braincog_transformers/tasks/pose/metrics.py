"""Errors of joints, joint by joint, as the published test script computes them."""

from torch import Tensor

from .geometry import aligned

__all__ = ["PCK_LIMIT", "figures", "joint_errors", "right_joints"]

PCK_LIMIT = 0.1
"""Metres from the true place at which a joint still counts as right."""
_PELVIS, _HIPS, _NECK, _HEAD = 0, (1, 2), 12, 15
_TORSO_SHARE = 0.2


def _distance(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).norm(dim=-1)


def _from_hips(joints: Tensor) -> Tensor:
    return joints - joints[..., _HIPS, :].mean(dim=-2, keepdim=True)


def joint_errors(pred: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return distances (..., 24) in metres: as they are, from the middle of the hips, and after Procrustes alignment.

    Args:
        pred, target: joints (..., 24, 3) in metres.
    """
    return {
        "mpjpe": _distance(pred, target),
        "pel_mpjpe": _distance(_from_hips(pred), _from_hips(target)),
        "pa_mpjpe": _distance(aligned(pred, target), target),
    }


def right_joints(pred: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Say which joints (..., 24) lie closer to the true place than a limit, both seen from the middle of the hips.

    Args:
        pred, target: joints (..., 24, 3) in metres.

    Returns:
        `pck` by `PCK_LIMIT`; `pckh` by the distance of neck and head; `pck_torso` by a fifth of that of neck and
        pelvis.
    """
    error = _distance(_from_hips(pred), _from_hips(target))
    neck = target[..., _NECK, :]
    head = _distance(neck, target[..., _HEAD, :])[..., None]
    torso = _distance(neck, target[..., _PELVIS, :])[..., None]
    return {"pck": error < PCK_LIMIT, "pckh": error < head, "pck_torso": error < _TORSO_SHARE * torso}


def figures(pred: Tensor, target: Tensor) -> dict[str, float]:
    """Return the mean of all errors in mm, and of all right joints in percent.

    Args:
        pred, target: joints (..., 24, 3) in metres.
    """
    pred, target = pred.double(), target.double()
    errors = {name: 1000 * value.mean().item() for name, value in joint_errors(pred, target).items()}
    right = {name: 100 * value.double().mean().item() for name, value in right_joints(pred, target).items()}
    return {**errors, **right}
