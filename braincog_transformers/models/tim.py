"""TIM: Spikformer with a temporal interaction module.

Shen, Zhao, Shen, Zeng: TIM: An Efficient Temporal Interaction Module for Spiking Transformer. IJCAI 2024, arXiv
2401.11687. Official code: examples/TIM of BrainCog-X/Brain-Cog at 3998fd5, Apache-2.0. New: the query of each
attention is recurrent, mixed at every step with what a convolution makes of the query before; for events and, with
another stem, for sounds (SHD).

Deviations of the official code from the paper, kept here:
- Two neurons, behind the convolution and behind the mix, that the paper's weighted sum lacks; both begin at the
  second step. Here they get zeros at the first, so that they have a record of every step.
- Tokens and channels are not scrambled in front of the attention, as they were until September 2024.
- Layer norms and a neuron that the official block never calls are left out. `drop_path_rate` works here.
Corrected here, and kept with `as_released`: the code asks for lower thresholds in the attention under a name that its
neuron drops, so all are 1 and the recurrent query never fires.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from braincog.base.node.node import BaseNode
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ..errors import UserError
from ..layers import Block, MakeNode, SpikingMLP, SpikingPatchSplitting, SpikingSelfAttention
from ..nodes.base import state_without_graph, taking_turns
from .flat import FlatTransformer
from .official import BLOCKS, LINEAR, NORM, OfficialNames, number_stage
from .registry import Paper, Variant, cfg, flat, register
from .released import ReleasedFault

__all__ = ["TIMSpikformer"]

# Thresholds of the attention's neurons over the network's, by the last part of their names.
_RATIOS = {"attn_node": 0.5, "in_node": 0.3, "out_node": 0.5}


class TemporalInteraction(nn.Module):
    """Recurrent query (TIM): `z[0] = q[0]`, `z[t] = out_node(alpha in_node(conv(z[t-1])) + (1 - alpha) q[t])`.

    The convolution runs along the width of a head, with the tokens as its channels. Its neurons always take one step a
    call, also in a network that takes all steps at once.

    Args:
        tokens: number N of tokens.
        alpha: weight of the past, 0 to 1.
        in_node: constructor of the neuron behind the convolution.
        out_node: constructor of the neuron behind the mix.
    """

    def __init__(self, tokens: int, alpha: float, *, in_node: MakeNode, out_node: MakeNode):
        super().__init__()
        self.alpha = alpha
        self.conv = nn.Conv1d(tokens, tokens, 5, padding=2)
        self.in_node, self.out_node = in_node(), out_node()
        self.n_reset()

    def n_reset(self) -> None:
        """Forget the query of the step before."""
        self.before = None

    def _interact(self, q: Tensor, before: Tensor | None) -> Tensor:
        past = torch.zeros_like(q) if before is None else self.conv(before.flatten(0, 1)).view(q.shape)
        past = self.in_node(past)
        if before is None:
            self.out_node(torch.zeros_like(q))
            return q
        return self.out_node(past * self.alpha + q * (1 - self.alpha))

    def step(self, q: Tensor) -> Tensor:
        """Map the query `(B, h, N, d)` of one step to the recurrent one, which is kept for the next."""
        for node in self._nodes():
            node.layer_by_layer = False
        self.before = self._interact(q, self.before)
        return self.before

    def forward(self, q: Tensor, step: int) -> Tensor:
        """Map queries `(T*B, h, N, d)` of `step=T` steps to recurrent ones, from the resting potential.

        Its neurons hold the state of the call, so only one thread at a time runs this.
        """
        with taking_turns():
            return self._all_steps(q, step)

    def _all_steps(self, q: Tensor, step: int) -> Tensor:
        for node in self._nodes():
            node.layer_by_layer = False
            node.n_reset()
        z = []
        for q_t in q.unflatten(0, (step, -1)).unbind(0):
            z.append(self._interact(q_t, z[-1] if z else None))
        for node in self._nodes():
            _forget(node)
        return torch.cat(z)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle takes along: the query of the step before as values."""
        return state_without_graph(self)

    def _nodes(self) -> list[BaseNode]:
        return [module for module in self.modules() if isinstance(module, BaseNode)]


def _forget(node: BaseNode) -> None:
    """Drop a neuron's membrane, but not what it recorded."""
    recorded = node.feature_map, node.mem_collect
    node.n_reset()
    node.feature_map, node.mem_collect = recorded


