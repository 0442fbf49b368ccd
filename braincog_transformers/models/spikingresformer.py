"""SpikingResformer.

Shi, Hao, Yu: SpikingResformer: Bridging ResNet and Vision Transformer in Spiking Neural Networks. CVPR 2024, arXiv
2403.14302. Official code: xyshi2000/SpikingResformer at 3f75127, MIT. New: dual spike self-attention, products of
spikes with a linear map of the same spikes, scaled by running firing rates; three stages like ResNet's with membrane
shortcuts on a real-valued stream; a group-wise 3x3 convolution in the feed-forward network.

Deviations of the official code from the paper, kept here: none that changes a result. Corrected here:
- A head whose running rate is 0, in evaluation, is scaled as if its rate were 1; the official code divides by 0.
- Running rates that are all 0 take over the batch's as often as that happens; the official code does so once in the
  life of a process.
- Sides that the stages don't divide are refused; the official code rounds.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import UserError
from ..layers import Block, ConvBN, MakeNode, NodeConvBN, SpikeMatmul
from .arguments import check_arguments, hints_of
from .base import SpikingTransformer, init_weights
from .official import OfficialNames
from .registry import Paper, Variant, cfg, imagenet, register

__all__ = ["SpikingResformer"]


class FiringRate(nn.Module):
    """Running mean of the firing rate of each head, kept in a buffer that is part of a checkpoint.

    Args:
        num_heads: heads h.
    """

    momentum = 0.999

    def __init__(self, num_heads: int):
        super().__init__()
        self.register_buffer("rate", torch.zeros(1, 1, num_heads, 1, 1))

    def forward(self, spikes: Tensor) -> Tensor:
        """Update the mean with spikes `(T*B, h, ...)`, in training only, and return it: `(h, 1, 1)`, above 0."""
        if self.training:
            self._update(spikes.detach())
        rate = self.rate[0, 0]
        # where nothing fires the scale does not matter, but it must be finite
        return torch.where(rate == 0, 1, rate)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        # Module.to(memory_format=torch.channels_last) takes a tensor of five axes for a map, and fails
        self.rate = self.rate.flatten()
        super()._apply(fn, recurse)
        self.rate = self.rate.view(1, 1, -1, 1, 1)
        return self

    @torch.no_grad()
    def _update(self, spikes: Tensor) -> None:
        current = spikes.mean((0, 2, 3), dtype=self.rate.dtype).view_as(self.rate)
        before = torch.where((self.rate == 0).all(), current, self.rate)
        self.rate.copy_(self.momentum * before + (1 - self.momentum) * current)


class DualSpikeSelfAttention(nn.Module):
    """Dual spike self-attention (DSSA): spikes X in the part of both keys and values, `Y X attn_node(c1 Y^T X)` with a
    linear map Y of X that is real-valued.

    The scales are c1 = 1/sqrt(f_x d) and c2 = 1/sqrt(f_attn n), with the running firing rates f of X and of the
    attention map, head width d and n positions of Y.

    Args:
        dim: channels C.
        num_heads: heads h; each is C/h wide.
        patch_size: side and stride of the convolution that gives Y.
        node: constructor of the neurons.
    """

    def __init__(self, dim: int, num_heads: int, patch_size: int, *, node: MakeNode):
        super().__init__()
        self.num_heads = num_heads
        self.node = node()
        self.dual = ConvBN(dim, 2 * dim, patch_size, stride=patch_size, padding=0)
        self.rate_x, self.rate_attn = FiringRate(num_heads), FiringRate(num_heads)
        self.match, self.gather = SpikeMatmul(), SpikeMatmul()
        self.attn_node = node()
        self.proj = NodeConvBN(dim, dim, 1, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, C, H, W)` to potentials of the same shape."""
        spikes = self.node(x)
        y, s = (rearrange(z, "b (h d) y x -> b h d (y x)", h=self.num_heads) for z in (self.dual(spikes), spikes))
        y1, y2 = y.chunk(2, dim=2)
        width, positions = y1.shape[-2:]
        y1 = y1 * (self.rate_x(s) * width).rsqrt()
        attn = self.attn_node(self.match(y1.transpose(-2, -1), s))
        y2 = y2 * (self.rate_attn(attn) * positions).rsqrt()
        return self.proj(self.gather(y2, attn).reshape(x.shape))


