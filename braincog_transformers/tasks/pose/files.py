"""Files of poses and event frames: their layouts, the clips in them, and what is read of each file.

All sets have a folder for each action, with `poses/pose_0001.npz`, often mirrored ones in `poses_flip`, and
`events_frame_04/events_0001.npz`. A frame holds the events up to the next pose as packed bits.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data import DatasetInfo
from ...data.formats.arrays import npz_arrays
from ...data.formats.opening import file_bytes, named
from ...data.loading.folders import MissingData, find_root, visible
from ...errors import UserError, listed, unknown

__all__ = ["JOINTS", "LAYOUTS", "Action", "Clip", "Layout", "clips_of", "find_actions", "read_frame", "read_pose"]

JOINTS = 24
_SHAPES = {
    "joints3d": ((JOINTS, 3),),
    "joints2d": ((JOINTS, 2), (JOINTS, 3)),
    "trans": ((1, 3), (3,)),
    "body_pose": ((1, 3 * JOINTS), (3 * JOINTS,)),
    "beta": ((1, 10), (10,)),
}
"""Of the arrays of a pose; Human3.6M's lack the axis in front."""
_POSES, _MIRRORED, _EVENTS = "poses", "poses_flip", "events_frame_{:02d}"


@dataclass(frozen=True)
class Layout:
    """Say how a set is laid out and split.

    Args:
        folder: that holds the actions.
        depth: folders from there to an action.
        test: how the names of test actions begin; none where the published code only trains on the set.
        share: a training clip starts every T / share frames.
        mirrored: whether training also reads `poses_flip`.
    """

    folder: str
    depth: int = 1
    test: tuple[str, ...] = ()
    share: int = 2
    mirrored: bool = True


LAYOUTS = {
    "mmhpsd": Layout("mmhpsd_events", test=("subject01_", "subject02_", "subject07_"), share=8),
    "h36m_events": Layout("h36m_events_processed", test=("s_09", "s_11"), mirrored=False),
    "phspd": Layout("phspd_events", test=("subject04_", "subject07_", "subject11_")),
    "amass_events": Layout("amass_events", depth=3, share=1),
}


@dataclass(frozen=True)
class Action:
    """One recorded action.

    Args:
        name: its folder, below that of the set.
        folder: its path.
        channels: of an event frame.
        mirrored: whether it has mirrored poses.
    """

    name: str
    folder: Path
    channels: int
    mirrored: bool

    def pose(self, frame: int, *, mirrored: bool = False) -> Path:
        """Return the file of a pose."""
        return self.folder / (_MIRRORED if mirrored else _POSES) / f"pose_{frame:04d}.npz"

    def events(self, frame: int) -> Path:
        """Return the file of the events from a pose to the next one."""
        return self.folder / _EVENTS.format(self.channels) / f"events_{frame:04d}.npz"


@dataclass(frozen=True)
class Clip:
    """The first frame of a clip, and the action that it is part of."""

    action: Action
    start: int


def find_actions(
    info: DatasetInfo, data_dir: Path, test: Sequence[str], *, mirrored: bool
) -> tuple[list[Action], list[Action]]:
    """Return the training and the test actions of a set.

    Args:
        info: entry of the set.
        data_dir: folder in which it is looked for; a scene is in a folder of its name there.
        test: how the names of test actions begin; by default the layout's.
        mirrored: whether mirrored poses are wanted; a warning names actions that lack them.

    Raises:
        UserError: for a set that is not there, an action without poses or events, or no test action.
    """
    if info.layout not in LAYOUTS:
        raise unknown(f"layout of poses (data set {info.name})", info.layout, LAYOUTS)
    layout = LAYOUTS[info.layout]
    root = (find_root(info, data_dir) if info.folders else data_dir / info.name) / layout.folder
    folders = [path for path in visible(root, "/".join("*" * layout.depth)) if path.is_dir()]
    wanted = mirrored and layout.mirrored
    actions = [_action(path, path.relative_to(root).as_posix(), info.in_chans, wanted) for path in folders]
    if not actions:
        raise MissingData(f"{root}: holds no actions; expected {info.tree} below --data-dir")
    begin = tuple(test) or layout.test
    if not begin:
        raise UserError(
            f"data set {info.name} has no test split; say which actions test with --task-kwargs "
            f"test_actions=['{actions[-1].name.rpartition('/')[0] or actions[-1].name}'] (how their names begin)"
        )
    train = [action for action in actions if not action.name.startswith(begin)]
    lacking = [action.name for action in train if not action.mirrored]
    if wanted and lacking:
        warnings.warn(f"{root}: {listed(lacking)} lack {_MIRRORED}, and are not mirrored in training", stacklevel=3)
    return train, [action for action in actions if action.name.startswith(begin)]


