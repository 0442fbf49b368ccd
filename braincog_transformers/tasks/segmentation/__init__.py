"""Semantic segmentation: a class for each pixel, by any network of the zoo with a light head."""

from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn

from ...data.build import DataBundle
from ...data.loading.folders import find_root
from ...data.registry import TaskSet
from ...data.settings import Augment, Colours
from ...errors import UserError, shown
from ...recipe import Options
from ..backbone import build_backbone, load_initial
from ..task import Call, Task
from .folders import FIRST_CLASS, find_pairs, read_lines
from .masks import VOID, MaskRule
from .meter import SegmentationMeter, labels_of
from .network import SegmentationLoss, SegmentationNetwork
from .pictures import plot_segments, shown_picture
from .samples import CentreCrop, Segments, TestWhole, ToTensor, TrainCrop, left_out
from .scene import scene_folder
from .settings import SegmentationSettings

__all__ = ["Segmentation", "SegmentationLoss", "SegmentationMeter", "SegmentationNetwork", "SegmentationSettings"]

_DRAWN = 4
"""Test samples in the picture."""


class Segmentation(Task):
    """Semantic segmentation on VOC's and ADE20K's folders, see `Task`.

    Training samples are crops of --img-size from pictures of random size, with --hflip and --color-jitter. In the test
    a picture is seen whole, one at a time, its short side resized to --img-size, and the prediction is compared at the
    size of the mask: the published protocol of ADE20K.
    """

    name = "segment"
    metric = "miou"
    settings_type = SegmentationSettings
    settings: SegmentationSettings
    test_batch = 1  # pictures differ in size

    def __init__(self, options: Options):
        super().__init__(options)
        side, size = options.data.img_size, self.settings.size
        if size and side:
            raise UserError(f"--img-size {side} and --task-kwargs size={size} say the same; leave one out")

    # Data

    def build_data(self, info: TaskSet, data_dir: Path) -> DataBundle:
        """Read the lists of a set in VOC's or ADE20K's layout, or write the scene, see `Task.build_data`."""
        run, look = self.options.run, self.options.analysis
        if info.layout not in FIRST_CLASS:
            raise UserError(f"data set {info.name}: layout {info.layout!r} is none of {', '.join(FIRST_CLASS)}")
        root = find_root(info, data_dir) if info.folders else scene_folder(info, data_dir)
        classes = self._classes(info)
        if (weights := self.settings.class_weights) and len(weights) != len(classes):
            raise UserError(f"--task-kwargs class_weights: has {len(weights)} numbers for {len(classes)} classes")
        needs_train = not (run.eval or run.eval_checkpoint or look.analyze or look.audit)
        pairs = find_pairs(root, info.layout, self.settings, needs_train=needs_train)
        rule = MaskRule(len(classes), FIRST_CLASS[info.layout], self.options.data.max_pixels)
        size = self._size(info)
        to_tensor = self._to_tensor(info)
        varied, centre = self._varied(info, size, to_tensor), CentreCrop(size, to_tensor)
        train, test = Segments(pairs[0], rule, varied), Segments(pairs[1], rule, TestWhole(min(size), to_tensor))
        bad: list[str] = []
        for part, samples in (("training", train), ("test", test)) if self.settings.skip_bad else ():
            bad += (own := left_out(samples, self.options.data.workers))
            if own and not len(samples):
                raise UserError(f"data set {info.name}: no sample of its {part} part can be used; first, {own[0]}")
        watched = Segments(test.pairs, rule, centre)
        return DataBundle(info, train, test, len(classes), (3, *size), classes, tuple(bad), watched)

    def _classes(self, info: TaskSet) -> tuple[str, ...]:
        """Return the names of the set's classes, or of the user's own."""
        count, file = self.settings.num_classes, self.settings.class_names
        if not file:
            self._check_count(info, info.num_classes if count is None else count, "--task-kwargs num_classes")
            if count in (None, info.num_classes) and info.classes:
                return info.classes
            return tuple(f"class {number}" for number in range(count or info.num_classes))
        names = tuple(shown(name, 60) for name in read_lines(Path(file), "the list of classes"))
        self._check_count(info, len(names), file)
        if len(set(names)) < len(names):
            raise UserError(f"{file}: names a class twice; give each a name of its own")
        if count not in (None, len(names)):
            raise UserError(f"{file}: names {len(names)} classes, and --task-kwargs num_classes says {count}")
        return names

    @staticmethod
    def _check_count(info: TaskSet, count: int, said: str) -> None:
        """Refuse a number of classes that the numbers of a mask, 0 or 1 to 254, can't tell apart."""
        most = VOID - FIRST_CLASS[info.layout]
        if not 2 <= count <= most:
            raise UserError(f"{said}: {count} classes; masks of {info.layout}'s layout tell 2 to {most} apart")

    def _size(self, info: TaskSet) -> tuple[int, int]:
        side = self.options.data.img_size
        return self.settings.size or ((side, side) if side else info.size)

    def _to_tensor(self, info: TaskSet) -> ToTensor:
        data = self.options.data
        colours = Colours(mean=data.mean, std=data.std)
        return ToTensor(*colours.per_channel(info.colours or Colours(mean=(0.5,), std=(0.25,)), 3))

    def _varied(self, info: TaskSet, size: tuple[int, int], to_tensor: ToTensor) -> TrainCrop:
        given = {name: getattr(self.options.aug, name) for name in ("hflip", "color_jitter")}
        augment = Augment(**given).filled(info.augment)
        flip, jitter = augment.hflip or 0.0, augment.color_jitter or 0.0
        return TrainCrop(size, self.settings.resize, self.settings.class_share, flip, jitter, to_tensor)

    # Network

    def build_network(
        self, bundle: DataBundle, create: Callable[..., nn.Module], say: Callable[[str], object]
    ) -> SegmentationNetwork:
        """Build --model as a backbone, and the head, see `Task.build_network`."""
        backbone = build_backbone(create, self.options.task.head_time, bundle.input_shape[-2:])
        network = SegmentationNetwork(backbone, bundle.num_classes, self.settings)
        if path := self.options.model.initial_checkpoint:
            load_initial(network, backbone, create, path, ema=self.options.run.use_ema, say=say)
        return network

    # Training and measuring

    def criterion(self) -> SegmentationLoss:
        """Return the cross entropy without void."""
        return SegmentationLoss(self.settings.class_weights, self.settings.auxiliary)

    def meter(self, bundle: DataBundle) -> SegmentationMeter:
        """Return a new meter."""
        return SegmentationMeter(bundle.test, bundle.classes, self.criterion(), self.settings.save_masks)

    # Pictures

    def draw(self, call: Call, bundle: DataBundle, folder: Path, to_device: Callable) -> Iterator[Path]:
        """Draw the first test samples: picture, truth, prediction."""
        rows, to_tensor = [], bundle.test.transform.to_tensor
        for index in range(min(_DRAWN, len(bundle.test))):
            x, target = bundle.test[index]
            moved, _ = to_device(x[None], target.labels[None])
            truth = target.labels.numpy()
            guess = labels_of(call(moved)[0], truth.shape).cpu().numpy()
            rows.append((shown_picture(x, to_tensor.mean, to_tensor.std), truth, guess))
        yield plot_segments(rows, bundle.classes, folder / "segments.png")
