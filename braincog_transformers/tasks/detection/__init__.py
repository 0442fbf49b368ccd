"""Object detection: boxes with classes, by torchvision's detectors on any network of the zoo."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import timm
import torch
from torch import nn

from ...data.build import DataBundle, FrameRule
from ...data.loading.folders import find_root
from ...data.registry import TaskSet
from ...data.settings import Augment, Colours
from ...errors import UserError, listed, shown
from ...recipe import Options, keywords
from ...runtime.batch import Batch
from ..backbone import build_backbone, load_initial
from ..task import Call, Task
from .annotations import Annotations, compare_categories
from .coco import read_coco, require_pictures
from .detectors import DetectionLoss, Detector, build_detector
from .gen1 import BoxRule, read_gen1
from .meter import DetectionMeter, on_picture
from .pictures import plot_detections, shown_picture
from .samples import Frames, Photos, Samples, Variation
from .scene import scene_folder
from .settings import OF_LAYOUT, DetectionSettings

__all__ = ["Detection", "DetectionLoss", "DetectionMeter", "DetectionSettings", "Detector"]

_DRAWN = 5
"""Test samples in the picture."""
_ALIGNED = 32
"""Pixels that torchvision's detectors pad to."""


class Detection(Task):
    """Detection on sets in COCO's format and on Prophesee's Gen1, see `Task`.

    Samples are pictures on a canvas of --img-size, or frames of --event-size, whose aspect is kept; in training with
    --hflip and `jitter`. Figures are COCO's, in the pixels of the original pictures.
    """

    name = "detect"
    metric = "map"
    settings_type = DetectionSettings
    settings: DetectionSettings
    takes_target = True

    def __init__(self, options: Options):
        super().__init__(options)
        size = self.settings.size
        for flag, side in (("--img-size", options.data.img_size), ("--event-size", options.data.event_size)):
            if size and side:
                raise UserError(f"{flag} {side} and --task-kwargs size={size} say the same; leave one out")

    # Data

    def build_data(self, info: TaskSet, data_dir: Path) -> DataBundle:
        """Read the annotations of a set in COCO's format or of Gen1, or write the scene, see `Task.build_data`."""
        self._check_layout(info)
        run, look = self.options.run, self.options.analysis
        needs_train = not (run.eval or run.eval_checkpoint or look.analyze or look.audit)
        root = find_root(info, data_dir) if info.folders else scene_folder(info, data_dir)
        build = {"coco": self._coco, "gen1": self._gen1}[info.layout]
        train, test, lines = build(info, root, needs_train)
        if needs_train and (bare := train.annotations.without_box()):
            warnings.warn(
                f"{train.annotations.source}: no box has the class {listed([shown(name, 40) for name in bare], 4)}, so "
                "it can't be learnt",
                stacklevel=2,
            )
        classes = tuple(shown(name, 60) for _, name in test.annotations.categories)
        x, _ = test[0]
        return DataBundle(info, train, test, len(classes), tuple(x.shape), classes, tuple(lines))

    def _check_layout(self, info: TaskSet) -> None:
        """Refuse a set that there is no reader for, and options of sets of another layout."""
        if info.layout not in OF_LAYOUT:
            raise UserError(f"data set {info.name}: layout {info.layout!r} is none of {', '.join(OF_LAYOUT)}")
        given = keywords(self.options.task.task_kwargs)
        for layout, names in OF_LAYOUT.items():
            if layout != info.layout and (foreign := [name for name in names if name in given]):
                raise UserError(
                    f"--task-kwargs {foreign[0]}: for sets in the layout of {layout}, not for {info.name}; leave it out"
                )

    def _coco(self, info: TaskSet, root: Path, needs_train: bool) -> tuple[Samples, Samples, list[str]]:
        settings, data = self.settings, self.options.data
        sides: list[tuple[Annotations, Path]] = []
        lines: list[str] = []
        files = (settings.train_json, settings.val_json)
        for file, folder in zip(files[not needs_train :], ("train2017", "val2017")[not needs_train :], strict=True):
            annotations, left_out = read_coco(root / file, skip_bad_boxes=settings.skip_bad_boxes)
            pictures = root / (settings.images or folder)
            require_pictures(pictures, annotations)
            sides.append((annotations, pictures))
            lines += left_out
        if needs_train:
            (train, of_train), (val, of_val) = sides
            compare_categories(train, val)
            if not settings.keep_empty:
                train = train.chosen(train.places_with_box())
        else:
            ((val, of_val),) = sides
            train, of_train = val.chosen(val.places_with_box()[:0]), of_val
        own = info.colours or Colours(mean=(0.5,), std=(0.25,))
        colours = Colours(mean=data.mean, std=data.std).per_channel(own, info.in_chans)
        size = self._size(info, data.img_size)
        photos = [Photos(folder, one, *colours, data.max_pixels) for one, folder in ((train, of_train), (val, of_val))]
        return Samples(train, photos[0], size, self._varied(info)), Samples(val, photos[1], size), lines

    def _gen1(self, info: TaskSet, root: Path, needs_train: bool) -> tuple[Samples, Samples, list[str]]:
        settings, data = self.settings, self.options.data
        size = self._size(info, data.event_size)
        rule = FrameRule(
            sensor=info.size, size=size, steps=self._steps(), kind=data.frames, by=data.frames_by,
            remainder=data.remainder, clip=data.clip_counts, merge=data.merge_polarity, tau_us=data.surface_tau,
            resize=data.event_resize, norm=data.frame_norm,
        )  # fmt: skip
        boxes = BoxRule(settings.skip_us, settings.min_side, settings.min_diagonal, settings.skip_bad_boxes)
        about = {"sensor": info.size, "window_us": settings.window_us, "rule": boxes, "classes": info.classes}
        test, of_test, lines = read_gen1(root / settings.test_split, **about)
        if needs_train:
            train, of_train, further = read_gen1(root / "train", **about)
            lines = further + lines
        else:
            train, of_train = test.chosen(test.places_with_box()[:0]), []
        reads = [Frames(stretches, rule) for stretches in (of_train, of_test)]
        return Samples(train, reads[0], size, self._varied(info)), Samples(test, reads[1], size), lines

    def _size(self, info: TaskSet, side: int | None) -> tuple[int, int]:
        return self.settings.size or ((side, side) if side else info.size)

    def _varied(self, info: TaskSet) -> Variation:
        aug = self.options.aug
        if aug.no_aug:
            return Variation()
        return Variation(Augment(hflip=aug.hflip).filled(info.augment).hflip or 0.0, self.settings.jitter)

    def _steps(self) -> int:
        """Return --step, or the network's own number of steps."""
        model = self.options.model
        if model.step:
            return model.step
        with torch.device("meta"):
            return int(timm.create_model(model.model, **keywords(model.model_kwargs)).step)

    # Network

    def build_network(
        self, bundle: DataBundle, create: Callable[..., nn.Module], say: Callable[[str], object]
    ) -> Detector:
        """Build --model as the backbone of --detector, see `Task.build_network`."""
        task, chans = self.options.task, bundle.input_shape[-3]
        if chans != bundle.info.in_chans:
            create = partial(create, in_chans=chans)
        size = tuple(-(-side // _ALIGNED) * _ALIGNED for side in bundle.input_shape[-2:])
        body = build_backbone(create, task.head_time, size)
        detector = build_detector(task.detector, body, bundle.num_classes, self.settings)
        if path := self.options.model.initial_checkpoint:
            load_initial(detector, body, create, path, ema=self.options.run.use_ema, say=say)
        return detector

    # Training and measuring

    def criterion(self) -> DetectionLoss:
        """Return the sum of the detector's losses."""
        return DetectionLoss()

    def meter(self, bundle: DataBundle) -> DetectionMeter:
        """Return a new meter."""
        named = bundle.info.layout == "gen1"
        return DetectionMeter(bundle.test.annotations, self.options.task.score_threshold, named=named)

    # Pictures

    def draw(self, call: Call, bundle: DataBundle, folder: Path, to_device: Callable) -> Iterator[Path]:
        """Draw the first test samples twice, with their true boxes and with those found above --score-threshold."""
        samples, rows = bundle.test, []
        annotations = samples.annotations
        for i in range(min(_DRAWN, len(samples))):
            x, target = samples[i]
            moved, _ = to_device(x[None], Batch.stack([target]))
            boxes, scores, labels = on_picture(call(moved)[0], target.scale.numpy(), annotations.sizes[i])
            height, width = (max(1, round(side)) for side in target.scale.numpy() * annotations.sizes[i])
            picture = shown_picture(x, getattr(samples.read, "mean", ()), getattr(samples.read, "std", ()))
            scale = target.scale.numpy()[[1, 0, 1, 0]]
            true = annotations.of(i)
            found = [
                (box * scale, f"{bundle.classes[label]} {score:.2f}")
                for box, score, label in zip(boxes, scores, labels, strict=True)
                if score >= self.options.task.score_threshold
            ]
            seen = [(box * scale, bundle.classes[label]) for box, label in zip(true.corner, true.labels, strict=True)]
            rows.append((picture[:height, :width], seen, found))
        if rows:
            yield plot_detections(rows, folder / "detections.png")
