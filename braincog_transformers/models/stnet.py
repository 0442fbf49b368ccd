"""STNet.

Zhang, Dong, Zhang, Ding, Heide, Yin, Yang: Spiking Transformers for Event-based Single Object Tracking. CVPR 2022, doi
10.1109/CVPR52688.2022.00860. Official code: Jee-King/CVPR2022_STNet at 221ab60, MIT; it tests, and doesn't train. New:
the firing threshold of a convolutional branch follows the map that a Swin transformer makes of the same pictures, and
the potential of its last neurons, not their spikes, is the feature over time.

**Only the three convolutions of one branch spike.** The transformer, the fusion of the two branches and the head of
SiamFC++ are ordinary layers on real numbers.

The threshold is computed from means over the batch, so what the network says of a sample depends on the others in its
batch, in training and in evaluation. The published tracker has one sample in a batch.

Deviations from the official code:
- In the backward pass each branch keeps its own threshold. In the official code, both have that of the branch which ran
  last; only the gradients of the three convolutions differ.
- A map that is the same everywhere has entropy 0; the official code divides 0 by 0 there.
- Parameters that the official classes declare and never use are left out.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from braincog.model_zoo.base_module import BaseModule
from timm.layers import PatchEmbed
from timm.models.swin_transformer import PatchMerging
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..layers import ConvBN, SoftmaxProduct, WindowBlock
from ..nodes import DynamicThresholdNode
from ..ops.neuron import membrane_dtype
from ..runtime.batch import Batch
from .arguments import check_arguments, hints_of
from .official import OfficialNames
from .registry import Paper, Variant, cfg
from .task_networks import register_for

__all__ = ["STNet", "dynamic_threshold"]

_KERNELS = (11, 9, 5)
"""Sides of the spiking convolutions, all with stride 2."""
_REDUCTION = 13
"""Side of the convolution, of stride 2, that brings the transformer's map of a template to the spiking branch's."""


def dynamic_threshold(features: Tensor, base: float = 0.3) -> Tensor:
    """Return the firing threshold that follows from the transformer's map, a scalar without gradient.

    With `x` the mean over channels of the map times its own mean over places,

        threshold = base (mean(sigmoid(x)) + 10 H)

    where H is the entropy, in nats, of the batch's mean of x in 256 equal bins from its least to its largest entry,
    over the number of bins that are not empty.

    Args:
        features: map `(B, C, H, W)`.
        base: factor.
    """
    with torch.no_grad():
        x = features.to(membrane_dtype(features.dtype))
        x = (x * x.mean((2, 3), keepdim=True)).mean(1)
        places = x.mean(0).flatten()
        low, high = places.aminmax()
        scaled = (places - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny) * 255
        # the bins of torch.histc, which has no deterministic form on a GPU
        bins = (scaled * 256 / 255).long().clamp(0, 255)
        share = torch.bincount(bins, minlength=256).to(x.dtype) / len(bins)
        entropy = -(share * (share + 1e-8).log()).sum() / torch.count_nonzero(share)
        return base * (x.sigmoid().mean() + 10 * entropy)


class SwinBranch(nn.Module):
    """Two stages of shifted windows over all sub-frames of both polarities as channels, and a convolution.

    Args:
        channels: colours of all sub-frames together.
        side: of the square that the input is resized to.
        embed_dim, depths, num_heads, window_size, drop_path_rate: see `STNet`.
        width: channels of the map that leaves.
    """

    def __init__(
        self,
        channels: int,
        side: int,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        drop_path_rate: float,
        width: int,
    ):
        super().__init__()
        self.side = side
        self.convert = nn.Conv2d(channels, 3, 1)
        self.patch_embed = PatchEmbed(
            None, 4, 3, embed_dim, norm_layer=nn.LayerNorm, flatten=False, output_fmt="NHWC", dynamic_img_pad=True
        )
        dims, window = (embed_dim, 2 * embed_dim), (window_size, window_size)
        shifts = (0, 0), (window_size // 2, window_size // 2)
        rates = (drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths)))
        self.stages = nn.ModuleList()
        for dim, heads, depth in zip(dims, num_heads, depths, strict=True):
            blocks = (WindowBlock(dim, heads, window, shifts[i % 2], drop_path=next(rates)) for i in range(depth))
            self.stages.append(nn.Sequential(*blocks))
        self.merge = PatchMerging(embed_dim)
        self.norm = nn.LayerNorm(dims[1])
        self.project = ConvBN(dims[1], width, 3, padding=0, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, channels, h, w)` to a map `(B, width, F, F)`, see `side_of_map`."""
        x = F.interpolate(self.convert(x), (self.side, self.side), mode="bilinear", align_corners=True)
        x = self.stages[1](self.merge(self.stages[0](self.patch_embed(x))))
        return F.relu(self.project(self.norm(x).permute(0, 3, 1, 2)))


