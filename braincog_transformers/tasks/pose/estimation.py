"""The task `pose`: data, body, loss and figures."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data import DatasetInfo
from ...data.build import DataBundle
from ...data.formats.body_models import read_body_model
from ...data.formats.opening import named
from ...errors import UserError
from ...models.body_model import SMPL, Skeleton
from ...models.rotations import matrices_from_axis_angles
from ..task import Call, Task, TaskSettings
from .clips import PoseClips
from .files import LAYOUTS, Action, Clip, clips_of, find_actions, read_pose
from .losses import WEIGHTS, PoseLoss
from .meter import PoseMeter
from .scene import make_scene

__all__ = ["PoseEstimation", "PoseSettings"]

_STEPS = 8
"""T, as in the paper's shorter clips."""
_MIRRORED = 0.5
_KNOWN = 2000
"""Poses that are read before training, at most."""


@dataclass(frozen=True, kw_only=True)
class PoseSettings(TaskSettings):
    """Options of the task; the defaults are those of the published training.

    Args:
        largest_gap: a training clip has a pose at each frame, or each second, and so on up to this number.
        test_gap: frames from a pose of a test clip to the next one.
        augment: turn, crop and mirror training clips; `--hflip` is the share of mirrored ones, with or without it.
        test_actions: how the names of test actions begin; by default those of the set's test subjects.
        body_model: file of the body model SMPL; by default a skeleton that is fitted to training poses.
        mean_start: start from the mean pose of the training data, as other networks for poses do, and not from a random
            one; without effect on given weights.
        trans_weight, theta_weight, beta_weight, joints3d_weight, joints2d_weight: of the terms of the loss.
        geodesic: measure rotations by their angle in the loss, or else by the squared error of their matrices.
    """

    largest_gap: int = 3
    test_gap: int = 2
    augment: bool = True
    test_actions: tuple[str, ...] = ()
    body_model: str = ""
    mean_start: bool = False
    trans_weight: float = WEIGHTS["trans"]
    theta_weight: float = WEIGHTS["theta"]
    beta_weight: float = WEIGHTS["beta"]
    joints3d_weight: float = WEIGHTS["joints3d"]
    joints2d_weight: float = WEIGHTS["joints2d"]
    geodesic: bool = True

    def __post_init__(self) -> None:
        for name in ("largest_gap", "test_gap"):
            if not 1 <= getattr(self, name) <= 1000:
                raise UserError(f"{name}: takes a number of frames from 1 to 1000; got {getattr(self, name)}")
        for name, weight in self.weights.items():
            if not 0 <= weight < float("inf"):
                raise UserError(f"{name}_weight: takes a number from 0 on; got {weight}")
        if not any(self.weights.values()):
            raise UserError("trans_weight and all other weights are 0; give at least one term of the loss a weight")

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the loss by the names of its terms."""
        return {name: getattr(self, f"{name}_weight") for name in WEIGHTS}


def _clips(actions: list[Action], part: str, *, length: int, reach: int, stride: int) -> list[Clip]:
    """Return `clips_of` some actions; raise `UserError` where there are actions and no clip."""
    clips = clips_of(actions, length=length, reach=reach, stride=stride)
    if actions and not clips:
        raise UserError(
            f"{actions[0].folder}: no {part} clip, as in all {part} actions; each needs {length + 2} frames "
            "in a row, without gaps in their numbers (--step, and --task-kwargs largest_gap and test_gap, set how many)"
        )
    return clips


def _known_poses(bundle: DataBundle) -> tuple[str, dict[str, Tensor]]:
    """Return the name of a part of the data, and poses spread over it; an evaluation may have test data alone."""
    part, clips = ("training", bundle.train.clips) if len(bundle.train) else ("test", bundle.test.clips)
    clips = clips[:: -(-len(clips) // _KNOWN)]
    poses = [read_pose(clip.action.pose(clip.start)) for clip in clips]
    stacked = {name: torch.from_numpy(np.stack([pose[name] for pose in poses])) for name in poses[0]}
    return part, {**stacked, "rotations": matrices_from_axis_angles(stacked["body_pose"])}


class PoseEstimation(Task):
    """Poses of a person at the borders of T time slices, from the events in them."""

    name = "pose"
    metric = "pa_mpjpe"
    decreasing = True
    settings_type = PoseSettings
    settings: PoseSettings

    # Data

    def build_data(self, info: DatasetInfo, data_dir: Path) -> DataBundle:
        """See `Task`. The frames that a network sees are `--event-size` wide, or as stored."""
        side = info.size[0]
        if info.size != (side, side) or side * side * info.in_chans % 8:
            raise UserError(f"data set {info.name}: event frames must be square, and whole bytes; got {info.size}")
        frame_size = self.options.data.event_size or side
        if side % frame_size:
            raise UserError(f"--event-size {frame_size}: must divide the {side} pixels of a stored frame; take a half")
        steps, settings, hflip = self.options.model.step or _STEPS, self.settings, self.options.aug.hflip
        if not info.folders:
            make_scene(data_dir / info.name / LAYOUTS[info.layout].folder)
        mirrored = hflip if hflip is not None else _MIRRORED * settings.augment
        train, test = find_actions(info, data_dir, settings.test_actions, mirrored=mirrored > 0)
        shared = {"steps": steps, "side": side, "frame_size": frame_size}
        # as published, a training clip has room for a gap that is one larger than any that is drawn
        stride, reach = max(1, steps // LAYOUTS[info.layout].share), steps * settings.largest_gap
        train = PoseClips(
            _clips(train, "training", length=reach + steps, reach=reach, stride=stride),
            gaps=(1, settings.largest_gap), augment=settings.augment, mirrored=mirrored, **shared,
        )  # fmt: skip
        reach = steps * settings.test_gap
        test = PoseClips(
            _clips(test, "test", length=reach, reach=reach, stride=2 * steps), gaps=(settings.test_gap,) * 2, **shared
        )
        return DataBundle(info, train, test, 0, (steps, info.in_chans, frame_size, frame_size), ())

    # Network

    def build_network(self, bundle: DataBundle, create: Callable[..., nn.Module], say: Callable[[str], object]) -> Any:
        """Build the network with the body whose joints it puts out, and say which body that is."""
        network = super().build_network(bundle, create, say)
        part, poses = _known_poses(bundle)
        network.set_body(self._body(part, poses, say))
        if self.settings.mean_start and not (self.options.model.initial_checkpoint or self.options.model.pretrained):
            network.start_at(*(poses[name].mean(dim=0) for name in ("rotations", "trans", "beta")))
        return network

    def network_arguments(self, bundle: DataBundle) -> dict[str, Any]:
        """See `Task`."""
        steps, channels, _, side = bundle.input_shape
        return {"step": steps, "in_chans": channels, "img_size": side}

    def _body(self, part: str, poses: dict[str, Tensor], say: Callable[[str], object]) -> SMPL | Skeleton:
        if path := self.settings.body_model:
            arrays = read_body_model(Path(path))
            with named(path):
                body = SMPL(**arrays)
            say(f"joints are those of the body model {path}")
            return body
        body = Skeleton.fit(poses["rotations"], poses["beta"], poses["joints3d"], poses["trans"])
        say(
            f"no body model: joints are those of a skeleton, fitted to {len(poses['beta'])} {part} poses "
            f"({1000 * body.error:.1f} mm root mean square); --task-kwargs body_model=FILE takes SMPL's"
        )
        return body

    # Training and measuring

    def criterion(self) -> nn.Module:
        """See `Task`."""
        return PoseLoss(self.settings.weights, geodesic=self.settings.geodesic)

    def meter(self, bundle: DataBundle) -> PoseMeter:
        """See `Task`."""
        return PoseMeter(bundle.test)

    # Pictures

    def draw(self, call: Call, bundle: DataBundle, folder: Path, to_device: Callable) -> Iterator[Path]:
        """Draw the poses of the first test clip beside the true ones: `poses.png`."""
        from ...analysis.pictures.plots import save
        from .pictures import plot_poses

        x, target = bundle.test[0]
        output = call(to_device(x[None], target.map(lambda value: value[None]))[0])
        clip = bundle.test.clips[0]
        title = f"{clip.action.name}, frames {clip.start} to {bundle.test.frames(0, bundle.test.gaps[0])[-1]}"
        pred = {name: output[name][0].float().cpu().numpy() for name in ("joints2d", "joints3d")}
        truth = {name: target[name].numpy() for name in ("joints2d", "joints3d")}
        yield save(plot_poses(x.numpy(), pred, truth, title=title), folder / "poses.png")
