"""STS-Transformer.

Wang, Shi, Lu, Liu, Zhang, Qu: Spatial-Temporal Self-Attention for Asynchronous Spiking Neural Networks. IJCAI 2023, doi
10.24963/ijcai.2023/344. Official code: ppppps/STSA_4_Asyn_SNN at 1ba7464, no licence. New: the tokens of all steps
attend to each other, except to those of later steps, and a table of position biases, one for each distance in time,
rows and columns, is added to the products of their queries and keys.

Because no token sees a later step, the network also runs one step at a time: it then keeps the keys and values of the
steps so far.

Deviations of the official code from the paper, kept here:
- Only the network for DVS128 Gesture was released, with images of 128x128 as literals. Here they may have any size
  that the patches fill.
- The neurons are not Spikformer's: the input is not divided by tau, they fire above the threshold only, the gradient
  goes through the reset, and the surrogate is a triangle. All have the same threshold.
- The stem's widths are C/16, C/8, C/4, C.
- The halves of the position tables that belong to later steps are never read.
- A second projection to q, k and v and a drop path that the official class declares and never uses are left out.
  `drop_path_rate` works here.
Corrected here, and kept with `as_released`: the released attention reads the memory of a tensor (T, B, C, N) as if it
were (B, C, T, N), which mixes samples, steps and channels.
"""

import re
from functools import partial
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import UserError
from ..layers import (
    AttentionMatmul,
    Block,
    LinearBNNode,
    MakeNode,
    SpikeInput,
    SpikeMatmul,
    SpikingMLP,
    SpikingPatchSplitting,
)
from ..nodes.base import state_without_graph
from .flat import FlatTransformer
from .official import BLOCKS, BN, LINEAR, OfficialNames
from .registry import Paper, Variant, cfg, events, flat, register
from .released import ReleasedFault

__all__ = ["STSTransformer"]

_SCRAMBLED = "as released, the attention mixes all steps before it can tell them apart"


