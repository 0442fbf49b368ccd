"""Spikformer V2: a reconstruction from the paper, since no official code exists.

Zhou, Che, Fang, K. Tian, Zhu, Yan, Y. Tian, Yuan: Spikformer V2: Join the High Accuracy Club on ImageNet with an SNN
Ticket. arXiv 2401.02020. The authors announced code in ZK-Zhou/spikformer and have not released it, nor weights. New: a
spiking convolutional stem, which halves the side by convolutions and adds convolutions at every resolution; masked
pre-training (`masked.py`), which allows deeper networks and T = 1.

What rests on what (`docs/reconstructions.md` has the sentences):
- Stated by the paper: the stem in the place of max pooling, blocks as in Spikformer, depths, widths and T.
- Fixed by its parameter counts, which are met to the printed digits: a pair of 3x3 convolutions at every resolution,
  four times as wide in between; 2x2 convolutions that halve the side from the second stage on; a normalisation behind
  every convolution; no position convolution and no learned position table.
- Taken over from Spikformer: neurons, attention scale, classifier.
- Open, so arguments here: the first kernel, neurons and residual sum of the pair, heads.
"""

from typing import Any, Literal

from torch import Tensor, nn

from ..errors import UserError
from ..layers import Block, ConvBN, ConvBNNode, ConvSequence, MakeNode, SpikingMLP, SpikingSelfAttention
from .base import Masking
from .flat import FlatTransformer
from .registry import Paper, Variant, cfg, flat, imagenet, register

__all__ = ["SpikformerV2", "SpikingConvStem"]

_WIDER = 4
"""Width between the two convolutions of a pair over that of its stage: only 4 gives the published counts."""


class Stage(nn.Module):
    """A convolution that halves the side or keeps it, and a pair of 3x3 convolutions, the first one wider.

    Args:
        in_chans, out_chans: channels.
        kernel_size, stride: of the first convolution.
        pair_nodes: neurons of the pair: behind "both" convolutions, "between" them, or "none".
        pair_residual: add what the pair reads to what it gives.
        node: constructor of the neurons.
    """

    def __init__(
        self, in_chans: int, out_chans: int, kernel_size: int, stride: int, *, pair_nodes: str, pair_residual: bool,
        node: MakeNode,
    ):  # fmt: skip
        super().__init__()
        sizes = {"stride": stride, "padding": (kernel_size - 1) // 2}
        self.down = ConvBNNode(in_chans, out_chans, kernel_size, **sizes, node=node)
        fires = {"both": (True, True), "between": (True, False), "none": (False, False)}[pair_nodes]
        widths = (out_chans, _WIDER * out_chans, out_chans)
        self.pair = nn.Sequential(
            *(
                ConvBNNode(widths[i], widths[i + 1], node=node) if fires[i] else ConvBN(widths[i], widths[i + 1])
                for i in range(2)
            )
        )
        self.residual = pair_residual

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C, H, W)` to `(T*B, C', H/stride, W/stride)`; `copies` as in `layers.ConvBN`."""
        x = self.down(x, copies)
        return x + self.pair(x) if self.residual else self.pair(x)


class SpikingConvStem(nn.Module):
    """Spiking convolutional stem: four stages that widen to C and halve the side log2(patch_size) times.

    Args:
        grid_size: height and width of the map of tokens.
        halved: which of the four stages halve the side; the others keep it, by a 1x1 convolution.
        in_chans: channels of the input.
        embed_dim: width C, a multiple of 8.
        first_kernel: kernel of the first convolution, if its stage halves the side.
        **pair: pair_nodes, pair_residual and node of a stage.
    """

    def __init__(
        self, grid_size: tuple[int, int], halved: list[bool], in_chans: int, embed_dim: int, *, first_kernel: int,
        **pair: Any,
    ):  # fmt: skip
        super().__init__()
        self.grid_size = grid_size
        widths = [in_chans, embed_dim // 8, embed_dim // 4, embed_dim // 2, embed_dim]
        kernels = [1 if not halves else first_kernel if i == 0 else 2 for i, halves in enumerate(halved)]
        self.stages = ConvSequence(
            *(Stage(widths[i], widths[i + 1], kernels[i], 1 + halved[i], **pair) for i in range(4))
        )

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C_in, H, W)`, or `(B, C_in, H, W)` standing for `copies=T` steps, to tokens `(T*B, N, C)`."""
        return self.stages(x, copies).flatten(2).transpose(1, 2)


class SpikformerV2(FlatTransformer):
    """Spikformer V2: spiking convolutional stem, L encoder blocks, mean over tokens and steps, one linear classifier.

    Args:
        first_kernel: kernel of the first convolution, which the counts leave open.
        pair_nodes: neurons of the stem's pairs of convolutions: behind "both", "between" them, or "none".
        pair_residual: add what a pair reads to what it gives, spike to spike.
        attn_scale: constant factor of the attention product.
        **flat: patch_size, embed_dim, depth, num_heads, mlp_ratio, drop_path_rate, see `FlatTransformer`, and those of
            `SpikingTransformer`; the neuron behind the attention product has half the threshold.
    """

    status = "reconstruction"
    masking = Masking(parts=("patch_embed",))

    def __init__(
        self,
        *,
        first_kernel: int = 2,
        pair_nodes: Literal["both", "between", "none"] = "both",
        pair_residual: bool = True,
        attn_scale: float = 0.125,
        **flat: Any,
    ):
        if first_kernel not in (2, 3, 7):
            raise UserError(f"{type(self).__name__}: first_kernel must be 2, 3 or 7; got {first_kernel}")
        self.first_kernel, self.pair_nodes, self.pair_residual = first_kernel, pair_nodes, pair_residual
        self.attn_scale = attn_scale
        super().__init__(**flat)

    def _stem(self) -> nn.Module:
        pair = {"pair_nodes": self.pair_nodes, "pair_residual": self.pair_residual}
        return self._build_stem(SpikingConvStem, first_kernel=self.first_kernel, **pair)

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        nodes = self._attention_nodes()
        attn = SpikingSelfAttention(self.embed_dim, self.num_heads, scale=self.attn_scale, **nodes)
        return Block(attn, SpikingMLP(self.embed_dim, self.mlp_ratio, node=nodes["node"]), drop_path)


_PAPER = Paper("Spikformer V2", "arXiv 2024", "arXiv:2401.02020", "")
# The paper does not give the heads: 64 channels each, as in Spikformer's networks of 384 and more.
register(
    SpikformerV2,
    {
        "spikformer_v2_digits": Variant(flat(2, 64, 4, patch_size=2), {"": cfg(_PAPER, (1, 8, 8), 10)}),
        "spikformer_v2_8_384": Variant(flat(8, 384, 6), imagenet(_PAPER, 78.80)),
        "spikformer_v2_8_512": Variant(flat(8, 512, 8), imagenet(_PAPER, 80.38)),
        "spikformer_v2_12_512": Variant(flat(12, 512, 8), imagenet(_PAPER, "")),
        "spikformer_v2_16_768": Variant(
            flat(16, 768, 12, step=1), imagenet(_PAPER, "81.10 (with masked pre-training)")
        ),
    },
    first_conv="patch_embed.stages.0.down.conv",
)
