"""Spike-driven Transformer.

Yao, Hu, Zhou, Yuan, Tian, Xu, Li: Spike-driven Transformer. NeurIPS 2023, arXiv 2307.01694. Official code:
BICLab/Spike-Driven-Transformer at 3faa822, Apache-2.0. New over Spikformer: self-attention without a matrix product
(the spikes of key and value meet element by element, their sum over the tokens fires a gate for each channel, and the
gate lets the query's channel through), and membrane shortcuts, so that every convolution but the first reads spikes.

Deviations of the official code from the paper, kept here:
- The code gates Q with K and V, the paper V with Q and K: the same function under other names.
- The network for CIFAR10-DVS (`attn_pool`) pools k, v, their product and the gated query, which the paper does not
  mention.
- Without `attn_pool` the number of heads changes nothing, so `num_heads` matters only for `as_released`.
- Drop path is declared and never called there. `drop_path_rate` works here.
- Where the MLP is as wide as the tokens, the code adds one more shortcut inside it; no published network is so, and
  that case is left out.

Corrected here, unless `as_released` says otherwise: the two later poolings of `attn_pool` run over rows of (token,
channel in head), so that they mix neighbouring channels, and tokens across the ends of the map's rows.
"""

import re
from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError
from ..layers import Block, LinearBN, LinearBNNode, MakeNode, MembraneMLP, MembranePatchSplitting, SpikeSum
from .base import init_weights
from .flat import FlatTransformer
from .official import BLOCKS, BN, LINEAR, POSITION, OfficialNames
from .registry import Paper, Variant, cfg, cifar, events, flat, imagenet, register
from .released import ReleasedFault

__all__ = ["SpikeDrivenTransformer"]


