"""The body whose joints a pose turns: SMPL, with the user's own file, or a skeleton that is fitted to known poses.

Loper, Mahmood, Romero, Pons-Moll, Black: SMPL: A Skinned Multi-Person Linear Model. ACM Transactions on Graphics 34(6),
2015, doi 10.1145/2816795.2818013. Its numbers are licensed (https://smpl.is.tue.mpg.de) and not part of this package;
`data.formats.body_models` reads the file.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..runtime.batch import Batch

__all__ = ["JOINT_NAMES", "PARENTS", "SMPL", "Skeleton", "joint_positions"]

JOINT_NAMES = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder"),
    *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand"),
)
"""The joints of SMPL, the root first."""
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""The joint that each joint hangs on, -1 for the root."""
JOINTS, SHAPES = len(PARENTS), 10


def joint_positions(rotations: Tensor, offsets: Tensor, parents: Sequence[int] = PARENTS) -> tuple[Tensor, Tensor]:
    """Turn a chain of joints.

    Args:
        rotations: of each joint against its parent, `(N, 24, 3, 3)`.
        offsets: from each joint's parent to it at rest, of the root from the origin, `(N, 24, 3)`, metres.
        parents: of each joint, earlier ones; -1 for the root.

    Returns:
        Rotations against the camera `(N, 24, 3, 3)`, and positions `(N, 24, 3)`.
    """
    turned = {0: rotations[:, 0]}
    for joints in _generations(parents):
        before = torch.stack([turned[parents[joint]] for joint in joints], 1)
        turned.update(zip(joints, (before @ rotations[:, joints]).unbind(1), strict=True))
    turned = torch.stack([turned[joint] for joint in range(len(parents))], 1)
    steps = (turned[:, list(parents[1:])] @ offsets[:, 1:].unsqueeze(-1)).squeeze(-1)
    places = [offsets[:, 0]]
    for joint, parent in enumerate(parents[1:], 1):
        places.append(places[parent] + steps[:, joint - 1])
    return turned, torch.stack(places, 1)


def _generations(parents: Sequence[int]) -> list[list[int]]:
    """Return the joints that are one, two, three and so on bones away from the root."""
    ages = [0]
    for parent in parents[1:]:
        ages.append(ages[parent] + 1)
    return [[joint for joint, age in enumerate(ages) if age == wanted] for wanted in range(1, max(ages) + 1)]


def _bones(joints: Tensor, parents: Sequence[int]) -> Tensor:
    """Return the offsets from each joint's parent to it, of the root from the origin, `(..., 24, 3)`."""
    return torch.cat((joints[..., :1, :], joints[..., 1:, :] - joints[..., list(parents[1:]), :]), -2)


class _Body(nn.Module):
    """A body model. Its tensors are no part of a state dict."""

    def _hold(self, **tensors: Tensor) -> None:
        for name, value in tensors.items():
            self.register_buffer(name, value, persistent=False)


class SMPL(_Body):
    """The body model SMPL: a surface whose vertices follow 24 joints.

    Args:
        v_template: vertices of the mean body, `(V, 3)`, metres.
        shapedirs: how they move with each number of shape, `(V, 3, 10)`; of more numbers the first ten are taken.
        posedirs: how they move with each entry of the rotations of joints 1 to 23, `(V, 3, 207)`.
        J_regressor: joints as weighted sums of vertices, `(24, V)`.
        weights: how much each vertex follows each joint, `(V, 24)`.
        kintree_table: parents of the joints in its first row, `(2, 24)`, or alone, `(24,)`.
        **others: further fields of an official file, which aren't read.

    Raises:
        UserError: for a field of another shape, or that holds no finite numbers.
    """

    def __init__(
        self,
        *,
        v_template: Any,
        shapedirs: Any,
        posedirs: Any,
        J_regressor: Any,
        weights: Any,
        kintree_table: Any,
        **others: Any,
    ):
        super().__init__()
        count = len(v_template) if np.ndim(v_template) else 0
        fields = {
            "v_template": _numbers("v_template", v_template, (count, 3)),
            "shapedirs": _numbers("shapedirs", shapedirs, (count, 3, SHAPES), more=True),
            "posedirs": _numbers("posedirs", posedirs, (count, 3, 9 * (JOINTS - 1))),
            "J_regressor": _numbers("J_regressor", J_regressor, (JOINTS, count)),
            "weights": _numbers("weights", weights, (count, JOINTS)),
        }
        self.parents = _parents(kintree_table)
        self._hold(
            v_template=fields["v_template"],
            shapedirs=fields["shapedirs"][..., :SHAPES].flatten(0, 1).T.contiguous(),
            posedirs=fields["posedirs"].flatten(0, 1).T.contiguous(),
            J_regressor=fields["J_regressor"],
            weights=fields["weights"],
        )

    def forward(self, rotations: Tensor, beta: Tensor) -> Batch:
        """Pose the body.

        Args:
            rotations: of each joint against its parent, `(N, 24, 3, 3)`.
            beta: numbers of shape, `(N, 10)`.

        Returns:
            joints3d `(N, 24, 3)` and vertices `(N, V, 3)`, metres, without translation.
        """
        shaped = self.v_template + (beta @ self.shapedirs).unflatten(1, (-1, 3))
        rest = self.J_regressor @ shaped
        eye = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        posed = shaped + ((rotations[:, 1:] - eye).flatten(1) @ self.posedirs).unflatten(1, (-1, 3))
        turned, joints = joint_positions(rotations, _bones(rest, self.parents), self.parents)
        moved = joints - (turned @ rest.unsqueeze(-1)).squeeze(-1)
        blended = torch.einsum("vj,njab->nvab", self.weights, turned)
        vertices = (blended @ posed.unsqueeze(-1)).squeeze(-1) + self.weights @ moved
        return Batch(joints3d=joints, vertices=vertices)


