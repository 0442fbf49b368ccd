"""Masked Spiking Transformer (MST): a Swin-T with batch norms in its blocks and QCFS at each of its 124 sites.

It is trained as an ordinary network; `convert(network, "qcfs", step=T)` puts neurons in the places of QCFS.

Source: Wang et al., Masked Spiking Transformer (ICCV 2023, arXiv 2210.01208). Official code
bic-L/Masked-Spiking-Transformer at 368c9a5, `models/mst.py`; it has no licence, and nothing of it is here.

Where the paper's figure differs, this is the code: the residual of the MLP starts from the normalised tokens, and
masking is on q, k and the scores only. A window that is larger than the map is cut in each direction by itself, as timm
does, where the code cuts both to the shorter side.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import PatchEmbed, trunc_normal_
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torch import Tensor, nn

from ..errors import UserError
from ..layers import checkpoint_module
from ..models.arguments import check_arguments, hints_of
from ..models.official import OfficialNames
from ..models.registry import Paper, Variant, cfg, cifar, imagenet
from .attention import ExplicitAttention
from .methods import Origin
from .qcfs import QCFS, QCFSOptions, mark_levels, put_in_attention
from .sources import register_source

__all__ = ["MaskedSpikingTransformer"]


class TokenNorm(nn.BatchNorm1d):
    """Batch normalisation of tokens `(..., C)`, with the statistics of all samples and places."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view_as(x)


class SpikingPatchEmbed(PatchEmbed):
    """Patches to tokens `(B, H, W, C)`, normalised."""

    def __init__(self, node: type, **kwargs):
        super().__init__(norm_layer=TokenNorm, output_fmt="NHWC", **kwargs)
        self.proj_node = node()

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_node(super().forward(x))


class SpikingMlp(nn.Module):
    """MLP, with a normalisation behind both layers if `norm`, as for ImageNet."""

    def __init__(self, dim: int, hidden: int, norm: bool, node: type):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.norm1 = TokenNorm(hidden) if norm else nn.Identity()
        self.fc1_node = node()
        self.fc2 = nn.Linear(hidden, dim)
        self.norm2 = TokenNorm(dim) if norm else nn.Identity()
        self.fc2_node = node()

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1_node(self.norm1(self.fc1(x)))
        return self.fc2_node(self.norm2(self.fc2(x)))


class SpikingBlock(SwinTransformerBlock):
    """Block on tokens `(B, H, W, C)`: attention in windows, which are shifted in every other block, and MLP."""

    def __init__(self, dim: int, options: QCFSOptions, mlp_norm: bool, node: type, **kwargs):
        super().__init__(dim, norm_layer=TokenNorm, **kwargs)
        self.shortcut1_node, self.shortcut2_node = node(), node()
        self.attn = put_in_attention(ExplicitAttention(self.attn, "attn"), options)
        self.mlp = SpikingMlp(dim, int(dim * self.mlp_ratio), mlp_norm, node)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self._attn(self.shortcut1_node(self.norm1(x))))
        x = self.norm2(x)  # official code, not the paper's figure: the stream itself is normalised
        return x + self.drop_path2(self.mlp(self.shortcut2_node(x)))


class SpikingPatchMerging(PatchMerging):
    """Four neighbours `(B, H, W, C)` to one token of twice the width, normalised in between."""

    def __init__(self, dim: int, node: type):
        super().__init__(dim, norm_layer=TokenNorm)
        self.reduction_node = node()

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction_node(super().forward(x))