def _action(folder: Path, name: str, channels: int, mirrored: bool) -> Action:
    action = Action(name, folder, channels, mirrored and (folder / _MIRRORED).is_dir())
    for part in (action.pose(0).parent, action.events(0).parent):
        if not part.is_dir():
            raise MissingData(f"{part}: missing; an action has {_POSES} and {_EVENTS.format(channels)}, copy both")
    return action


def clips_of(actions: Sequence[Action], *, length: int, reach: int, stride: int) -> list[Clip]:
    """Return the clips of actions whose files are complete.

    Args:
        actions: in the order of the clips.
        length: frames from the first pose of a clip to its last. As published, one more has to be there.
        reach: frames whose events a clip may need.
        stride: files from the start of a clip to that of the next.

    Returns:
        The clips; those that lack event frames are left out with a warning.
    """
    clips = []
    for action in actions:
        poses = _numbers(action.pose(0).parent, "pose")
        events = np.array(_numbers(action.events(0).parent, "events"), dtype=np.int64)
        starts = [
            start
            for start, end in zip(poses[::stride], poses[length + 1 :: stride], strict=False)
            if end - start == length + 1
        ]
        # sorted numbers without gaps: the place of the first and of the one behind the last tell how many there are
        have = np.searchsorted(events, np.array(starts, dtype=np.int64)[:, None] + [0, reach])
        full = (have[:, 1] - have[:, 0]) == reach
        if not full.all():
            first, known = starts[int(full.argmin())], set(events.tolist())
            path = action.events(next(frame for frame in range(first, first + reach) if frame not in known))
            problem = f"{path}: missing; {np.sum(~full)} of {len(starts)} clips of {action.name} are left out"
            warnings.warn(problem, stacklevel=3)
        clips += [Clip(action, start) for start, whole in zip(starts, full, strict=True) if whole]
    return clips


def _numbers(folder: Path, kind: str) -> list[int]:
    """Return the numbers of a folder's files, in order."""
    numbers = []
    for path in folder.iterdir():
        if match := re.fullmatch(rf"{kind}_([0-9]{{4,15}})\.npz", path.name):
            numbers.append(int(match[1]))
            if path.name != f"{kind}_{numbers[-1]:04d}.npz":
                raise UserError(f"{path}: has more digits than {kind}_{numbers[-1]:04d}.npz; rename it")
    return sorted(numbers)


def read_pose(path: Path) -> dict[str, np.ndarray]:
    """Read a pose: joints3d (24, 3), joints2d (24, 2) in pixels, trans (3,), body_pose (24, 3), and beta (10,).

    Raises:
        UserError: for a file that is damaged, or has arrays of other shapes, or numbers that are not finite.
    """
    with named(path):
        arrays = dict(zip(_SHAPES, npz_arrays(file_bytes(path), list(_SHAPES)), strict=True))
        for name, array in arrays.items():
            fits = array.shape in _SHAPES[name] or (name == "joints2d" and _has_columns(array))
            if not fits or array.dtype.kind not in "fiu":
                shapes = " or ".join(map(str, _SHAPES[name]))
                raise UserError(f"{name} is {array.dtype} {array.shape}; it needs numbers of shape {shapes}")
            if not np.isfinite(array).all():
                raise UserError(f"{name} holds numbers that are not finite; make the file anew")
        arrays["joints2d"] = arrays["joints2d"][:, :2]
        shapes = {"trans": 3, "body_pose": (JOINTS, 3), "beta": 10}
        return {name: array.reshape(shapes.get(name, array.shape)).astype(np.float64) for name, array in arrays.items()}


def _has_columns(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.shape[0] == JOINTS and array.shape[1] >= 2


def read_frame(path: Path, size: int) -> np.ndarray:
    """Read an event frame as packed bits: `size` bytes.

    Raises:
        UserError: for a file that is damaged, or holds a frame of another size.
    """
    with named(path):
        (packed,) = npz_arrays(file_bytes(path), ["events_frame"])
        if packed.dtype != np.uint8 or packed.size != size:
            has = f"{packed.size} numbers of type {packed.dtype}"
            raise UserError(f"events_frame has {has}; a frame of this set is {size} bytes (packed bits)")
        return packed.reshape(-1)