class TemporalAttention(SpikingSelfAttention):
    """Spiking self-attention whose query goes through a temporal interaction module.

    Args:
        dim: width C of the tokens.
        num_heads: heads h; each is C/h wide.
        tim: the module.
        **nodes: node and attn_node of `SpikingSelfAttention`.
    """

    def __init__(self, dim: int, num_heads: int, tim: TemporalInteraction, **nodes: MakeNode):
        super().__init__(dim, num_heads, scale=0.25, proj_bias=False, **nodes)
        self.tim = tim

    def _query(self, q: Tensor) -> Tensor:
        node = next(module for module in self.q.modules() if isinstance(module, BaseNode))
        return self.tim(q, node.step) if node.layer_by_layer else self.tim.step(q)


@torch.fx.wrap
def cochlear_frames(x: Tensor) -> Tensor:
    """Fold 700 cochlear channels `(..., 700)` into two frames `(..., 2, 16, 16)`: the nearest 256 of each half."""
    nearest = torch.arange(256, device=x.device) * 350 // 256
    return x.unflatten(-1, (2, 350))[..., nearest].unflatten(-1, (16, 16))


@torch.fx.wrap
def checked_sequences(x: Tensor, step: int, streaming: bool) -> Tensor:
    """Return `(B, T, 700)`, or `(B, 700)` for a single step; raise `ValueError` for anything else."""
    if not x.is_floating_point():
        raise ValueError(f"TIMSpikformer: input must be floating point; got {x.dtype} (x.float()).")
    steps = () if streaming else (step,)
    if tuple(x.shape[1:]) not in [(*steps, *ones, 700) for ones in ((), (1,), (1, 1))]:
        expected = "one step, (B, 700)," if streaming else f"(B, T, 700) with T={step}"
        raise ValueError(
            f"TIMSpikformer: input must be {expected} of shd's 700 channels, at most with axes of 1 in front of them; "
            f"got {tuple(x.shape)} (set_attr('step', T) changes T)."
        )
    return x.flatten(1 + len(steps))