class Stage(nn.Module):
    """Blocks on maps of one size, and the merging behind them."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint_module(block, x) if self.grad_checkpointing and torch.is_grad_enabled() else block(x)
        return self.downsample(x)


class MaskedSpikingTransformer(nn.Module):
    """The network, with QCFS.

    Args:
        levels: L of QCFS.
        masking_ratio: share of q, k and scores that is masked, in training and in inference.
        mlp_norm: normalise in the MLPs, as the network for ImageNet does and those for CIFAR don't.
        threshold: where those of QCFS start.
        img_size: side or sides of the picture, in pixels.
        patch_size: side of a patch, in pixels.
        in_chans: channels of the picture.
        num_classes: classes K; 0 for features.
        embed_dim: width D of the first stage; each stage doubles it.
        depths: blocks of each stage.
        num_heads: heads of each stage.
        window_size: side of a window, in tokens.
        mlp_ratio: width of the MLP's hidden layer over that of its tokens.
        drop_path_rate: probability to leave out a branch in the last block; it rises linearly from 0.

    Raises:
        UserError: for sizes that don't fit each other, or values that are none, see `QCFSOptions`.
    """

    official_names = OfficialNames(
        rename=(
            (r"\.attn\.attn_if\.up$", ".attn.score_node.threshold"),
            (r"\.attn\.attn_v_if\.up$", ".attn.context_node.threshold"),
            (r"_if\.up$", "_node.threshold"),
        ),
        dead=(
            (r"\.attn_mask$", "constant of a shifted window, which the network computes itself"),
            (r"\.relative_position_index$", "constant of a window, which the network computes itself"),
        ),
    )

    def __init__(
        self,
        *,
        levels: int = 16,
        masking_ratio: float = 0.0,
        mlp_norm: bool = True,
        threshold: float = 2.0,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.2,
    ):
        super().__init__()
        given = {"embed_dim": embed_dim, "depths": depths, "num_heads": num_heads, "num_classes": num_classes}
        given |= {"img_size": img_size, "patch_size": patch_size, "in_chans": in_chans, "mlp_norm": mlp_norm}
        given |= {"window_size": window_size, "mlp_ratio": mlp_ratio, "drop_path_rate": drop_path_rate}
        check_arguments(type(self).__name__, hints_of(type(self)), given)
        widths = [embed_dim * 2**index for index in range(len(depths))]
        if len(num_heads) != len(depths) or any(width % heads for width, heads in zip(widths, num_heads, strict=True)):
            raise UserError(
                f"{type(self).__name__}: num_heads must have a number for each stage that divides its width; got "
                f"num_heads={tuple(num_heads)} for the widths {tuple(widths)}"
            )
        options = QCFSOptions(levels=levels, threshold=threshold, masking_ratio=masking_ratio, norms="step", calls={})
        self.origin = Origin("qcfs", options)
        self.in_chans, self.num_classes, self.num_features = in_chans, num_classes, widths[-1]
        node = partial(QCFS, levels, threshold)

        self.patch_embed = SpikingPatchEmbed(
            node, img_size=img_size, patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim
        )
        drop_paths = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        stages, side = [], self.patch_embed.grid_size
        for width, depth, heads in zip(widths, depths, num_heads, strict=True):
            sizes = {"input_resolution": side, "num_heads": heads, "window_size": window_size, "mlp_ratio": mlp_ratio}
            blocks = [
                SpikingBlock(
                    width, options, mlp_norm, node,
                    shift_size=window_size // 2 if number % 2 else 0, drop_path=next(drop_paths), **sizes,
                )
                for number in range(depth)
            ]  # fmt: skip
            merging = SpikingPatchMerging(width, node) if width != widths[-1] else nn.Identity()
            stages.append(Stage(blocks, merging))
            side = tuple((length + 1) // 2 for length in side)
        self.layers = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(self.num_features)
        self.apply(_initialise)
        self.reset_classifier(num_classes)
        mark_levels(self, levels)

    def adopt(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
        """Complete the weights of a Swin, from which the networks for CIFAR were trained on; others pass unchanged.

        Args:
            state: tensors by name, as timm or the authors of Swin name them. What layer norms scale and shift by
                becomes what the batch norms do.

        Returns:
            The weights under the names here, with new thresholds and statistics, and a clause that says so.
        """
        if "layers.0.blocks.0.norm1.weight" not in state or any(name.endswith(".threshold") for name in state):
            return dict(state), ""
        in_front = not any(name.startswith("layers.0.downsample.") for name in state)  # of a stage, as in timm

        def renamed(name: str) -> str:
            stage = re.match(r"layers\.(\d+)\.downsample\.", name) if in_front else None
            name = f"layers.{int(stage[1]) - 1}.downsample.{name[stage.end() :]}" if stage else name
            return name.replace("head.fc.", "head.")

        adopted = {renamed(name): value for name, value in state.items()}
        new = r"\.threshold$|\.running_|\.num_batches_tracked$|\.mlp\.norm|^qcfs_levels$"
        adopted |= {n: value for n, value in self.state_dict().items() if n not in adopted and re.search(new, n)}
        return adopted, "; from a Swin Transformer, with new thresholds and statistics of normalisation"

    # timm's calls

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Name the parameters that must not decay, besides vectors: the tables of positions."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Describe the layers for layer-wise learning rates."""
        blocks = r"^layers\.(\d+)" if coarse else [(r"^layers\.(\d+)\.\w+\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^patch_embed", "blocks": blocks}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what is inside."""
        for stage in self.layers:
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new one for `num_classes` classes, or by none for 0."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        _initialise(self.head)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map pictures `(B, C, H, W)` to tokens `(B, H', W', 8D)`."""
        return self.norm(self.layers(self.patch_embed(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map tokens to logits, or to what the classifier reads."""
        x = x.mean((1, 2))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures `(B, C, H, W)` to logits `(B, K)`."""
        return self.forward_head(self.forward_features(x))


def _initialise(module: nn.Module) -> None:
    """Initialise linear layers as the official code does; the others begin as PyTorch's and timm's do."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


_PAPER = Paper("Masked Spiking Transformer", "ICCV 2023", "arXiv:2210.01208", "bic-L/Masked-Spiking-Transformer")
_RESIZED = {"input_size": (3, 224, 224)}
_DIGITS = {"patch_size": 2, "embed_dim": 48, "depths": (2, 2), "num_heads": (3, 6), "window_size": 2, "mlp_ratio": 2.0}
register_source(
    MaskedSpikingTransformer,
    "qcfs",
    _PAPER,
    {
        "masked_spiking_transformer_digits": Variant(
            {**_DIGITS, "drop_path_rate": 0.0}, {"": cfg(_PAPER, (1, 8, 8), 10)}
        ),
        "masked_spiking_transformer_tiny": Variant({}, imagenet(_PAPER, "78.51 (T=512)", crop_pct=0.875)),
        "masked_spiking_transformer_tiny_cifar": Variant(
            {"mlp_norm": False},
            {tag: {**found, **_RESIZED} for tag, found in cifar(_PAPER, "", "86.91 (T=256)").items()},
        ),
    },
    first_conv="patch_embed.proj",
)
