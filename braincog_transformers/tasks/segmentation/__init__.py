"""Semantic segmentation: a class for each pixel, by any network of the zoo with a light head."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

from torch import nn

from ...data import DatasetInfo
from ...data.build import DataBundle
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
_UNUSED = ("scale", "ratio", "aa", "reprob", "recount", "remode", "train_interpolation")
"""Augmentations of photos that have no sense for a mask, or another rule here."""


class Segmentation(Task):
    """Semantic segmentation on VOC's and ADE20K's folders, see `Task`.

    Training samples are crops of --img-size from pictures of random size, with --hflip, --vflip and --color-jitter. In
    the test a picture is seen whole, one at a time, its short side resized to --img-size, and the prediction is
    compared at the size of the mask: the published protocol of ADE20K.
    """

    name = "segment"
    metric = "miou"
    settings_type = SegmentationSettings
    settings: SegmentationSettings
    test_batch = 1  # pictures differ in size

    def __init__(self, options: Options):
        super().__init__(options)
        data, size = options.data, self.settings.size
        if size and data.img_size:
            raise UserError(f"--img-size {data.img_size} and --task-kwargs size={size} say the same; leave one out")
        if unused := [f"--{name.replace('_', '-')}" for name in _UNUSED if getattr(options.aug, name) is not None]:
            raise UserError(
                f"{', '.join(unused)}: segment resizes and crops by --task-kwargs resize, and erases nothing; leave it out"
            )
        if data.crop_pct is not None or data.interpolation is not None:
            raise UserError("--crop-pct, --interpolation: segment tests whole pictures, resized bilinearly; leave it out")

    # Data

    def build_data(self, info: DatasetInfo, data_dir: Path) -> DataBundle:
        """Read the lists of a set in VOC's or ADE20K's layout, or write the scene, see `Task.build_data`."""
        run, look = self.options.run, self.options.analysis
        if not info.folders:
            # found and read as a set of the user's own in the same layout
            info, data_dir = replace(info, folders=("VOCdevkit/VOC2012",)), scene_folder(info, data_dir)
        classes = self._classes(info)
        if (weights := self.settings.class_weights) and len(weights) != len(classes):
            raise UserError(f"--task-kwargs class_weights: has {len(weights)} numbers for {len(classes)} classes")
        needs_train = not (run.eval or run.eval_checkpoint or look.analyze or look.audit)
        pairs = find_pairs(info, data_dir, self.settings, needs_train=needs_train)
        rule = MaskRule(len(classes), FIRST_CLASS[info.layout], self.options.data.max_pixels)
        size = self._size(info)
        to_tensor = self._to_tensor(info)
        whole, centre = TestWhole(min(size), to_tensor), CentreCrop(size, to_tensor)
        varied = self._varied(info, size, to_tensor)
        train, test = Segments(pairs[0], rule, varied or centre), Segments(pairs[1], rule, whole)
        bad: tuple[str, ...] = ()
        if self.settings.skip_bad:
            bad = (*left_out(train, self.options.data.workers), *left_out(test, self.options.data.workers))
            for part, samples, needed in (("training", train, needs_train), ("test", test, True)):
                if needed and not len(samples):
                    raise UserError(f"data set {info.name}: no sample of the {part} part can be used; first, {bad[0]}")
        watched = Segments(test.pairs, rule, centre)
        return DataBundle(info, train, test, len(classes), (3, *size), classes, bad, watched)

    def _classes(self, info: DatasetInfo) -> tuple[str, ...]:
        given, file = self.options.data.num_classes, self.settings.class_names
        # 255 is void, so that K = 255 is the most that 8 bits can tell apart, from 0 or from 1 on
        if given is not None and not 2 <= given <= VOID - FIRST_CLASS.get(info.layout, 0):
            most = VOID - FIRST_CLASS.get(info.layout, 0)
            raise UserError(f"--num-classes {given}: masks of {info.layout}'s layout tell 2 to {most} classes apart")
        if file:
            names = tuple(shown(name, 60) for name in read_lines(Path(file), "the list of classes"))
            if len(set(names)) < len(names):
                raise UserError(f"{file}: names a class twice; give each its own name")
            if not 2 <= len(names) <= VOID - FIRST_CLASS.get(info.layout, 0) or given not in (None, len(names)):
                wanted = f"--num-classes {given}" if given else f"2 to {VOID - FIRST_CLASS.get(info.layout, 0)}"
                raise UserError(f"{file}: names {len(names)} classes, not {wanted}; correct one of the two")
            return names
        if given in (None, info.num_classes):
            return info.classes or tuple(f"class {number}" for number in range(info.num_classes))
        return tuple(f"class {number}" for number in range(given))

    def _size(self, info: DatasetInfo) -> tuple[int, int]:
        side = self.options.data.img_size
        return self.settings.size or ((side, side) if side else info.size)

    def _to_tensor(self, info: DatasetInfo) -> ToTensor:
        data = self.options.data
        colours = Colours(mean=data.mean, std=data.std)
        return ToTensor(*colours.per_channel(info.colours or Colours(mean=(0.5,), std=(0.25,)), 3))

    def _varied(self, info: DatasetInfo, size: tuple[int, int], to_tensor: ToTensor) -> TrainCrop | None:
        given = Augment(**{one.name: self.options.value(one.name) for one in fields(Augment)})
        augment = given.filled(info.augment)
        if augment.no_aug:
            return None
        chances = {name: getattr(augment, name) or 0.0 for name in ("hflip", "vflip")}
        jitter, share = augment.color_jitter or 0.0, self.settings.class_share
        return TrainCrop(size, self.settings.resize, share, **chances, jitter=jitter, to_tensor=to_tensor)

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