class SpikingBranch(nn.Module):
    """Three convolutions with neurons, one sub-frame after the other. Template and search area have neurons of their
    own, whose state stays until they are reset.

    Args:
        channels: colours of a sub-frame.
        widths: channels of the three convolutions.
        step: number of sub-frames T.
    """

    def __init__(self, channels: int, widths: Sequence[int], step: int):
        super().__init__()
        sides = zip((channels, *widths), widths, _KERNELS, strict=False)
        self.convs = nn.ModuleList(nn.Conv2d(*sizes, stride=2) for sizes in sides)
        self.template_nodes, self.search_nodes = (
            nn.ModuleList(DynamicThresholdNode(step=step) for _ in widths) for _ in range(2)
        )
        self.bn = nn.BatchNorm2d(widths[-1])

    def forward(self, frames: Tensor, threshold: Tensor, nodes: nn.ModuleList) -> Tensor:
        """Return the normalised mean over time of the last neurons' charged potential, `(B, C, h, w)`.

        Args:
            frames: sub-frames `(B, T, channels, H, W)`.
            threshold: of all neurons, a scalar.
            nodes: the neurons.
        """
        for node in nodes:
            node.dynamic = threshold
        potentials = 0
        for x in frames.unbind(1):
            for conv, node in zip(self.convs, nodes, strict=True):
                x = node(conv(x))
            potentials = potentials + nodes[-1].mem
        return F.relu(self.bn(potentials / frames.shape[1]))


class RowProduct(SoftmaxProduct):
    """The product between rows that are channels, or places of maps of two sizes."""


class SelfSimilarity(nn.Module):
    """`x + gamma softmax(scale x x^T) x`, gamma learnt from 0 on.

    Args:
        scale: constant factor; with -1 what differs most has the largest weight.
    """

    def __init__(self, scale: float):
        super().__init__()
        self.product = RowProduct(scale)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map rows `(B, N, d)` to the same shape."""
        return x + self.gamma * self.product(x, x, x)


class Fusion(nn.Module):
    """Add what happened over time to the transformer's map: attention over channels, a gate, attention over places.

    Args:
        width: channels C of both maps.
    """

    def __init__(self, width: int):
        super().__init__()
        self.over_channels, self.over_places = SelfSimilarity(-1.0), SelfSimilarity(1.0)
        hidden = width // 16
        self.gate = nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid())

    def forward(self, over_time: Tensor, spatial: Tensor) -> Tensor:
        """Map two maps `(B, C, h, w)` to one."""
        over_time = self.over_channels(over_time.flatten(2)).view_as(over_time)
        gate = self.gate(torch.cat((over_time, spatial), 1).mean((2, 3)))
        x = spatial + gate[..., None, None] * over_time
        return self.over_places(x.flatten(2).mT).mT.reshape(x.shape)


class CrossCorrelation(nn.Module):
    """Correlate each channel of a map with that of a kernel of the same sample."""

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Map x `(B, C, H, W)` and kernels `(B, C, h, w)` to `(B, C, H - h + 1, W - w + 1)`."""
        products = F.conv2d(x.flatten(0, 1)[None], kernel.flatten(0, 1)[:, None], groups=x.shape[0] * x.shape[1])
        return products[0].unflatten(0, x.shape[:2])


