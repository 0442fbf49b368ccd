"""The task: data, loss, figures and pictures of monocular depth from spikes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...data.build import DataBundle
from ...data.loading.folders import describe, find_root, visible
from ...data.registry import DatasetInfo
from ...errors import UserError
from ...runtime.batch import Batch
from ..task import Meter, Task
from .files import Stream
from .frames import DepthFrames, Reading, StreamWindows, count_frames, find_sequences, pair_files
from .labels import to_metres
from .losses import DepthLoss
from .meter import DepthMeter
from .pictures import draw_depth
from .scene import make_scene
from .settings import DepthSettings

__all__ = ["DepthEstimation"]

_DRAWN = 4


class DepthEstimation(Task):
    """Estimate the depth of every pixel; epochs are ranked by the absolute relative error."""

    name = "depth"
    metric = "abs_rel"
    decreasing = True
    settings_type = DepthSettings
    settings: DepthSettings

    def build_data(self, info: DatasetInfo, data_dir: Path) -> DataBundle:
        """Read the list of files; a scene is made first, and a raw stream has no training part."""
        if not info.folders:
            root = data_dir / info.name
            make_scene(root)
        else:
            root = find_root(info, data_dir)
        train, test = (self._streams if info.layout == "stream" else self._sequences)(info, root)
        return DataBundle(info, train, test, 0, (test.frames, *self._size(info)), ())

    def _size(self, info: DatasetInfo) -> tuple[int, int]:
        side = self.options.data.img_size
        return (side, side) if side else info.size

    def _reading(self, info: DatasetInfo, *, train: bool) -> Reading:
        asked, flip = self.settings, self.options.aug.hflip
        flip = (0.5 if flip is None else flip) if train else None
        return Reading(self._size(info), asked.clip_distance, asked.reg_factor, asked.normalize, flip)

    def _sequences(self, info: DatasetInfo, root: Path) -> tuple[DepthFrames, DepthFrames]:
        frames, parts = None, []
        for part in ("train", self.settings.scored):
            pairs = []
            for sequence, spikes in find_sequences(root / part, self.settings.spikes):
                pairs += (found := pair_files(sequence, spikes))
                frames = count_frames(found[0], frames, self._size(info))
            parts.append(pairs)
        if not parts[1]:
            raise UserError(
                f"{root / self.settings.scored}: holds no sequences; complete it, or choose --task-kwargs "
                f"scored={'validation' if self.settings.scored == 'test' else 'test'}"
            )
        train, test = (
            DepthFrames(pairs, self._reading(info, train=not number), frames) for number, pairs in enumerate(parts)
        )
        return train, test

    def _streams(self, info: DatasetInfo, root: Path) -> tuple[DepthFrames, StreamWindows]:
        paths = visible(root, "*.dat") or visible(root, "*/*.dat")
        if not paths:
            raise UserError(f"{root}: holds no .dat files; {describe(info.name, root.parent)}")
        asked, reading = self.settings, self._reading(info, train=False)
        names = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
        streams = [Stream(path, asked.height, asked.width, name) for path, name in zip(paths, names, strict=True)]
        return DepthFrames([], reading, asked.frames), StreamWindows(streams, reading, asked.frames, asked.stride)

    def network_arguments(self, bundle: DataBundle) -> dict[str, Any]:
        """Return how many frames the network reads."""
        return {"in_chans": bundle.input_shape[0]}

    def build_network(self, bundle: DataBundle, create: Callable[..., nn.Module], say: Callable[[str], object]) -> Any:
        """Build the network, and check that pictures of the data fit it."""
        network = super().build_network(bundle, create, say)
        multiple = getattr(network, "multiple", 1)
        if any(side % multiple for side in bundle.input_shape[1:]):
            raise UserError(
                f"--img-size: {self.options.model.model} takes multiples of {multiple} pixels; got "
                f"{'x'.join(map(str, bundle.input_shape[1:]))}"
            )
        return network

    def criterion(self) -> nn.Module:
        """Return the published loss."""
        return DepthLoss(self.settings.si_lambda, self.settings.grad_weight)

    def meter(self, bundle: DataBundle) -> Meter:
        """Return a new meter."""
        return DepthMeter(bundle.test, self.settings)

    def draw(self, call: Any, bundle: DataBundle, folder: Path, to_device: Callable) -> Iterator[Path]:
        """Draw `depth.png`: some test frames, evenly spaced; without labels the prediction alone."""
        samples, ends = bundle.test, (self.settings.clip_distance, self.settings.reg_factor)
        chosen = sorted(set(np.linspace(0, len(samples) - 1, _DRAWN).round().astype(int).tolist()))
        x, target = (part[0].stack(part) if isinstance(part[0], Batch) else torch.stack(part)
                     for part in map(list, zip(*(samples[index] for index in chosen), strict=True)))  # fmt: skip
        predicted = call(to_device(x, target)[0]).float().cpu()
        truth, predicted = (to_metres(one[:, 0], *ends).numpy() for one in (target.depth, predicted))
        names = [f"{sequence} no. {number}" for sequence, number, _ in map(samples.place, chosen)]
        truth = list(truth) if samples.labelled else None
        yield draw_depth(list(x.mean(1).numpy()), truth, list(predicted), names, folder / "depth.png")