class Skeleton(_Body):
    """The joints of SMPL alone: bones whose ends depend linearly on the numbers of shape.

    This is exactly what SMPL's joints are, so that a skeleton which is fitted to poses of a data set takes the place of
    the licensed file where no surface is needed.

    Args:
        offsets: from each joint's parent to it at rest, of the root from the origin, `(24, 3)`, metres.
        shapes: how they change with each number of shape, `(10, 24, 3)`; None for not at all.

    Attributes:
        error: of a fitted skeleton, the root mean square distance to the joints that it was fitted to, metres.
    """

    error = 0.0

    def __init__(self, offsets: Tensor, shapes: Tensor | None = None):
        super().__init__()
        offsets = _numbers("offsets", offsets, (JOINTS, 3))
        shapes = torch.zeros(SHAPES, JOINTS, 3) if shapes is None else shapes
        self._hold(offsets=offsets, shapes=_numbers("shapes", shapes, (SHAPES, JOINTS, 3)))

    @classmethod
    def fit(cls, rotations: Tensor, beta: Tensor, joints3d: Tensor, trans: Tensor | None = None) -> "Skeleton":
        """Fit bones to known poses, by least squares; what the shapes at hand don't show stays as in their mean.

        Args:
            rotations: `(N, 24, 3, 3)`.
            beta: `(N, 10)`.
            joints3d: `(N, 24, 3)`, metres.
            trans: `(N, 3)`, where the joints are those of a translated body; None where they aren't.

        Raises:
            UserError: for shapes that don't fit, no pose, or numbers that aren't finite.
        """
        rotations = _numbers("rotations", rotations, (len(rotations), JOINTS, 3, 3)).double()
        count = len(rotations)
        beta = _numbers("beta", beta, (count, SHAPES)).double()
        joints = _numbers("joints3d", joints3d, (count, JOINTS, 3)).double()
        if trans is not None:
            joints = joints - _numbers("trans", trans, (count, 3)).double().unsqueeze(1)
        if not count:
            raise UserError("a skeleton is fitted to poses, and there are none; give at least one")
        turned, _ = joint_positions(rotations, torch.zeros_like(joints))
        bones = _bones(joints, PARENTS)
        # a bone hangs on its parent, and turns with it
        bones[:, 1:] = (turned[:, list(PARENTS[1:])].transpose(-2, -1) @ bones[:, 1:].unsqueeze(-1)).squeeze(-1)
        middle, mean = beta.mean(0), bones.mean(0)
        shapes = torch.linalg.pinv(beta - middle, rtol=1e-6) @ (bones - mean).flatten(1)
        shapes = shapes.unflatten(1, (JOINTS, 3))
        fitted = cls((mean - torch.einsum("s,sjx->jx", middle, shapes)).float(), shapes.float())
        found = fitted(rotations.float(), beta.float()).joints3d
        fitted.error = (found - joints).square().sum(-1).mean().sqrt().item()
        return fitted

    def forward(self, rotations: Tensor, beta: Tensor) -> Batch:
        """Pose the skeleton: rotations `(N, 24, 3, 3)` and numbers of shape `(N, 10)` give joints3d `(N, 24, 3)`."""
        bones = self.offsets + (beta @ self.shapes.flatten(1)).unflatten(1, (JOINTS, 3))
        return Batch(joints3d=joint_positions(rotations, bones)[1])


def _numbers(name: str, given: Any, shape: tuple[int, ...], *, more: bool = False) -> Tensor:
    """Return a field as float32; with `more`, its last axis may be longer."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is named below
            numbers = given.detach() if isinstance(given, Tensor) else torch.from_numpy(np.array(given, np.float32))
        found = numbers.float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"body model: {name} must be numbers; got {type(given).__name__}") from error
    fits = found.shape[:-1] == shape[:-1] and found.dim() and (more or found.shape[-1] == shape[-1])
    if not fits or found.shape[-1] < shape[-1]:
        raise UserError(f"body model: {name} must be {shape}; got {tuple(found.shape)}")
    if not found.isfinite().all():
        raise UserError(f"body model: {name} holds numbers that are not finite; the file is damaged")
    return found


def _parents(table: Any) -> tuple[int, ...]:
    """Return the parents of the joints, -1 for the root, which files of unsigned numbers write as 2^32 - 1."""
    found = np.asarray(table)
    row = found[0] if found.ndim == 2 else found
    if row.shape != (JOINTS,):
        raise UserError(f"body model: kintree_table must be (2, {JOINTS}) or ({JOINTS},); got {found.shape}")
    parents = (-1, *(int(one) for one in row[1:]))
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents[1:], 1)):
        raise UserError(f"body model: kintree_table must give each joint an earlier parent; got {parents}")
    return parents
