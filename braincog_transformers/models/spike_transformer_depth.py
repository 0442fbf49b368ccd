"""Spike Transformer (Spike-T): depth from the stream of a spike camera. The network itself does not spike.

Zhang, Tang, Yu, Lu, Huang: Spike Transformer: Monocular Depth Estimation for Spiking Camera. ECCV 2022, LNCS 13667, doi
10.1007/978-3-031-20071-7_3. Official code: Leozhangjiyuan/MDE-SpikingCamera at d202e75, no licence.

There is no neuron, no membrane and no loop over time: "spike" is the input, consecutive frames of 0 and 1, which are
channels here. It is the baseline of real numbers that a spiking depth network is compared with, and it brings along the
data and the losses (`tasks.depth`). New is the embedding of a long stream: each block of frames is seen alone, with
shared weights, and all of them at once; the blocks are the time axis of a Video Swin encoder, whose stages a
convolutional decoder reads.

Facts of the official code that its weights need, kept here:
- In training a block's normalisations use the statistics of that block alone, and move the running ones once for each.
- Where a map is smaller than the window, the biases are those of the first tokens of the whole window, which are others
  than the distances say.
- The first decoder gets no skip connection.
Those of its settings that do nothing, or of which only one value works, are left out here.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import PatchMerging

from ..errors import UserError
from ..layers import WindowBlock
from .arguments import ArgumentChecks, check_arguments, hints_of
from .official import OfficialNames
from .registry import Paper, Variant, cfg
from .task_networks import register_for

__all__ = ["SpikeTransformerDepth"]


class ResidualBlock(nn.Module):
    """`relu(x + conv2(relu(conv1(x))))`, 3x3 convolutions with batch normalisation behind each, or with biases.

    Args:
        dim: channels C.
        norm: whether there are normalisations.
    """

    def __init__(self, dim: int, *, norm: bool):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(dim, dim, 3, padding=1, bias=not norm) for _ in range(2))
        self.bn1, self.bn2 = (nn.BatchNorm2d(dim) if norm else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Branch(nn.Module):
    """Convolution, four residual blocks, convolution with stride 2.

    Args:
        frames: channels of the input.
        dim: channels C of the output.
    """

    def __init__(self, frames: int, dim: int):
        super().__init__()
        self.head = nn.Conv2d(frames, dim, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(dim, norm=True) for _ in range(4)))
        self.proj = nn.Conv2d(dim, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map frames `(B, frames, H, W)` to maps `(B, C, H/2, W/2)`."""
        return self.proj(self.blocks(self.head(x)))


class LocalEmbedding(Branch):
    """Embed each block of frames with the same weights.

    Args:
        in_chans: frames of a sample, D blocks of them.
        frames: frames of a block.
        dim: channels C of the output.
    """

    def __init__(self, in_chans: int, frames: int, dim: int):
        super().__init__(frames, dim)
        self.steps = in_chans // frames

    def forward(self, x: Tensor) -> Tensor:
        """Map frames `(B, D*frames, H, W)` to maps `(B, D, H/2, W/2, C)`."""
        # not as one batch: in training the normalisations see one block at a time
        maps = [Branch.forward(self, block) for block in x.chunk(self.steps, 1)]
        return torch.stack(maps, 1).permute(0, 1, 3, 4, 2)


