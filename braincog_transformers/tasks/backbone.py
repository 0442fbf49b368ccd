"""A network of the zoo as the backbone of a detector or a segmentation: its features as maps at several strides."""

import math
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

from timm.layers import LayerNorm2d
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torch.nn.functional import pad

from ..checkpoints import find_weights, load_content, read_checkpoint
from ..errors import UserError
from ..models.base import SpikingTransformer

__all__ = ["SimplePyramid", "SpikingBackbone", "build_backbone", "load_initial"]

STRIDES = (4, 8, 16, 32)
"""Of the maps that `SimplePyramid` makes: those of the four stages of a ResNet."""


class SimplePyramid(nn.Module):
    """Maps at strides 4, 8, 16 and 32 from one map: transposed convolutions in front of its stride, max pooling behind.

    A transposed convolution doubles height and width and halves the channels; between two of them stand a layer norm
    and a GELU, so nothing here spikes.

    Args:
        channels: of the map.
        stride: of the map, a power of 2.

    Source: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection (ECCV 2022), section 3. As
    there, all maps come from the last one of the network.
    """

    def __init__(self, channels: int, stride: int):
        super().__init__()
        if stride & (stride - 1):
            raise UserError(f"a pyramid from one map needs a network whose stride is a power of 2; got {stride}")
        self.channels, self.stages = [], nn.ModuleList()
        for target in STRIDES:
            halvings = max(0, int(math.log2(stride / target)))
            widths = [max(1, channels >> i) for i in range(halvings + 1)]
            layers: list[nn.Module] = []
            for wide, narrow in pairwise(widths):
                layers += [LayerNorm2d(wide), nn.GELU()] if layers else []
                layers.append(nn.ConvTranspose2d(wide, narrow, kernel_size=2, stride=2))
            if target > stride:
                layers.append(nn.MaxPool2d(target // stride))
            self.channels.append(widths[-1])
            self.stages.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map `(N, C, h, w)` to the maps, the finest first."""
        return [stage(x) for stage in self.stages]


class SpikingBackbone(nn.Module):
    """A network of the zoo that gives maps at several strides.

    A network with stages gives the map of each; of stages with the same stride, the last one. A network without stages
    has one stride only, so its last map goes through a `SimplePyramid`.

    Pictures of any size are read. Where a side is no multiple of what the network needs, zeros are added at the right
    and at the bottom, and each map is cropped to `ceil(side / stride)`. So pictures are best normalised, for 0 to be
    the mean.

    Args:
        network: what `create(features_only=True, feature_steps=head_time == "each")` returns.
        head_time: "mean" for maps `(B, C, h, w)`, means over time; "each" for those of every step, `(T*B, C, h, w)`,
            T outermost, so that a head reads each step and its outputs are averaged over T.
        size: height and width of the pictures, so that a network that is built for a number of tokens refuses them
            here; those of a later call may differ.

    Attributes:
        channels: of each map.
        strides: side of the input over that of each map, increasing.
        steps: T in front of the maps' batch, 1 for "mean".
        multiple: what the network's sides must be multiples of.

    Raises:
        UserError: for a network that is none of the zoo, "each" for one that sums its steps, or a size that the network
            can't take.
    """

    def __init__(
        self,
        network: FeatureGetterNet,
        head_time: Literal["mean", "each"] = "mean",
        size: tuple[int, int] | None = None,
    ):
        super().__init__()
        inner = getattr(network, "model", None)
        if not isinstance(inner, SpikingTransformer):
            given = type(inner or network).__name__
            raise UserError(f"a backbone is a network of the zoo (--list-models); got {given}")
        if head_time == "each" and inner.sums_steps:
            raise UserError(f"--head-time each: {type(inner).__name__} has no maps by step, since {inner.sums_steps}")
        inner.feature_steps = head_time == "each"
        self.network, self.head_time = network, head_time
        strides, channels = network.feature_info.reduction(), network.feature_info.channels()
        self.multiple = math.lcm(inner.multiple, *strides)
        self.chosen = [i for i, stride in enumerate(strides) if stride not in strides[i + 1 :]]
        self.strides, self.channels = [strides[i] for i in self.chosen], [channels[i] for i in self.chosen]
        self.pyramid = None
        if inner.has_tokens:
            self.pyramid = SimplePyramid(self.channels[-1], self.strides[-1])
            self.strides, self.channels = list(STRIDES), self.pyramid.channels
            self.multiple = math.lcm(self.multiple, *STRIDES)
        if size is not None:
            inner.set_input_size(self._padded(size))

    @property
    def inner(self) -> SpikingTransformer:
        """The network itself, without its classifier."""
        return self.network.model

    @property
    def steps(self) -> int:
        """Steps T that stand in front of the batch of each map."""
        return self.inner.unit_steps if self.head_time == "each" else 1

    def _padded(self, size: tuple[int, int]) -> tuple[int, int]:
        return tuple(-(-side // self.multiple) * self.multiple for side in size)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """Map pictures `(B, C, H, W)` or frames `(B, T, C, H, W)` to maps by name, "0" the finest.

        Raises:
            UserError: for another size than before, if the network is built for a number of tokens.
        """
        height, width = x.shape[-2:]
        padded = self._padded((height, width))
        if padded != self.inner.img_size:
            self.inner.set_input_size(padded)
        x = pad(x, (0, padded[1] - width, 0, padded[0] - height)) if padded != (height, width) else x
        maps = self.network(x)
        maps = [maps[i] for i in self.chosen] if self.pyramid is None else self.pyramid(maps[-1])
        named = OrderedDict()
        for i, (one, stride) in enumerate(zip(maps, self.strides, strict=True)):
            named[str(i)] = one[..., : -(-height // stride), : -(-width // stride)]
        return named

    def mean_over_steps(self, x: Tensor) -> Tensor:
        """Average what a head made of maps, `(steps*B, ...)`, over their steps: `(B, ...)`."""
        return x.unflatten(0, (self.steps, -1)).mean(0) if self.steps > 1 else x


def build_backbone(
    create: Callable[..., nn.Module], head_time: Literal["mean", "each"], size: tuple[int, int] | None = None
) -> SpikingBackbone:
    """Build the backbone of a run.

    Args:
        create: builds --model with the options of the run; takes further arguments of its constructor.
        head_time, size: see `SpikingBackbone`.

    Raises:
        UserError: see `SpikingBackbone`.
    """
    network = create(features_only=True, feature_steps=head_time == "each")
    return SpikingBackbone(network, head_time, size)


def load_initial(
    network: nn.Module,
    backbone: SpikingBackbone,
    create: Callable[..., nn.Module],
    path: str | Path,
    *,
    ema: bool | None,
    say: Callable[[str], object],
) -> None:
    """Load the weights of --initial-checkpoint: all of a file of the whole network, or a classifier for its backbone.

    A classifier's file, official or ours, is loaded into the classifier that it is of, strictly, and the backbone gets
    the weights that it shares with it. So what does not fit is named, as everywhere.

    Args:
        network: backbone and heads.
        backbone: the part of `network` that is one of the zoo.
        create: see `build_backbone`.
        path: the file.
        ema: which weights are read, see `checkpoints.find_weights`.
        say: prints a line.

    Raises:
        UserError: for a file that can't be read, or fits neither.
    """
    content = read_checkpoint(path)
    names = find_weights(content, ema=ema).state.keys()
    prefix = next(name for name, module in network.named_modules() if module is backbone)
    if any(name.startswith(f"{prefix}.network.") for name in names):
        say(load_content(network, content, path, ema=ema))
        return
    classifier = create()
    line = load_content(classifier, content, path, ema=ema, replace_classifier=True)
    inner, weights = backbone.inner, classifier.state_dict()
    own = inner.state_dict()
    inner.load_state_dict({name: weights[name] for name in own})
    left_out = len(weights.keys() - own.keys())
    say(f"{line}; as the backbone, without the {left_out} tensors of its classifier; the heads start anew")
