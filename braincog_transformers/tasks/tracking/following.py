"""The task: data, loss, figures and pictures of single-object tracking with events."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from ...data.build import DataBundle
from ...data.loading.folders import find_root
from ...data.registry import DatasetInfo
from ...errors import UserError, shown
from ...models.task_networks import TASK_NETWORKS
from ...recipe import keywords
from ..task import Call, Task, TaskSettings
from .files import Video, find_sequences
from .meter import TrackingMeter
from .samples import PairRules, Pairs, Videos
from .scene import make_scene
from .targets import Locations, TrackingLoss

__all__ = ["Tracking", "TrackingSettings"]

_ROWS, _COLUMNS = 3, 4


@dataclass(frozen=True, kw_only=True)
class TrackingSettings(TaskSettings):
    """Options of tracking. Where the paper's training is not published, they are those of SiamFC++.

    Args:
        pairs: training pairs of an epoch.
        most_apart: frames between the two of a pair, at most.
        negative: share of pairs from two sequences.
        scale: a search region is up to so many times larger or smaller in training.
        shift: in training the object is up to so many halves of the region from its middle.
        cls_weight, ctr_weight, box_weight: of the terms of the loss.
        alpha, gamma: of the focal loss.
        context: share of width and height that is added around an object.
        penalty: strength of the penalty for a change of size and aspect in the tracker.
        influence: share of the cosine window in the tracker's score.
        rate: of the change of the size.
        smallest: least side of a box in pixels.
        absent: leave frames with an empty box out, instead of refusing them.
    """

    pairs: int = 400_000
    most_apart: int = 100
    negative: float = 0.1
    scale: float = 1.3
    shift: float = 0.4
    cls_weight: float = 1.0
    ctr_weight: float = 1.0
    box_weight: float = 3.0
    alpha: float = 0.25
    gamma: float = 2.0
    context: float = 0.5
    penalty: float = 0.04
    influence: float = 0.21
    rate: float = 0.52
    smallest: float = 10.0
    absent: bool = False

    def __post_init__(self) -> None:
        limits = {
            "pairs": (1, 2**31), "most_apart": (0, 2**31), "negative": (0, 1), "scale": (1, 100), "shift": (0, 1),
            "alpha": (0, 1), "gamma": (0, 100), "context": (0, 100), "penalty": (0, 100), "influence": (0, 1),
            "rate": (0, 1), "smallest": (1, 2**16),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name}: takes a number from {low} to {high}; got {getattr(self, name)}")
        weights = self.cls_weight, self.ctr_weight, self.box_weight
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise UserError(f"cls_weight, ctr_weight, box_weight: take numbers from 0 on, not all 0; got {weights}")


class Tracking(Task):
    """Follow one object, whose box in the first frame is given, through event frames."""

    name = "track"
    metric = "auc"
    settings_type = TrackingSettings
    settings: TrackingSettings
    test_batch = 1

    # Data

    def build_data(self, info: DatasetInfo, data_dir: Path) -> DataBundle:
        """See `Task`: training pairs, whole test sequences, and pairs of these for the analysis."""
        if not info.folders:
            root = data_dir / info.name
            make_scene(root)
        else:
            root = find_root(info, data_dir)
        train, test = (find_sequences(root, part, absent=self.settings.absent) for part in ("train", "test"))
        rules, settings = self._rules, self.settings
        size = rules.search_size
        return DataBundle(
            info, Pairs(train, rules, settings.pairs, varied=True), Videos(test), 0, (2, 5, 3, size, size), (),
            watched=Pairs(test, rules, min(32, sum(len(one.frames) - 1 for one in test)), varied=False),
        )  # fmt: skip

    @cached_property
    def _rules(self) -> PairRules:
        """How pairs are made, for the network's sizes."""
        model, settings = self.options.model, self.settings
        if model.model.partition(".")[0] not in TASK_NETWORKS:
            raise UserError(f"--model {model.model} is no network of --task {self.name}")
        try:
            with torch.device("meta"):
                probe = timm.create_model(model.model, **keywords(model.model_kwargs))
        except Exception as error:  # of any kind: what a constructor makes of values that it doesn't check
            given = f"--model-kwargs {shown(' '.join(model.model_kwargs or ()), 150)}: " if model.model_kwargs else ""
            raise UserError(f"{given}--model {model.model} can't be built ({shown(error, 200)})") from error
        locations = Locations(probe.score_size, probe.total_stride, probe.x_size)
        return PairRules(
            probe.z_size, probe.x_size, locations, settings.context, settings.most_apart, settings.negative,
            settings.scale, settings.shift,
        )  # fmt: skip

    # Training and measuring

    def criterion(self) -> nn.Module:
        """See `Task`."""
        asked = self.settings
        return TrackingLoss(asked.cls_weight, asked.ctr_weight, asked.box_weight, asked.alpha, asked.gamma)

    def meter(self, bundle: DataBundle) -> TrackingMeter:
        """See `Task`."""
        names = ("penalty", "influence", "rate", "context", "smallest")
        return TrackingMeter(**{name: getattr(self.settings, name) for name in names})

    # Pictures

    def draw(self, call: Call, bundle: DataBundle, folder: Path, to_device: Callable) -> Iterator[Path]:
        """Draw `tracks.png`, boxes over event frames, and `success.png`, the curves of the sequences drawn there."""
        from ...analysis.pictures.plots import save
        from .pictures import plot_curves, plot_tracks

        meter, rows = self.meter(bundle), []
        for sequence in bundle.test.sequences[:_ROWS]:
            meter.update(call, sequence, 0)
            numbers = sorted(set(np.linspace(1, len(sequence.frames) - 1, _COLUMNS).round().astype(int).tolist()))
            boxes = np.array(meter.tracks[sequence.name]["boxes"])
            rows.append((sequence.name, [_drawn(sequence, number, boxes[number]) for number in numbers]))
        yield save(plot_tracks(rows), folder / "tracks.png")
        if curves := meter.curves():
            yield save(plot_curves(curves), folder / "success.png")


def _drawn(sequence: Video, number: int, box: np.ndarray) -> tuple[Any, ...]:
    events = sequence.frame(number).amax((1, 2)).numpy() / 255
    return number + 1, events, sequence.boxes[number].numpy(), box