class LocalGlobalEmbedding(LocalEmbedding):
    """Embed each block of frames in the first half of the channels, and all frames in the second half.

    Args:
        in_chans, frames, dim: see `LocalEmbedding`.
    """

    def __init__(self, in_chans: int, frames: int, dim: int):
        super().__init__(in_chans, frames, dim // 2)
        self.whole = Branch(in_chans, dim // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map frames `(B, D*frames, H, W)` to maps `(B, D, H/2, W/2, C)`."""
        whole = self.whole(x).permute(0, 2, 3, 1)[:, None]
        return torch.cat([super().forward(x), whole.expand(-1, self.steps, -1, -1, -1)], -1)


class PatchEmbedding(nn.Module):
    """Embed patches of a block's frames and 2x2 pixels, as Video Swin does.

    Args:
        in_chans, frames, dim: see `LocalEmbedding`.
    """

    def __init__(self, in_chans: int, frames: int, dim: int):
        super().__init__()
        self.proj = nn.Conv3d(1, dim, (frames, 2, 2), (frames, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Map frames `(B, D*frames, H, W)` to maps `(B, D, H/2, W/2, C)`."""
        return self.proj(x[:, None]).permute(0, 2, 3, 4, 1)


_EMBEDDINGS = {"local_global": LocalGlobalEmbedding, "local": LocalEmbedding, "patches": PatchEmbedding}


class TemporalFusion(nn.Module):
    """Turn the D maps of a stage into one: a 1x1 convolution of its own for each, side by side in the channels.

    Args:
        dim: channels C, a multiple of D.
        steps: D.
    """

    def __init__(self, dim: int, steps: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(dim, dim // steps, 1) for _ in range(steps))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, D, H, W, C)` to `(B, C, H, W)`."""
        maps = x.permute(1, 0, 4, 2, 3)
        return torch.cat([conv(one) for conv, one in zip(self.convs, maps, strict=True)], 1)


class Stage(nn.Module):
    """Swin blocks on maps over time, the shifted and the unshifted in turn, and what leaves the encoder behind them.

    Args:
        dim: channels C.
        num_heads: heads of each block.
        window: sides of the windows: blocks of frames, rows, columns.
        mlp_ratio: hidden width of the MLPs over C.
        drop_paths: rates of stochastic depth, one for each block.
        steps: D.
    """

    def __init__(
        self, dim: int, num_heads: int, window: tuple[int, ...], mlp_ratio: float, drop_paths: list[float], steps: int
    ):
        super().__init__()
        shifts = [tuple(side // 2 * (i % 2) for side in window) for i in range(len(drop_paths))]
        self.blocks = nn.Sequential(*(
            WindowBlock(dim, num_heads, window, shift, mlp_ratio=mlp_ratio, drop_path=rate, clip=True)
            for shift, rate in zip(shifts, drop_paths, strict=True)
        ))  # fmt: skip
        self.norm = nn.LayerNorm(dim)
        self.fusion = TemporalFusion(dim, steps)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(B, D, H, W, C)` to the same shape for the next stage, and to `(B, C, H, W)` for the decoder."""
        x = self.blocks(x)
        return x, self.fusion(self.norm(x))


class SpikeTransformerDepth(ArgumentChecks, nn.Module):
    """Map the frames of a spike camera to depth. It does not spike: its numbers are real, and it has no neuron.

    Args:
        in_chans: frames of a sample.
        patch_frames: frames of a block, a divisor of `in_chans`; D is the number of blocks.
        embed_dim: channels C of the first stage, an even number and a multiple of D; each further stage has twice as
            many.
        depths: Swin blocks of each stage.
        num_heads: heads of each stage.
        window: sides of the windows: blocks of frames, rows, columns.
        mlp_ratio: hidden width of the MLPs over the channels.
        num_res_blocks: residual blocks in front of the decoder.
        drop_path_rate: rate of stochastic depth of the last Swin block, to which that of the first, 0, grows linearly.
        embedding: "local_global", the published one; "local", which sees blocks alone (`new_v` 3 of the official
            configuration); "patches", one convolution, as in Video Swin (any other `new_v`).
        num_classes: 0, since there is no classifier.

    Attributes:
        multiple: what height and width of the input must be multiples of.
    """

    status = "doesn't spike"
    """For lists and reports: its input is spikes, and it is a network of real numbers."""
    num_classes = 0
    official_names = OfficialNames(
        rename=(
            (r"^encoder\.swin3d\.patch_embed\.global_(?=head|proj)", "embed.whole."),
            (r"^encoder\.swin3d\.patch_embed\.global_residual_encoding\.", "embed.whole.residual_encoding."),
            (r"^encoder\.swin3d\.patch_embed\.", "embed."),
            (r"\.residual_encoding\.resblock(\d)\.", lambda match: f".blocks.{int(match[1]) - 1}."),
            (r"^encoder\.swin3d\.layers\.(\d+)\.downsample\.", r"merges.\1."),
            (r"^encoder\.swin3d\.layers\.", "stages."),
            (r"^encoder\.swin3d\.norm(\d+)\.", r"stages.\1.norm."),
            (r"^encoder\.conv_layers\.(\d+)\.", r"stages.\1.fusion.convs."),
            (r"^resblocks\.", "residual."),
            (r"^(decoders\.\d+|pred)\.conv2d\.", r"\1."),
        ),
        dead=((r"\.relative_position_index$", "follows from the window"),),
    )

    def __new__(cls, *_: Any, **arguments: Any):
        """Check the arguments before the constructor uses them."""
        check_arguments(cls.__name__, hints_of(cls), arguments)
        return super().__new__(cls)

    def __init__(
        self,
        *,
        in_chans: int = 128,
        patch_frames: int = 32,
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6),
        num_heads: tuple[int, ...] = (3, 6, 12),
        window: tuple[int, int, int] = (2, 7, 7),
        mlp_ratio: float = 4.0,
        num_res_blocks: int = 2,
        drop_path_rate: float = 0.2,
        embedding: Literal["local_global", "local", "patches"] = "local_global",
        num_classes: int = 0,
    ):
        super().__init__()
        self.in_chans, self.embed_dim = in_chans, embed_dim
        self._check(patch_frames, depths, num_heads, window, num_res_blocks, num_classes)
        steps, count = in_chans // patch_frames, len(depths)
        self.multiple = 2**count
        self.embed = _EMBEDDINGS[embedding](in_chans, patch_frames, embed_dim)
        dims = [embed_dim * 2**i for i in range(count)]
        total = sum(depths)
        rates = iter([drop_path_rate * i / max(total - 1, 1) for i in range(total)])
        self.stages = nn.ModuleList(
            Stage(dim, heads, tuple(window), mlp_ratio, [next(rates) for _ in range(depth)], steps)
            for dim, heads, depth in zip(dims, num_heads, depths, strict=True)
        )
        self.merges = nn.ModuleList(map(PatchMerging, dims[:-1]))
        self.residual = nn.Sequential(*(ResidualBlock(dims[-1], norm=False) for _ in range(num_res_blocks)))
        self.decoders = nn.ModuleList(nn.Conv2d(dim, dim // 2, 5, padding=2) for dim in reversed(dims))
        self.pred = nn.Conv2d(embed_dim // 2, 1, 1)

    def _check(
        self, patch_frames: int, depths: tuple[int, ...], num_heads: tuple[int, ...], window: tuple[int, ...],
        num_res_blocks: int, num_classes: int,
    ) -> None:  # fmt: skip
        """Raise `UserError` for arguments that contradict each other."""
        problem = ""
        if num_classes:
            problem = f"it has no classifier; num_classes must be 0, got {num_classes}"
        elif patch_frames < 1 or self.in_chans % patch_frames:
            problem = f"patch_frames must divide in_chans={self.in_chans}; got {patch_frames}"
        elif self.embed_dim % (steps := self.in_chans // patch_frames) or self.embed_dim % 2:
            problem = f"embed_dim must be even and a multiple of the {steps} blocks of frames; got {self.embed_dim}"
        elif len(num_heads) != len(depths):
            problem = f"num_heads must have a number for each of the {len(depths)} depths; got {num_heads}"
        elif min(window) < 1:
            problem = f"window must be three sides of 1 or more; got {window}"
        elif not 0 <= num_res_blocks <= 1000:
            problem = f"num_res_blocks must be from 0 to 1000; got {num_res_blocks}"
        if problem:
            raise UserError(f"{type(self).__name__}: {problem}")
        for i, heads in enumerate(num_heads):
            self._require_heads(self.embed_dim * 2**i, heads)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Map frames to the maps that the decoder reads, one for each stage: `(B, 2**i * C, H/2**(i+1), W/2**(i+1))`.

        Args:
            x: `(B, in_chans, H, W)`, 0 and 1 as floating point.
        """
        x, maps = self.embed(x), []
        for i, stage in enumerate(self.stages):
            x, fused = stage(self.merges[i - 1](x) if i else x)
            maps.append(fused)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Map frames to normalised logarithmic depth in (0, 1), see `tasks.depth.labels`.

        Args:
            x: `(B, in_chans, H, W)`, 0 and 1 as floating point, sides multiples of `multiple`.

        Returns:
            `(B, 1, H, W)`.

        Raises:
            ValueError: for an input of another shape or type.
        """
        self._check_input(x)
        *skips, x = self.encode(x)
        x = self.residual(x)
        for decoder, skip in zip(self.decoders, [None, *reversed(skips)], strict=True):
            x = x if skip is None else x + skip
            x = F.relu(decoder(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)))
        return self.pred(x).sigmoid()

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_chans or any(side % self.multiple for side in x.shape[2:]):
            raise ValueError(
                f"{type(self).__name__}: input must be (B, {self.in_chans}, H, W), H and W multiples of "
                f"{self.multiple}; got {tuple(x.shape)} (in_chans= builds it for other numbers of frames)"
            )
        if not x.is_floating_point():
            raise ValueError(f"{type(self).__name__}: input must be floating point; got {x.dtype} (x.float())")


_PAPER = Paper(
    "Spike Transformer (does not spike)", "ECCV 2022", "doi:10.1007/978-3-031-20071-7_3",
    "Leozhangjiyuan/MDE-SpikingCamera",
)  # fmt: skip
_SMALL = {
    **{"in_chans": 32, "patch_frames": 8, "embed_dim": 16, "depths": (1, 1, 2), "num_heads": (1, 2, 4)},
    **{"num_res_blocks": 1, "drop_path_rate": 0.0},
}


def _cfg(frames: int, side: int) -> dict[str, Any]:
    """Build a configuration for pictures of any size."""
    first = "embed.whole.head"
    return cfg(_PAPER, (frames, side, side), 0, fixed_input_size=False, classifier="", first_conv=first)


register_for(
    "depth",
    SpikeTransformerDepth,
    _PAPER,
    {
        "spike_transformer_depth": Variant({}, {"": _cfg(128, 224)}),
        "spike_transformer_depth_small": Variant(_SMALL, {"": _cfg(32, 48)}),
    },
    first_conv="embed.head",
)