class PositionBias(nn.Module):
    """Learnt bias for each distance of two tokens in time, rows and columns, and each head.

    Args:
        step: number of steps T.
        grid_size: height H and width W of the map of tokens.
        num_heads: heads h.
    """

    def __init__(self, step: int, grid_size: tuple[int, int], num_heads: int):
        super().__init__()
        height, width = grid_size
        self.step, self.tokens = step, height * width
        self.table = nn.Parameter(torch.empty((2 * step - 1) * (2 * height - 1) * (2 * width - 1), num_heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        rows, columns = (torch.arange(side)[:, None] - torch.arange(side) + side - 1 for side in grid_size)
        distances = rows[:, None, :, None] * (2 * width - 1) + columns[None, :, None, :]
        self.register_buffer("distances", distances.reshape(self.tokens, self.tokens), persistent=False)

    def forward(self, steps: int) -> Tensor:
        """Return the biases `(h, N, steps*N)` of the queries of one step for the keys of the last `steps`, its own
        among them, in order of time.

        Raises:
            UserError: for more steps than the table has.
        """
        if steps > self.step:
            raise UserError(
                f"STSTransformer: it has position biases for T={self.step} steps, and saw more; call reset() between "
                "sequences, or build it with another step="
            )
        by_time = self.table.unflatten(0, (2 * self.step - 1, -1))[self.step - 1 : self.step - 1 + steps].flip(0)
        return rearrange(by_time[:, self.distances], "s n m h -> h n (s m)")


class SpatialTemporalAttention(SpikeInput):
    """Spatial-temporal self-attention: `proj(attn_node(scale * ((Q K^T + bias) * mask) V))` over the tokens of all
    steps, where the mask hides later steps.

    What is masked is not computed: each step's queries meet the keys up to their own step.

    Args:
        dim: width C of the tokens.
        num_heads: heads h; each is C/h wide.
        step: number of steps T.
        grid_size: height and width of the map of tokens.
        node: constructor of the neurons.

    Attributes:
        layer_by_layer: all steps a call; else one, and those before are kept.
        as_released: scramble the input as the released code does.
    """

    scale = 0.125
    as_released = False

    def __init__(self, dim: int, num_heads: int, step: int, grid_size: tuple[int, int], *, node: MakeNode):
        super().__init__()
        self.num_heads, self.step, self.layer_by_layer = num_heads, step, True
        self.qkv = LinearBNNode(dim, 3 * dim, bias=False, node=node)
        self.bias = PositionBias(step, grid_size, num_heads)
        self.match, self.gather = SpikeMatmul(), AttentionMatmul()
        self.attn_node = node()
        self.proj = LinearBNNode(dim, dim, node=node)
        self.n_reset()

    def n_reset(self) -> None:
        """Forget the keys and values of the steps before."""
        self.past: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)`, or those of a single step `(B, N, C)`, to spikes of the same shape."""
        steps = self.step if self.layer_by_layer else 1
        if self.as_released:
            x = self._scrambled(x)
        qkv = rearrange(self.qkv(x), "(t b) n (i h d) -> i b h (t n) d", t=steps, i=3, h=self.num_heads)
        y = self._all_steps(*qkv) if self.layer_by_layer else self._next_step(*qkv)
        y = rearrange(y, "b h (t n) d -> (t b) n (h d)", t=steps)
        return self.proj(self.attn_node(y * self.scale))

    def _all_steps(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        tokens = self.bias.tokens
        ends = range(tokens, q.shape[2] + 1, tokens)
        return torch.cat([self._attend(q[:, :, end - tokens : end], k[:, :, :end], v[:, :, :end]) for end in ends], 2)

    def _next_step(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.past = [torch.cat(pair, 2) for pair in zip(self.past, (k, v), strict=True)] if self.past else [k, v]
        return self._attend(q, *self.past)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map one step's queries `(B, h, N, d)` to sums of the values `(B, h, s*N, d)` of s steps."""
        biases = self.bias(k.shape[2] // q.shape[2])
        return self.gather(self.match(q, k.transpose(-2, -1)) + biases, v)

    def _scrambled(self, x: Tensor) -> Tensor:
        """Read the memory of `(T, B, C, N)` as `(B, C, T, N)`."""
        if not self.layer_by_layer:
            raise UserError(f"STSTransformer can't run one step at a time: {_SCRAMBLED}")
        memory = rearrange(x, "tb n c -> tb c n").contiguous()
        return rearrange(memory.view(-1, x.shape[2], self.step, x.shape[1]), "b c t n -> (t b) n c")

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle takes along: of the steps before the values, not their graph."""
        return state_without_graph(self)


class DropoutLinearBNNode(LinearBNNode):
    """`LinearBNNode` with dropout between the layer and its normalisation."""

    def __init__(self, *sizes: int, drop: float, **options: Any):
        super().__init__(*sizes, **options)
        self.drop = nn.Dropout(drop)

    def _multiply(self, layer: nn.Module, x: Tensor) -> Tensor:
        return self.drop(super()._multiply(layer, x))


class DropoutMLP(SpikingMLP):
    """`SpikingMLP` with dropout in front of each normalisation."""

    def __init__(self, dim: int, ratio: float, drop: float, *, node: MakeNode):
        self.unit = partial(DropoutLinearBNNode, drop=drop)
        super().__init__(dim, ratio, node=node)


def _number_stage(match: re.Match) -> str:
    """Name the stem's convolutions: the first four are its stages, the last one stands beside the stream."""
    index = int(match[1]) - 1
    return f"patch_embed.{f'stages.{index}' if index < 4 else 'rpe'}.{match[2]}."


class STSTransformer(ReleasedFault, FlatTransformer):
    """Stem, L encoder blocks with spatial-temporal attention, mean over tokens and steps, one linear classifier.

    Args:
        mlp_drop_rate: dropout in the MLPs, in front of each normalisation.
        as_released: scramble samples, steps and channels in front of each attention, as the released code does.
        **flat: patch_size, embed_dim (a multiple of 16), depth, num_heads, mlp_ratio, drop_path_rate, see
            `FlatTransformer`, and those of `SpikingTransformer`.
    """

    neuron_defaults: ClassVar = {
        **{"act_fun": "QGateGrad", "alpha": 1.0, "strict": True},
        **{"decay_input": False, "detach_reset": False},
    }
    fault = (
        "each attention reads the memory of a tensor (T, B, C, N) as if it were (B, C, T, N), so that a sample's "
        "logits depend on its neighbours in the batch"
    )
    mixes_samples = True
    joins_steps = "its attention has position biases for T steps of HxW tokens"
    official_names = OfficialNames(
        rename=(
            (r"^conv_stem\.block(\d)_(conv|bn)\.", _number_stage),
            BLOCKS,
            LINEAR,
            BN,
            (r"\.qkv_conv\.", ".qkv.linear."),
            (r"\.qkv_bn\.", ".qkv.bn."),
            (r"\.relative_position_bias_table$", ".bias.table"),
            (r"^classification\.", "head."),
        ),
        dead=(
            (r"\.attn\.to_qkv_(proj|bn)\.", "projection that the attention never calls"),
            (r"\.attn\.(mask_mat|relative_position_index)$", "follows from the number of steps and tokens"),
        ),
    )

    def __init__(self, *, mlp_drop_rate: float = 0.0, **flat: Any):
        self.mlp_drop_rate = mlp_drop_rate
        super().__init__(**flat)

    def _stem(self) -> nn.Module:
        self._require_width(16)
        return self._build_stem(SpikingPatchSplitting, pool="after", divisors=(16, 8, 4))

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        dim, node = self.embed_dim, self._neuron()
        attn = SpatialTemporalAttention(dim, self.num_heads, self.step, self.patch_embed.grid_size, node=node)
        return Block(attn, DropoutMLP(dim, self.mlp_ratio, self.mlp_drop_rate, node=node), drop_path)

    def _build_head(self) -> None:
        self.head = self._new_head(self.num_classes)  # the other layers keep PyTorch's initialisation

    def _layout(self) -> tuple[int, int]:
        if hasattr(self, "blocks"):
            raise UserError(
                f"STSTransformer: img_size stays as built, because {self.joins_steps}; got {self.img_size} (build the "
                "network with img_size=)"
            )
        return super()._layout()

    def set_as_released(self, enable: bool = True) -> None:
        """Scramble the input of each attention, or don't; scrambled, the network can't run one step at a time."""
        super().set_as_released(enable)
        self.mixes_time = _SCRAMBLED if enable else ""
        for block in self.blocks:
            block.attn.as_released = enable


_PAPER = Paper("STS-Transformer", "IJCAI 2023", "doi:10.24963/ijcai.2023/344", "ppppps/STSA_4_Asyn_SNN")
_DVS = flat(2, 256, 1, mlp_ratio=1.0, mlp_drop_rate=0.3, step=10)
register(
    STSTransformer,
    {
        "stsa_ndigits": Variant(
            {**_DVS, **flat(2, 64, 4, patch_size=4, mlp_drop_rate=0.0, step=4)}, {"": cfg(_PAPER, (2, 16, 16), 10)}
        ),
        "stsa_2_256": Variant(_DVS, events(_PAPER, None, "98.72 (T=16, not verified)")),
    },
    first_conv="patch_embed.stages.0.conv",
)