class TIMSpikformer(ReleasedFault, FlatTransformer):
    """Spikformer with a temporal interaction module in each attention.

    Args:
        embed_dim, depth, num_heads: see `FlatTransformer`; embed_dim/num_heads must be the number of tokens.
        tim_alpha: weight of the past in the recurrent query, 0 to 1.
        pool_to: side to which frames of another size are averaged, 64 for the official `if_UCF=True`; None leaves
            them. Sequences (`img_size=(1, 700)`, `in_chans=1`) become frames of 2x16x16 instead.
        as_released: the attention's neurons have the network's threshold, as in the released code.
        **flat: patch_size (of the frame that the stem sees), mlp_ratio, drop_path_rate, see `FlatTransformer`, and
            those of `SpikingTransformer`; the neurons of the attention have 0.5, 0.3 and 0.5 times the threshold.
    """

    neuron_defaults: ClassVar = {"mem_detach": True}
    fault = "the attention's neurons keep the network's threshold, so that the recurrent query never fires"
    official_names = OfficialNames(
        rename=(
            (r"^patch_embed\.proj_(conv|bn|lif)(\d?)\.", number_stage),
            (r"^patch_embed\.rpe_(conv|bn|lif)\.", r"patch_embed.rpe.\1."),
            BLOCKS,
            (r"\.TIM\.interactor\.", ".tim.conv."),
            (r"\.TIM\.(in|out)_lif\.", r".tim.\1_node."),
            (r"\.attn_lif\.", ".attn_node."),
            LINEAR,
            (r"\.(q|k|v|proj|fc1|fc2)_(bn|lif)\.", r".\1.\2."),
            (r"\.lif\.", ".node."),
        ),
        dead=(NORM, (r"\.res_lif\.(threshold|act_fun\.alpha)$", "neuron that the attention never calls")),
    )

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        depth: int = 2,
        num_heads: int = 16,
        tim_alpha: float = 0.5,
        pool_to: int | None = None,
        **flat: Any,
    ):
        if not 0 <= tim_alpha <= 1:
            raise UserError(f"TIMSpikformer: tim_alpha must be 0 to 1; got {tim_alpha}")
        self.tim_alpha, self.pool_to = tim_alpha, pool_to
        super().__init__(embed_dim=embed_dim, depth=depth, num_heads=num_heads, **flat)

    def _stem(self) -> nn.Module:
        self.is_sequence = self.img_size[0] == 1  # of the size that it is built with, not of a later one
        return self._build_stem(SpikingPatchSplitting, 2 if self.is_sequence else None, pool="after")

    def _block(self, index: int, drop_path: nn.Module) -> nn.Module:
        dim, node = self.embed_dim, self._neuron()
        attn_node, in_node, out_node = map(self._neuron, _RATIOS.values())
        tim = TemporalInteraction(dim // self.num_heads, self.tim_alpha, in_node=in_node, out_node=out_node)
        attn = TemporalAttention(dim, self.num_heads, tim, node=node, attn_node=attn_node)
        return Block(attn, SpikingMLP(dim, self.mlp_ratio, node=node), drop_path)

    def _layout(self) -> tuple[int, int]:
        """Return height and width of the map of tokens; raise `UserError` unless a head is as wide as there are
        tokens."""
        grid, heads = self._grid_of_tokens(), self.num_heads
        width = self.embed_dim // heads
        if grid[0] * grid[1] != width:
            raise UserError(
                "TIMSpikformer: the temporal interaction needs as many tokens as a head is wide; got "
                f"{grid[0]}x{grid[1]}={grid[0] * grid[1]} tokens, embed_dim/num_heads={self.embed_dim}/{heads}={width} "
                "(another img_size, pool_to, patch_size or num_heads)"
            )
        return grid

    def _grid_of_tokens(self) -> tuple[int, int]:
        if self.is_sequence:
            if (self.in_chans, *self.img_size) != (1, 1, 700):
                raise UserError(
                    "TIMSpikformer: a sequence must have in_chans=1, img_size=(1, 700), the channels of shd; got "
                    f"in_chans={self.in_chans}, img_size={self.img_size}"
                )
            return 16 // self.patch_size, 16 // self.patch_size
        if self.pool_to is None:
            return super()._layout()
        if self.pool_to < self.patch_size or self.pool_to % self.patch_size:
            raise UserError(
                f"TIMSpikformer: pool_to must be a multiple of patch_size; got pool_to={self.pool_to}, "
                f"patch_size={self.patch_size}"
            )
        return self.pool_to // self.patch_size, self.pool_to // self.patch_size

    def _reduction(self) -> int:
        """Return the input's height over that of the map of tokens; of a sequence, that of its frames."""
        return self.patch_size if self.is_sequence else self.img_size[0] // self.patch_embed.grid_size[0]

    def set_input_size(self, *sizes: Any, **named: Any) -> None:
        """Take inputs of another size from now on, see `TimmCalls`; frames are averaged to the same side as before."""
        super().set_input_size(*sizes, **named)
        for info in self.feature_info:
            info["reduction"] = self._reduction()

    def _frames(self, x: Tensor) -> Tensor:
        if self.is_sequence:
            return cochlear_frames(checked_sequences(x, self.step, self.streaming))
        x = super()._frames(x)
        if self.pool_to is None or self.img_size == (self.pool_to, self.pool_to):
            return x
        return adaptive_avg_pool2d(x.flatten(0, -4), self.pool_to).unflatten(0, x.shape[:-3])

    def set_as_released(self, enable: bool = True) -> None:
        """Give the attention's neurons the network's threshold, or their own."""
        super().set_as_released(enable)
        for name, node in self.nodes.items():
            ratio = next((ratio for part, ratio in _RATIOS.items() if f".{part}" in name), None)
            if ratio is not None:
                node.threshold.data.fill_(self.neurons.threshold * (1 if enable else ratio))

    def shows_fault(self, state: Mapping[str, Tensor]) -> bool:
        """Return whether all thresholds in the file are equal."""
        thresholds = [value for name, value in state.items() if name.endswith(".threshold")]
        return bool(thresholds) and all(torch.equal(value, thresholds[0]) for value in thresholds)


_PAPER = Paper("TIM", "IJCAI 2024", "arXiv:2401.11687", "BrainCog-X/Brain-Cog")
register(
    TIMSpikformer,
    {
        "tim_ndigits": Variant(flat(2, 64, 4, patch_size=4, step=4), {"": cfg(_PAPER, (2, 16, 16), 10)}),
        "tim_2_256_dvs": Variant(
            flat(2, 256, 16, pool_to=64, step=10),
            {
                "cifar10dvs": cfg(_PAPER, (2, 64, 64), 10, "CIFAR10-DVS 81.6 (tim_alpha=0.6)"),
                "ncaltech101": cfg(_PAPER, (2, 64, 64), 101, "N-Caltech101 79.0 (tim_alpha=0.4)"),
                "ncars": cfg(_PAPER, (2, 64, 64), 2, "N-CARS 96.5 (not verified)"),
                "ucf101dvs": cfg(_PAPER, (2, 180, 240), 101, "UCF101-DVS 63.8 (not verified)"),
                "hmdb51dvs": cfg(_PAPER, (2, 180, 240), 51, "HMDB51-DVS 58.6 (not verified)"),
            },
        ),
        "tim_2_256_shd": Variant(
            flat(2, 256, 16, patch_size=4, step=10), {"shd": cfg(_PAPER, (1, 1, 700), 20, "SHD 86.3", first_conv=None)}
        ),
    },
    first_conv="patch_embed.stages.0.conv",
)
