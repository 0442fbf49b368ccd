"""Clips of event frames and poses as samples, and how they are varied in training."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from torch.utils.data import Dataset

from ...models.rotations import Camera, matrices_from_axis_angles
from ...runtime.batch import Batch
from .files import Clip, read_frame, read_pose
from .geometry import crop_matrix, fit_translation, plane_rotation, transform, warp

__all__ = ["PoseClips", "merged", "unpacked"]

_TURNED, _TURN = 0.6, 20.0
_CROP = (0.8, 1.3)


def merged(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Return packed frames as one that has the events of all."""
    return np.bitwise_or.reduce(frames)


def unpacked(packed: np.ndarray, side: int, channels: int) -> Tensor:
    """Return packed frames (..., bytes) as binary ones (..., channels, side, side) of bytes."""
    bits = np.unpackbits(packed, axis=-1).reshape(*packed.shape[:-1], side, side, channels)
    return torch.from_numpy(np.moveaxis(bits, -1, -3).copy())


class PoseClips(Dataset):
    """Clips: T event frames, and the T+1 poses around them.

    A sample is (events (T, C, H, W) of 0 and 1, target), and the target a `Batch` of rotations (T+1, 24, 3, 3), trans
    (T+1, 3), beta (T+1, 10), joints3d (T+1, 24, 3), all in metres and radians before the camera, joints2d (T+1, 24, 2)
    in sides of the picture, and the `clip`, its index.

    Args:
        clips: first frames.
        steps: T.
        gaps: smallest and largest number of frames between two poses, of which one is drawn.
        side: of a stored event frame.
        frame_size: of a frame in a sample; a pixel has an event if one of those that it covers has one.
        augment: whether samples are turned and cropped, as in the published training.
        mirrored: share of samples that are mirrored, if their action has mirrored poses.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        steps: int,
        gaps: tuple[int, int],
        side: int,
        frame_size: int,
        augment: bool = False,
        mirrored: float = 0.0,
    ):
        self.clips, self.steps, self.gaps = list(clips), steps, gaps
        self.side, self.frame_size, self.augment, self.mirrored = side, frame_size, augment, mirrored

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, Batch]:
        """Return a sample.

        Raises:
            UserError: for a missing or damaged file.
        """
        low, high = self.gaps
        gap = low if low == high else int(torch.randint(low, high + 1, ()))
        action, frames = self.clips[index].action, self.frames(index, gap)
        mirror = bool(self.mirrored) and action.mirrored and bool(torch.rand(()) < self.mirrored)
        poses = [read_pose(action.pose(frame, mirrored=mirror)) for frame in frames]
        pose = {name: torch.from_numpy(np.stack([one[name] for one in poses])) for name in poses[0]}
        rotations = matrices_from_axis_angles(pose["body_pose"])
        size = self.side * self.side * action.channels // 8
        packed = [merged([read_frame(action.events(at + i), size) for i in range(gap)]) for at in frames[:-1]]
        events = unpacked(np.stack(packed), self.side, action.channels)
        if mirror:
            events = events.flip(-1)
        if self.augment:
            events, rotations, pose = self._varied(events, rotations, pose, mirror)
        # binary frames: the largest of the pixels that become one is whether any of them fired
        events = max_pool2d(events.float(), self.side // self.frame_size)
        target = {
            "rotations": rotations,
            **{name: pose[name] for name in ("trans", "beta", "joints3d")},
            "joints2d": pose["joints2d"] / self.side,
        }
        target = {name: value.float() for name, value in target.items()}
        return events, Batch(**target, clip=torch.tensor(index))

    def frames(self, index: int, gap: int) -> list[int]:
        """Return the numbers of the poses of a clip."""
        start = self.clips[index].start
        return list(range(start, start + self.steps * gap + 1, gap))

    def _varied(self, events: Tensor, rotations: Tensor, pose: dict[str, Tensor], mirror: bool):
        degrees = float(torch.randn(()).clamp(-1, 1)) * _TURN if torch.rand(()) < _TURNED else 0.0
        x, y, scale = (torch.rand(3, dtype=torch.float64) * (_CROP[1] - _CROP[0]) + _CROP[0]).tolist()
        x, y = self.side / 2 * x, self.side / 2 * y
        centre = (self.side - x - 1 if mirror else x, y)
        matrix = crop_matrix(centre, (self.side * scale,) * 2, (self.side,) * 2, degrees)
        turn = torch.eye(3, dtype=torch.float64)
        turn[:2, :2] = plane_rotation(-degrees)
        rotations = torch.cat([turn @ rotations[:, :1], rotations[:, 1:]], dim=1)
        # The root's rotation turns a body about its root, so the joints need no body model.
        still = pose["joints3d"] - pose["trans"][:, None]
        root = still[:, :1]
        still = (still - root) @ turn.T + root
        joints2d = transform(pose["joints2d"], matrix)
        trans = fit_translation(still, joints2d / self.side, Camera())
        new = {"joints2d": joints2d, "trans": trans, "joints3d": still + trans[:, None]}
        return warp(events, matrix), rotations, pose | new
