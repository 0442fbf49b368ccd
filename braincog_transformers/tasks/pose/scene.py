"""The scene `pose_scene`: a jointed figure that moves before an event camera, in the files of MMHPSD.

Angles of its joints are sums of sines. It is drawn as thick lines, and a pixel has an event where its brightness
changes. The 24 joints, their tree and the turned camera are those of the real set; bones and shape are made up.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from ...models.body_model import PARENTS
from ...models.rotations import Camera, matrices_from_axis_angles, project
from ..scenes import write_scene
from .files import JOINTS
from .geometry import fit_translation

__all__ = ["make_scene"]

_SEED = 17
_SUBJECTS, _TEST = range(1, 12), (1, 2, 7)
_GROUPS, _TEST_GROUPS = 4, 2
"""Actions of a subject that trains, and of one that tests."""
_FRAMES, _RATE = 36, 15
_SIDE, _CHANNELS, _FINER = 256, 4, 2
_CHANGE, _NOISE = 0.15, 3e-4
"""Change of the logarithm of the brightness that makes an event, and share of pixels with an event for no reason."""

_LEFT = {1: (0.08, -0.09, 0.0), 4: (0.04, -0.38, 0.0), 7: (-0.01, -0.40, -0.03), 10: (0.03, -0.06, 0.12),
         13: (0.08, 0.12, 0.0), 16: (0.10, 0.04, 0.0), 18: (0.26, -0.01, 0.0), 20: (0.25, 0.0, 0.0),
         22: (0.09, 0.0, 0.0)}  # fmt: skip
_MIDDLE = {0: (0.0, -0.2, 0.0), 3: (0.0, 0.12, 0.0), 6: (0.0, 0.14, 0.0), 9: (0.0, 0.05, 0.0),
           12: (0.0, 0.21, 0.0), 15: (0.0, 0.16, 0.04)}  # fmt: skip
"""Bones from parent to joint in metres, those of the left and of the middle; y points up, and the face along z."""
_OTHER_SIDE = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)
_SHAPES = (tuple(range(1, JOINTS)), (4, 5, 7, 8), (18, 19, 20, 21), (3, 6, 9, 12), (1, 2, 13, 14, 16, 17))
"""Bones that each of the first numbers of beta makes longer."""
_PER_BETA = 0.03
_THICK = {3: 0.11, 6: 0.12, 9: 0.12, 12: 0.05, 13: 0.09, 14: 0.09, 1: 0.08, 2: 0.08, 4: 0.075, 5: 0.075}
_OTHERS_THICK, _HEAD = 0.05, 0.10
"""Radii in metres of the bones, and of the head."""


def _bones() -> np.ndarray:
    bones = np.zeros((JOINTS, 3))
    for joint, bone in (_MIDDLE | _LEFT).items():
        bones[joint] = bone
    for joint, bone in _LEFT.items():
        bones[_OTHER_SIDE[joint]] = np.multiply(bone, (-1, 1, 1))
    return bones


def _shaped(beta: np.ndarray) -> np.ndarray:
    longer = np.ones(JOINTS)
    for number, joints in zip(beta, _SHAPES, strict=False):
        longer[list(joints)] += _PER_BETA * number
    return _bones() * longer[:, None]


def _joints(turns: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """Return joints (N, 24, 3) of a body with axis-angle turns (N, 24, 3), without translation."""
    local = matrices_from_axis_angles(torch.from_numpy(turns)).numpy()
    whole, joints = [local[:, 0]], [np.broadcast_to(bones[0], (len(turns), 3))]
    for joint in range(1, JOINTS):
        parent = PARENTS[joint]
        joints.append(joints[parent] + whole[parent] @ bones[joint])
        whole.append(whole[parent] @ local[:, joint])
    return np.stack(joints, axis=1)


def _motion(rng: np.random.Generator, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return axis-angle turns (N, 24, 3) and translations (N, 3) at some times in seconds."""

    def swing(middle: float, size: float) -> np.ndarray:
        slow, fast = rng.uniform(0.4, 0.6), rng.uniform(0.7, 1.0)
        phases = rng.uniform(0, 2 * np.pi, 2)
        waves = 0.7 * np.sin(2 * np.pi * slow * times + phases[0]) + 0.3 * np.sin(2 * np.pi * fast * times + phases[1])
        return middle + size * waves

    turns = np.zeros((len(times), JOINTS, 3))
    yaw = swing(0, 0.3) / 2
    # half a turn about x, which puts the body upright into the camera's coordinates, after a turn about its own y
    turns[:, 0, 0], turns[:, 0, 2] = np.pi * np.cos(yaw), np.pi * np.sin(yaw)
    turns[:, 3, 2] = swing(0, 0.15)
    for side, (hip, knee, shoulder, elbow) in ((1, (1, 4, 16, 18)), (-1, (2, 5, 17, 19))):
        turns[:, hip, 0], turns[:, hip, 2] = swing(-0.3, 0.5), side * swing(0.1, 0.2)
        turns[:, knee, 0] = swing(0.6, 0.6)
        turns[:, shoulder, 2], turns[:, shoulder, 1] = side * swing(-0.3, 1.1), side * swing(-0.2, 0.2)
        turns[:, elbow, 1] = side * swing(-0.7, 0.7)
    trans = np.stack([swing(0, 0.2), swing(0.05, 0.05), swing(3.1, 0.3)], axis=1)
    return turns, trans