class GroupwiseFFN(nn.Module):
    """Group-wise spiking feed-forward network (GWFFN): four times wider inside, with a grouped 3x3 convolution that
    is added to the widened stream.

    Args:
        dim: channels C.
        group_size: channels in a group of the convolution.
        node: constructor of the neurons.
    """

    def __init__(self, dim: int, group_size: int, *, node: MakeNode):
        super().__init__()
        self.up = NodeConvBN(dim, 4 * dim, 1, node=node)
        self.conv = NodeConvBN(4 * dim, 4 * dim, 3, groups=4 * dim // group_size, node=node)
        self.down = NodeConvBN(4 * dim, dim, 1, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, C, H, W)` to potentials of the same shape."""
        x = self.up(x)
        return self.down(x + self.conv(x))


def _number_part(match: re.Match) -> str:
    """Number the blocks: officially attention and feed-forward network count one each."""
    stage, part = int(match[1]), int(match[2])
    return f"stages.{stage}.{(part + 1) // 2 if stage else part // 2}."


class SpikingResformer(SpikingTransformer):
    """SpikingResformer: stem, stages of blocks with a convolution of stride 2 in front of all but the first, mean over
    positions and steps, one linear classifier without bias.

    Args:
        stem_stride: 4 for a 7x7 convolution of stride 2 and max pooling (ImageNet), 1 for a 3x3 convolution.
        embed_dims: channels C of each stage.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        patch_sizes: side p of each stage's attention patches.
        group_size: channels in a group of the feed-forward convolution; four times each C is a multiple.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        **common: see `SpikingTransformer`.
    """

    units = "stages"
    neuron_defaults: ClassVar = {"act_fun": "AtanGrad", "alpha": 2.0}
    head_bias = False
    official_names = OfficialNames(
        rename=(
            (r"^prologue\.0\.", "patch_embed.conv."),
            (r"^prologue\.1\.bn\.", "patch_embed.bn."),
            (r"^layers\.([1-9])\.0\.norm\.bn\.", r"stages.\1.0.bn."),
            (r"^layers\.([1-9])\.0\.activation\.", r"stages.\1.0.node."),
            (r"^layers\.(\d)\.(\d+)\.", _number_part),
            (r"\.(up|down|conv\.0)\.0\.", r".mlp.\1.node."),
            (r"\.(up|down|conv\.0)\.1\.", r".mlp.\1.conv."),
            (r"\.(up|down|conv\.0)\.2\.bn\.", r".mlp.\1.bn."),
            (r"\.mlp\.conv\.0\.", ".mlp.conv."),
            (r"\.W\.", ".attn.dual.conv."),
            (r"\.norm\.bn\.", ".attn.dual.bn."),
            (r"\.Wproj\.", ".attn.proj.conv."),
            (r"\.norm_proj\.bn\.", ".attn.proj.bn."),
            (r"\.activation_in\.", ".attn.node."),
            (r"\.activation_attn\.", ".attn.attn_node."),
            (r"\.activation_out\.", ".attn.proj.node."),
            (r"\.firing_rate_(x|attn)$", r".attn.rate_\1.rate"),
            (r"^classifier\.", "head."),
        ),
    )

    def __init__(
        self,
        *,
        stem_stride: Literal[1, 4] = 4,
        embed_dims: Sequence[int] = (64, 256, 512),
        depths: Sequence[int] = (1, 2, 3),
        num_heads: Sequence[int] = (1, 4, 8),
        patch_sizes: Sequence[int] = (4, 2, 1),
        group_size: int = 64,
        drop_path_rate: float = 0.0,
        **common: Any,
    ):
        super().__init__(embed_dim=embed_dims[-1], **common)
        sizes = {"stem_stride": stem_stride, "embed_dims": embed_dims, "depths": depths, "num_heads": num_heads}
        sizes |= {"patch_sizes": patch_sizes, "group_size": group_size}
        check_arguments(type(self).__name__, hints_of(SpikingResformer), sizes)  # a subclass may set them, too
        self._require_stages(embed_dims, depths, num_heads, patch_sizes, group_size)
        self.multiple = math.lcm(*(stem_stride * 2**i * p for i, p in enumerate(patch_sizes)))
        self._layout()
        node, drop_paths = self._neuron(), iter(self._drop_paths(drop_path_rate, sum(depths)))
        first = {"kernel_size": 7, "stride": 2, "pool": True} if stem_stride == 4 else {}
        self.patch_embed = ConvBN(self.in_chans, embed_dims[0], **first)
        self.stages = nn.Sequential()
        for i, (dim, depth, heads, patch) in enumerate(zip(embed_dims, depths, num_heads, patch_sizes, strict=True)):
            stage = [NodeConvBN(embed_dims[i - 1], dim, 3, stride=2, node=node)] if i else []
            for drop_path in (next(drop_paths) for _ in range(depth)):
                attn = DualSpikeSelfAttention(dim, heads, patch, node=node)
                stage.append(Block(attn, GroupwiseFFN(dim, group_size, node=node), drop_path))
            self.stages.append(nn.Sequential(*stage))
        self.feature_info = self._units_info(embed_dims, [stem_stride * 2**i for i in range(len(embed_dims))])
        self.head = self._new_head(self.num_classes)
        self.apply(init_weights)

    def _require_stages(self, dims, depths, heads, patches, group_size: int) -> None:
        counts = [len(sizes) for sizes in (dims, depths, heads, patches)]
        if len(set(counts)) > 1:
            raise UserError(
                "SpikingResformer: embed_dims, depths, num_heads and patch_sizes must have one number for each stage; "
                f"got {', '.join(map(str, counts))} numbers"
            )
        for dim, count in zip(dims, heads, strict=True):
            self._require_heads(dim, count)
            if 4 * dim % group_size:
                raise UserError(
                    "SpikingResformer: four times each of embed_dims must be a multiple of group_size; got "
                    f"embed_dims={tuple(dims)}, group_size={group_size}"
                )

    def _step_by_step(self, x: Tensor) -> Tensor:
        if self.training:
            raise UserError(
                "SpikingResformer: in training the firing rates that scale the attention are those of all steps, so it "
                "can't run one step at a time; call eval(), or set_attr('layer_by_layer', True)."
            )
        return super()._step_by_step(x)


_PAPER = Paper("SpikingResformer", "CVPR 2024", "arXiv:2403.14302", "xyshi2000/SpikingResformer")
_SETS = {
    "cifar10": ("CIFAR10", 10, {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}),
    "cifar100": ("CIFAR100", 100, {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}),
    # The third channel of events is the sum of the two polarities.
    "cifar10dvs": ("CIFAR10-DVS", 10, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}),
    "gesture": ("DVS128 Gesture", 11, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}),
}


def _tags(side: int, suffix: str = "", **published: str) -> dict[str, dict[str, Any]]:
    """Build the configurations for small data sets by tag, from their published top-1 accuracies in percent."""
    found = {}
    for name, top1 in published.items():
        title, classes, norm = _SETS[name]
        found[name + suffix] = cfg(_PAPER, (3, side, side), classes, f"{title} {top1}", **norm)
    return found


def _network(dims: tuple[int, ...], heads: tuple[int, ...], **args: Any) -> dict[str, Any]:
    return {"embed_dims": dims, "num_heads": heads, **args}


_IN1K = {"crop_pct": 0.95}
register(
    SpikingResformer,
    {
        "spikingresformer_digits": Variant(
            _network((16, 32, 64), (1, 2, 4), depths=(1, 1, 1), group_size=16, stem_stride=1),
            {"": cfg(_PAPER, (1, 8, 8), 10)},
        ),
        "spikingresformer_ti": Variant(_network((64, 192, 384), (1, 3, 6)), imagenet(_PAPER, 74.34, **_IN1K)),
        "spikingresformer_s": Variant(
            _network((64, 256, 512), (1, 4, 8)),
            {
                **imagenet(_PAPER, 75.95, **_IN1K),
                **_tags(128, "_transfer", cifar10="97.40", cifar100="85.98"),
                **_tags(128, "_transfer", cifar10dvs="84.8 (T=10)", gesture="93.4 (T=10)"),
            },
        ),
        "spikingresformer_m": Variant(_network((64, 384, 768), (1, 6, 12)), imagenet(_PAPER, 77.24, **_IN1K)),
        "spikingresformer_l": Variant(
            _network((128, 512, 1024), (2, 8, 16)),
            {
                **imagenet(_PAPER, 78.77, **_IN1K),
                "in1k_288": cfg(_PAPER, (3, 288, 288), 1000, "ImageNet 79.40", **_IN1K),
            },
        ),
        "spikingresformer_cifar": Variant(
            _network((64, 192, 384), (1, 3, 6), stem_stride=1),
            {**_tags(32, cifar10="96.24", cifar100="79.28"), **_tags(64, cifar10dvs="81.5 (T=16)")},
        ),
        "spikingresformer_dvsg": Variant(
            _network((32, 96, 192), (1, 3, 6), stem_stride=1, group_size=32, node_type="PLIFNode", step=16),
            _tags(64, gesture="98.6"),
        ),
    },
    first_conv="patch_embed.conv",
    reduction=lambda args: 4 * args.get("stem_stride", 4),  # three stages
)