class SpikeDrivenSelfAttention(nn.Module):
    """Spike-driven self-attention: `proj(Q * gate(sum over tokens of K * V))`, potentials in and out. Equation 7 and
    figure 2 of the paper.

    Args:
        dim: width C of the tokens.
        node: constructor of the neurons.
        gate_node: constructor of the gates' neuron, which has a lower threshold.
    """

    def __init__(self, dim: int, *, node: MakeNode, gate_node: MakeNode):
        super().__init__()
        self.node = node()
        self.q, self.k, self.v = (LinearBNNode(dim, dim, node=node, bias=False) for _ in range(3))
        self.sum = SpikeSum(dim=1)
        self.gate_node = gate_node()
        self.proj = LinearBN(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, N, C)` to potentials of the same shape."""
        x = self.node(x)
        gate = self.gate_node(self.sum(self.k(x) * self.v(x)))
        return self.proj(self.q(x) * gate.unsqueeze(1))


class PooledSelfAttention(SpikeDrivenSelfAttention):
    """Spike-driven self-attention with a 3x3 max pooling behind k, v, their product and the gated query.

    Args:
        dim: width C of the tokens.
        grid_size: height and width of the map of tokens.
        num_heads: heads h of the released code's plane.
        **nodes: node and gate_node of `SpikeDrivenSelfAttention`.

    Attributes:
        as_released: pool the product and the gated query over (token, channel in head) instead of the map.
    """

    as_released = False

    def __init__(self, dim: int, grid_size: tuple[int, int], num_heads: int, **nodes: MakeNode):
        super().__init__(dim, **nodes)
        self.grid_size = grid_size
        self.num_heads = num_heads

    def _pool_map(self, tokens: Tensor) -> Tensor:
        maps = rearrange(tokens, "b (y x) c -> b c y x", y=self.grid_size[0])
        return rearrange(functional.max_pool2d(maps, 3, stride=1, padding=1), "b c y x -> b (y x) c")

    def _pool_released(self, tokens: Tensor) -> Tensor:
        planes = rearrange(tokens, "b n (h d) -> b h n d", h=self.num_heads)
        return rearrange(functional.max_pool2d(planes, 3, stride=1, padding=1), "b h n d -> b n (h d)")

    def forward(self, x: Tensor) -> Tensor:
        """Map potentials `(T*B, N, C)` to potentials of the same shape."""
        x = self.node(x)
        k, v = self._pool_map(self.k(x)), self._pool_map(self.v(x))
        pool = self._pool_released if self.as_released else self._pool_map
        gate = self.gate_node(self.sum(pool(k * v)))
        return self.proj(pool(self.q(x) * gate.unsqueeze(1)))


def _number_stage(match: re.Match) -> str:
    """Number the stem's first four convolutions; the neuron `proj_lif3` stands before the fifth."""
    kind, number = match[1], int(match[2] or 0)
    if kind == "lif":
        return "patch_embed.rpe.node." if number == 3 else f"patch_embed.stages.{number}.node."
    return f"patch_embed.stages.{number}.{kind}."


# SpikingJelly's Spike-driven Transformer is the same network. Its stem is numbered, with a convolution and a
# normalisation in each stage.
_JELLY = (
    (r"^patch_embed\.stages\.(\d)\.0\.", r"patch_embed.stages.\1.conv."),
    (r"^patch_embed\.stages\.(\d)\.1\.", r"patch_embed.stages.\1.bn."),
    (r"^patch_embed\.final_stage\.0\.", "patch_embed.stages.3.conv."),
    (r"^patch_embed\.final_stage\.1\.", "patch_embed.stages.3.bn."),
    (r"\.mlp\.fc(\d)\.(weight|bias)$", r".mlp.fc\1.linear.\2"),
    (r"\.mlp\.bn(\d)\.", r".mlp.fc\1.bn."),
)


class SpikeDrivenTransformer(ReleasedFault, FlatTransformer):
    """Spike-driven Transformer: stem, L encoder blocks on a stream of potentials, a neuron on their mean over the
    tokens, one linear classifier. Figure 2 of the paper.

    Args:
        attn_pool: pool inside the attention (CIFAR10-DVS).
        as_released: pool as the released code does; only with `attn_pool`.
        **flat: patch_size (4 for CIFAR and CIFAR10-DVS, 8 for Gesture, 16 for ImageNet), embed_dim, depth, num_heads
            (heads of the plane that `as_released` pools over; nothing else depends on them), mlp_ratio,
            drop_path_rate, see `FlatTransformer`, and those of `SpikingTransformer`; the neuron of the attention's
            gates has half the threshold.
    """

    official_names = OfficialNames(
        rename=(
            (r"^patch_embed\.proj_(conv|bn|lif)(\d?)\.", _number_stage),
            POSITION,
            BLOCKS,
            LINEAR,
            BN,
            (r"\.(q|k|v|fc1|fc2)_lif\.", r".\1.node."),
            (r"\.shortcut_lif\.", ".node."),
            (r"\.talking_heads_lif\.", ".gate_node."),
            (r"^head_lif\.", "head_node."),
            *_JELLY,
        ),
        dead=(
            (r"^block\.\d+\.attn\.talking_heads\.weight$", "convolution over heads that the attention never calls"),
            (r"^block\.\d+\.attn\.attn_lif\.w$", "leak of a neuron that the attention never calls"),
            (r"^patch_embed\.rpe_lif\.w$", "leak of a neuron that the stem never calls"),
        ),
    )

    def __init__(self, *, attn_pool: bool = False, **flat: Any):
        self.attn_pool = attn_pool
        super().__init__(**flat)

    def _stem(self) -> nn.Module:
        return self._build_stem(MembranePatchSplitting)

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        nodes = {"node": self._neuron(), "gate_node": self._neuron(0.5)}
        attn = (
            PooledSelfAttention(self.embed_dim, self._layout(), self.num_heads, **nodes)
            if self.attn_pool
            else SpikeDrivenSelfAttention(self.embed_dim, **nodes)
        )
        return Block(attn, MembraneMLP(self.embed_dim, self.mlp_ratio, node=self._neuron()), drop_path)

    def _build_head(self) -> None:
        self.head_node = self._neuron()()
        self.apply(init_weights)
        self.head = self._new_head(self.num_classes)

    def _init_head(self, head: nn.Linear) -> None:
        """Leave a new classifier as PyTorch initialises it, as the official code does."""

    @property
    def fault(self) -> str:
        """What the released code does; nothing is wrong where the attention does not pool."""
        return "the attention pools across channels and the ends of rows" if self.attn_pool else ""

    def set_as_released(self, enable: bool = True) -> None:
        """Pool inside the attention as the released code does, or over the map.

        Raises:
            UserError: for a network that does not pool there.
        """
        if enable and not self.attn_pool:
            raise UserError(
                "SpikeDrivenTransformer: as_released concerns the pooling inside the attention; got attn_pool=False, "
                "where the released code has no fault (leave as_released out)"
            )
        super().set_as_released(enable)
        for block in self.blocks if self.attn_pool else ():
            block.attn.as_released = enable


_PAPER = Paper("Spike-driven Transformer", "NeurIPS 2023", "arXiv:2307.01694", "BICLab/Spike-Driven-Transformer")
# The paper trained CIFAR10-DVS and Gesture with T=16; released is a configuration with T=10 for the one, both for the
# other.
_DVS = flat(2, 256, 8, patch_size=4, attn_pool=True, step=10)
register(
    SpikeDrivenTransformer,
    {
        "sdt_digits": Variant(flat(2, 64, 4, patch_size=1), {"": cfg(_PAPER, (1, 8, 8), 10)}),
        "sdt_2_256_cifar": Variant(flat(2, 256, 8, patch_size=4), cifar(_PAPER, "", "")),
        "sdt_2_512_cifar": Variant(flat(2, 512, 8, patch_size=4), cifar(_PAPER, 95.6, 78.4)),
        "sdt_8_384": Variant(flat(8, 384, 8), imagenet(_PAPER, 72.28)),
        "sdt_6_512": Variant(flat(6, 512, 8), imagenet(_PAPER, 74.11)),
        "sdt_8_512": Variant(flat(8, 512, 8), imagenet(_PAPER, 74.57)),
        "sdt_10_512": Variant(flat(10, 512, 8), imagenet(_PAPER, 74.66)),
        "sdt_8_768": Variant(
            flat(8, 768, 8),
            {**imagenet(_PAPER, 76.32), "in1k_288": cfg(_PAPER, (3, 288, 288), 1000, "ImageNet 77.07")},
        ),
        "sdt_2_256_dvs": Variant(_DVS, events(_PAPER, "80.0 (T=16)", None, side=64)),
        "sdt_2_256_gesture": Variant(flat(2, 256, 8, patch_size=8, step=16), events(_PAPER, None, "99.3")),
    },
    first_conv="patch_embed.stages.0.conv",
    aliases={"sd_transformer": "sdt_8_512", "sd_transformer_dvs": "sdt_2_256_dvs"},
)