def _drawn(joints: np.ndarray) -> np.ndarray:
    """Return the picture (H, W), brightness from 0 to 1, of joints (24, 3) before the camera."""
    side = _SIDE * _FINER
    picture = Image.new("L", (side, side), 110)
    draw = ImageDraw.Draw(picture)
    places = project(torch.from_numpy(joints), Camera()).numpy() * side
    scale = Camera().fx / Camera().width * side / joints[:, 2]
    parents = np.array(PARENTS[1:])
    order = np.argsort(-(joints[1:, 2] + joints[parents, 2]))  # the far ones first
    for joint in (order + 1).tolist():
        parent = PARENTS[joint]
        radius = _THICK.get(joint, _OTHERS_THICK) * scale[joint]
        bright = 20 + (joint * 97) % 230
        (x, y), (x2, y2) = places[joint], places[parent]
        draw.line((x, y, x2, y2), fill=bright, width=max(1, round(2 * radius)))
        round_end = _HEAD * scale[joint] if joint == 15 else radius
        for a, b, r in ((x, y, round_end), (x2, y2, radius)):
            draw.ellipse((a - r, b - r, a + r, b + r), fill=bright)
    return np.asarray(picture.reduce(_FINER), dtype=np.float32) / 255


def _write_action(folder: Path, shape: np.ndarray, rng: np.random.Generator) -> None:
    beta = np.concatenate([shape, np.zeros(10 - len(shape))])
    bones = _shaped(beta)
    times = np.arange(_FRAMES * _CHANNELS + 1) / (_RATE * _CHANNELS)
    turns, trans = _motion(rng, times)
    joints = _joints(turns, bones) + trans[:, None]
    bright = np.log(0.1 + np.stack([_drawn(one) for one in joints]))
    fired = np.abs(np.diff(bright, axis=0)) > _CHANGE
    fired |= rng.random(fired.shape) < _NOISE
    turns, trans, joints = turns[::_CHANNELS], trans[::_CHANNELS], joints[::_CHANNELS]
    seen = project(torch.from_numpy(joints), Camera()).numpy()
    # the mirror image of a picture, column 0 in the place of the last one
    other = turns[:, _OTHER_SIDE] * (1, -1, -1)
    other_seen = seen[:, _OTHER_SIDE].copy()
    other_seen[..., 0] = (_SIDE - 1) / _SIDE - other_seen[..., 0]
    still = _joints(other, bones)
    other_trans = fit_translation(torch.from_numpy(still), torch.from_numpy(other_seen), Camera()).numpy()
    for name, body, place, points, flat in (
        ("poses", turns, trans, joints, seen),
        ("poses_flip", other, other_trans, still + other_trans[:, None], other_seen),
    ):
        (folder / name).mkdir(parents=True)
        for frame in range(_FRAMES):
            np.savez_compressed(
                folder / name / f"pose_{frame:04d}.npz",
                joints3d=points[frame].astype(np.float32),
                joints2d=(flat[frame] * _SIDE).astype(np.float32),
                trans=place[frame, None].astype(np.float32),
                body_pose=body[frame].reshape(1, -1).astype(np.float32),
                beta=beta[None].astype(np.float32),
            )
    events = folder / f"events_frame_{_CHANNELS:02d}"
    events.mkdir()
    for frame, channels in enumerate(fired.reshape(_FRAMES, _CHANNELS, _SIDE, _SIDE)):
        packed = np.packbits(np.moveaxis(channels, 0, -1))
        np.savez_compressed(events / f"events_{frame:04d}.npz", events_frame=packed)


def make_scene(folder: Path) -> None:
    """Write the scene's actions, with the names of MMHPSD's, into `folder`, unless it is there; see `write_scene`.

    Subjects 01, 02 and 07 test, as in the real set.
    """
    write_scene(folder, _write)


def _write(folder: Path) -> None:
    for subject in tqdm(_SUBJECTS, "figure of pose_scene", unit="subject", mininterval=0.5):
        shape = np.random.default_rng((_SEED, subject)).normal(size=len(_SHAPES)).clip(-2, 2)
        for group in range(1, 1 + (_TEST_GROUPS if subject in _TEST else _GROUPS)):
            rng = np.random.default_rng((_SEED, subject, group))
            _write_action(folder / f"subject{subject:02d}_group{group}_time1", shape, rng)
