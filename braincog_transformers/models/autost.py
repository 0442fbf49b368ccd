"""AutoST.

Wang, Zhao, Cui, Liu, Xu: AutoST: Training-free Neural Architecture Search for Spiking Transformers. ICASSP 2024, arXiv
2307.00293. Official code: AlexandreWANG915/AutoST at 7e7ca45, no licence stated. New: width, depth, and each block's
heads and MLP ratio are searched for; a candidate is scored untrained, by its operations (see `search.py`). The network
that is searched is not Spikformer: it has Spikingformer's membrane shortcuts, and each neuron learns its leak.

Deviations of the official code from the paper, kept here:
- The attention scale is the constant 0.125 for every width of a head.
- There is no neuron in front of or behind the position convolution, and none in front of the classifier: both read
  potentials.

Neither weights nor searched architectures were released. `autost_tiny`, `autost_small` and `autost_base` are the first
rows that this package's search finds in the official space of that name with its default seed and numbers, for CIFAR10
and 4 to 5, 11 to 12 (the official window) and 28 to 30 million parameters. No accuracy was published of them.

The official class reads one image for all steps, and quarters its sides; it accepts `patch_size`, drop path and a bias
of q, k and v, and ignores them. Here other patches, drop path and events work, as in the sister networks.
"""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from ..errors import UserError
from ..layers import Block, MembraneMLP, MembranePatchSplitting, MembraneSelfAttention
from .flat import FlatTransformer
from .official import BLOCKS, BN, POSITION, OfficialNames
from .registry import Paper, Variant, cfg, cifar, flat, register

__all__ = ["AutoST"]


def _number_stage(match: re.Match) -> str:
    """Number the stem's first four convolutions: `proj_conv` is 0, `proj_lif2` the neuron of 2."""
    kind = {"lif": "node"}.get(match[1], match[1])
    return f"patch_embed.stages.{match[2] or 0}.{kind}."


class AutoST(FlatTransformer):
    """AutoST: stem, L encoder blocks on a stream of potentials, each with heads and an MLP ratio of its own, their mean
    over tokens and steps, one linear classifier.

    Args:
        depth: number L of blocks.
        num_heads: attention heads of each block, from first to last; one number for all.
        mlp_ratio: width of each block's MLP over C; one number for all.
        patch_size: side of a token, pixels.
        **flat: embed_dim, drop_path_rate, see `FlatTransformer`, and those of `SpikingTransformer`; the neuron behind
            the attention product has half the threshold.
    """

    neuron_defaults: ClassVar[dict[str, Any]] = {"node_type": "PLIFNode"}
    official_names = OfficialNames(
        rename=(
            (r"^patch_embed\.proj_(conv|bn|lif)(\d?)\.", _number_stage),
            POSITION,
            BLOCKS,
            (r"\.(q|k|v|proj|fc1|fc2)_linear\.", r".\1.linear."),
            BN,
            (r"\.(q|k|v|fc1|fc2)_lif\.", r".\1.node."),
            (r"\.attn\.lif\.", ".attn.node."),
            (r"\.attn_lif\.", ".attn_node."),
        )
    )

    def __init__(
        self,
        *,
        depth: int = 4,
        num_heads: int | Sequence[int] = 8,
        mlp_ratio: float | Sequence[float] = 4.0,
        patch_size: int = 4,
        **flat: Any,
    ):
        heads, ratios = self._by_block("num_heads", num_heads, depth), self._by_block("mlp_ratio", mlp_ratio, depth)
        super().__init__(depth=depth, num_heads=heads, mlp_ratio=ratios, patch_size=patch_size, **flat)

    def _by_block(self, name: str, value: Any, depth: int) -> tuple:
        """Return an argument's value for each block; raise `UserError` for another number of values than blocks."""
        values = tuple(value) if isinstance(value, Sequence) else (value,) * depth
        if len(values) != depth:
            raise UserError(
                f"{type(self).__name__}: {name} must have one value for each of the {depth} blocks (depth), or be one "
                f"number for all; got {len(values)}: {', '.join(map(str, values[:12]))}"
            )
        return values

    def _require_heads(self, dim: int, num_heads: Sequence[int]) -> None:
        for heads in num_heads:
            super()._require_heads(dim, heads)

    def _stem(self) -> nn.Module:
        return self._build_stem(MembranePatchSplitting, rpe_reads="potentials")

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        nodes = self._attention_nodes()
        attn = MembraneSelfAttention(self.embed_dim, self.num_heads[index], qkv_bias=True, **nodes)
        return Block(attn, MembraneMLP(self.embed_dim, self.mlp_ratio[index], node=nodes["node"]), drop_path)


_PAPER = Paper("AutoST", "ICASSP 2024", "arXiv:2307.00293", "AlexandreWANG915/AutoST")
_CIFAR = cifar(_PAPER, "", "")
register(
    AutoST,
    {
        "autost_digits": Variant(flat(2, 64, 4, patch_size=1), {"": cfg(_PAPER, (1, 8, 8), 10)}),
        "autost_tiny": Variant(flat(1, 384, (4,), mlp_ratio=(5,)), _CIFAR),
        "autost_small": Variant(flat(3, 512, (8, 8, 4), mlp_ratio=(3, 3, 3)), _CIFAR),
        "autost_base": Variant(flat(4, 704, (4, 8, 8, 8), mlp_ratio=(4, 4, 3, 3)), _CIFAR),
    },
    first_conv="patch_embed.stages.0.conv",
    aliases={"autost": "autost_small"},
)