class TowerLayer(nn.Module):
    """3x3 convolution without padding, normalisation if asked for, ReLU.

    Args:
        width: channels.
        normalised: whether there is a normalisation.
    """

    def __init__(self, width: int, normalised: bool):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3)
        self.bn = nn.BatchNorm2d(width) if normalised else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, h, w)` to `(B, C, h - 2, w - 2)`."""
        return F.relu(self.bn(self.conv(x)))


class TrackingHead(nn.Module):
    """Head of SiamFC++: for each location, whether it is on the object, how central it is there, and the box.

    Args:
        width: channels.
        normalised: whether each layer of the towers has a normalisation.
        score_size: rows and columns n of locations.
        x_size: side of the search crop, in pixels.
        stride: pixels from a location to the next.

    Source: Xu et al., SiamFC++ (AAAI 2020, arXiv 1911.06188).
    """

    def __init__(self, width: int, normalised: Sequence[bool], score_size: int, x_size: int, stride: int):
        super().__init__()
        self.stride = stride
        self.cls_tower, self.box_tower = (nn.Sequential(*(TowerLayer(width, bn) for bn in normalised)) for _ in "ab")
        self.cls, self.ctr, self.box = (ConvBN(width, outputs, 1, padding=0, bias=True) for outputs in (1, 1, 4))
        self.scale, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        first = (x_size - 1 - (score_size - 1) * stride) // 2
        place = first + stride * torch.arange(score_size, dtype=torch.float32)
        centres = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1).flatten(0, 1)
        self.register_buffer("centres", centres, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=1e-4)
        nn.init.constant_(self.cls.conv.bias, -math.log(99))

    def forward(self, cls: Tensor, box: Tensor) -> Batch:
        """Map two correlated maps `(B, C, h, w)` to what `STNet` returns."""
        cls, box = self.cls_tower(cls), self.box_tower(box)
        distances = self.scale * self.box(box) + self.shift
        distances = distances.to(membrane_dtype(distances.dtype))  # pixels, which 16 bits can't tell apart
        near, far = (distances.exp() * self.stride).flatten(2).mT.chunk(2, -1)
        logits = {name: layer(cls).flatten(2).mT for name, layer in (("cls", self.cls), ("ctr", self.ctr))}
        return Batch(**logits, boxes=torch.cat((self.centres - near, self.centres + far), -1))


class STNet(BaseModule):
    """Tracks one object: a template of it, cut out of the first frame, is looked for in a search area of each frame.

    A frame consists of T sub-frames for each polarity of events, in order of time, pictures with grey levels from 0 to
    255 as they are, in the order blue, green, red.

    Only the convolutions of `spiking` have neurons. They start from zeros with each call of the network. `track` goes
    on from the state that its last call left, through a whole video.

    The samples of a batch depend on each other: the neurons' threshold is computed from means over the batch.

    Args:
        widths: channels of the three spiking convolutions; the last one, at least 16, is that of all maps behind.
        embed_dim: width of the transformer's first stage; the second one has twice as much.
        depths: blocks of its two stages.
        num_heads: heads of its two stages.
        window_size: side of its windows, in tokens.
        img_size: side S that the transformer resizes a crop to, in pixels.
        z_size, x_size: sides of the crops of template and search area, in pixels.
        num_conv3x3: layers of each of the head's two towers.
        head_conv_bn: which of them have a normalisation.
        drop_path_rate: stochastic depth of the transformer's last block.
        step: number of sub-frames T.
        in_chans: colours of a sub-frame.
        num_classes: 0, since there is no classifier.

    Attributes:
        score_size: rows and columns n of locations.
        total_stride: pixels from a location to the next.

    Raises:
        UserError: for sizes that don't fit together.
    """

    total_stride = 8
    num_classes = 0
    input_names = ("template", "search")
    """Tensors of the `Batch` that a call takes."""
    official_names = OfficialNames(
        rename=(
            (r"^basemodel\.conv([123])\.", lambda match: f"spiking.convs.{int(match[1]) - 1}."),
            (r"^basemodel\.bn_tem\.", "spiking.bn."),
            (r"^basemodel\.conv33_11\.", "to_template.conv."),
            (r"^basemodel\.bn_spa\.", "to_template.bn."),
            (r"^transfor\.convert_3\.", "transformer.convert."),
            (r"^transfor\.patch_embed\.", "transformer.patch_embed."),
            (r"^transfor\.layers\.(\d)\.blocks\.", r"transformer.stages.\1."),
            (r"^transfor\.layers\.0\.downsample\.", "transformer.merge."),
            (r"^transfor\.norm1\.", "transformer.norm."),
            (r"^transfor\.conv8\.", "transformer.project.conv."),
            (r"^transfor\.bn\.", "transformer.project.bn."),
            (r"^atten\.inter_attention\.filter\.fc\.", "fusion.gate."),
            (r"^atten\.tem_attention\.", "fusion.over_channels."),
            (r"^atten\.spa_attention\.", "fusion.over_places."),
            (r"^head\.bbox_", "head.box_"),
            (r"^head\.(cls|box)_p5_conv(\d)\.", lambda match: f"head.{match[1]}_tower.{int(match[2]) - 1}."),
            (r"^head\.(cls|ctr|box)_(score|offsets)_p5\.", r"head.\1."),
            (r"^head\.si$", "head.scale"),
            (r"^head\.bi$", "head.shift"),
            (r"^c_z_k\.", "template_cls."),
            (r"^r_z_k\.", "template_box."),
            (r"^c_x\.", "search_cls."),
            (r"^r_x\.", "search_box."),
        ),
        dead=(
            (r"^basemodel\.fuse_snn_transfor\.", "convolution that the spiking branch never calls"),
            (r"^basemodel\.thre_w\.", "factors of the threshold that nothing reads"),
            (r"^atten\.conv_cat\.", "convolution that the fusion never calls"),
            (r"^transfor\.norm0\.", "normalisation whose result is thrown away"),
            (r"\.relative_position_index$", "follows from the window"),
        ),
    )

    def __new__(cls, *_: Any, **arguments: Any):
        """Check the arguments before the constructor uses them."""
        check_arguments(cls.__name__, hints_of(cls), arguments)
        return super().__new__(cls)

    def __init__(
        self,
        *,
        widths: tuple[int, int, int] = (64, 128, 256),
        embed_dim: int = 96,
        depths: tuple[int, int] = (2, 2),
        num_heads: tuple[int, int] = (3, 6),
        window_size: int = 7,
        img_size: int = 280,
        z_size: int = 127,
        x_size: int = 303,
        num_conv3x3: int = 3,
        head_conv_bn: tuple[bool, ...] = (False, False, True),
        drop_path_rate: float = 0.2,
        step: int = 5,
        in_chans: int = 3,
        num_classes: int = 0,
    ):
        super().__init__(step=step, encode_type="direct")
        self.z_size, self.x_size, self.img_size, self.in_chans = z_size, x_size, img_size, in_chans
        self.score_size = _score_size(z_size, x_size, img_size, num_conv3x3)
        if len(head_conv_bn) != num_conv3x3:
            raise UserError(
                f"STNet: head_conv_bn has a value for each of the num_conv3x3={num_conv3x3} layers; got {head_conv_bn}"
            )
        if widths[-1] < 16:
            raise UserError(f"STNet: the last of widths must be at least 16, for the gate; got {widths}")
        for dim, heads in zip((embed_dim, 2 * embed_dim), num_heads, strict=True):
            if dim % heads:
                raise UserError(
                    f"STNet: num_heads must divide embed_dim={embed_dim} and its double, one each; got {num_heads}"
                )
        if num_classes:
            raise UserError(f"STNet has no classifier; num_classes must be 0, got {num_classes}")
        width = widths[-1]
        self.transformer = SwinBranch(
            2 * step * in_chans, img_size, embed_dim, depths, num_heads, window_size, drop_path_rate, width
        )
        self.spiking = SpikingBranch(in_chans, widths, step)
        self.to_template = ConvBN(width, width, _REDUCTION, stride=2, padding=0, bias=True)
        self.fusion = Fusion(width)
        self.template_cls, self.template_box, self.search_cls, self.search_box = (
            ConvBN(width, width, 3, padding=0, bias=True) for _ in range(4)
        )
        for adjust in (self.template_cls, self.template_box, self.search_cls, self.search_box):
            nn.init.normal_(adjust.conv.weight, std=0.01)
        self.correlate = CrossCorrelation()
        self.head = TrackingHead(width, head_conv_bn, self.score_size, x_size, self.total_stride)

    def forward(self, x: Batch) -> Batch:
        """Look for templates in search areas, without any state from before.

        Args:
            x: `template` `(B, 2, T, C, z, z)` and `search` `(B, 2, T, C, x, x)`: polarity, positive first, sub-frame,
                colour, rows, columns; floating point or whole numbers.

        Returns:
            For each of the n*n locations, row by row, logits `cls` `(B, n*n, 1)` of being on the object and `ctr`
            `(B, n*n, 1)` of its centre-ness, and `boxes` `(B, n*n, 4)`: x0, y0, x1, y1 in pixels of the search crop.

        Raises:
            UserError: for crops of other shapes.
        """
        self.reset()
        return self.track(x.search, self.embed_template(x.template))

    def embed_template(self, template: Tensor) -> Batch:
        """Return what `track` looks for, from templates `(B, 2, T, C, z, z)`; its neurons start from zeros."""
        frames = self._frames(template, self.z_size, "template")
        for node in self.spiking.template_nodes:
            node.n_reset()
        over_time, spatial = self._both_branches(frames, self.spiking.template_nodes)
        features = self.fusion(over_time, F.relu(self.to_template(spatial)))
        return Batch(cls=self.template_cls(features), box=self.template_box(features))

    def track(self, search: Tensor, kernels: Batch) -> Batch:
        """Look for templates in the next search areas.

        The neurons go on from the state that the call before left; `reset` before each video.

        Args:
            search: `(B, 2, T, C, x, x)`.
            kernels: of `embed_template`.

        Returns:
            What the network returns.

        Raises:
            UserError: for crops of another shape, or another number of them.
            ValueError: for another number of samples than in the call before.
        """
        frames = self._frames(search, self.x_size, "search")
        if len(frames) != len(kernels):
            raise UserError(f"STNet: each search area has a template; got {len(frames)} and {len(kernels)}")
        features = self.fusion(*self._both_branches(frames, self.spiking.search_nodes))
        cls = self.correlate(self.search_cls(features), kernels.cls)
        return self.head(cls, self.correlate(self.search_box(features), kernels.box))

    def _frames(self, crop: Tensor, side: int, name: str) -> Tensor:
        """Return crops in the type of the weights; raise `UserError` for another shape."""
        expected = (2, self.step, self.in_chans, side, side)
        if crop.dim() != 6 or tuple(crop.shape[1:]) != expected:
            raise UserError(
                f"STNet: {name} must be (B, polarity, T, colour, rows, columns) = (B, {', '.join(map(str, expected))});"
                f" got {tuple(crop.shape)}"
            )
        return crop.to(self.transformer.convert.weight.dtype)

    def _both_branches(self, frames: Tensor, nodes: nn.ModuleList) -> tuple[Tensor, Tensor]:
        """Return the maps of the spiking branch, with its threshold from the other one, and of the transformer."""
        spatial = self.transformer(frames.flatten(1, 3))
        return self.spiking(frames.amax(1), dynamic_threshold(spatial), nodes), spatial

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """Return the last layers: of the score, the centre-ness and the box."""
        return tuple(layer.conv for layer in (self.head.cls, self.head.ctr, self.head.box))

    def set_attr(self, attr: str, val: Any) -> None:
        """Set an attribute of all neurons.

        Raises:
            UserError: for another number of steps, or all of them in a call: the neurons' state goes from call to call.
        """
        if attr in ("step", "layer_by_layer") and val != getattr(self, attr):
            raise UserError(f"STNet: {attr} stays {getattr(self, attr)}, as built; got {val}")
        super().set_attr(attr, val)


def _after(side: int) -> int:
    """Return the side of the spiking branch's map."""
    for kernel in _KERNELS:
        side = (side - kernel) // 2 + 1
    return side


def _least(side: int) -> int:
    """Return the smallest crop with a map of this side; it has the same up to 7 pixels more."""
    for kernel in reversed(_KERNELS):
        side = 2 * (side - 1) + kernel
    return side


def _score_size(z_size: int, x_size: int, img_size: int, layers: int) -> int:
    """Return the rows and columns of locations; raise `UserError` for sizes that don't fit together."""
    search = math.ceil(math.ceil(img_size / 4) / 2) - 2
    template = (search - _REDUCTION) // 2 + 1
    if template < 3:
        raise UserError(f"STNet: img_size must be at least 145; got {img_size}")
    if (_after(z_size), _after(x_size)) != (template, search):
        sides = {"z_size": template, "x_size": search}
        crops = (f"{name} from {_least(side)} to {_least(side) + 7}" for name, side in sides.items())
        raise UserError(
            f"STNet: z_size and x_size must fit img_size; img_size={img_size} takes {' and '.join(crops)}, got "
            f"{z_size} and {x_size}"
        )
    n = search - template + 1 - 2 * layers
    if n < 1:
        raise UserError(
            f"STNet: num_conv3x3 must leave a location; img_size={img_size} takes at most {(search - template) // 2} "
            f"layers, got {layers}"
        )
    return n


_PAPER = Paper("STNet", "CVPR 2022", "doi:10.1109/CVPR52688.2022.00860", "Jee-King/CVPR2022_STNet")
_PUBLISHED = "FE240hz 58.5 (success, %), 89.6 (precision at 20 pixels, %); VisEvent 35.5, 49.2"
_SMALL = {
    **{"widths": (8, 16, 32), "embed_dim": 24, "num_heads": (2, 4), "img_size": 184, "z_size": 79, "x_size": 207},
    **{"num_conv3x3": 2, "head_conv_bn": (False, True), "drop_path_rate": 0.0},
}
register_for(
    "track",
    STNet,
    _PAPER,
    {
        "stnet": Variant({"img_size": 280}, {"": cfg(_PAPER, (3, 303, 303), 0, _PUBLISHED, fixed_input_size=False)}),
        "stnet_small": Variant(_SMALL, {"": cfg(_PAPER, (3, 207, 207), 0, fixed_input_size=False)}),
    },
    first_conv="spiking.convs.0",
)
