"""Dynamic SpikFormer: a reconstruction.

Datta, Liu, Li, Beerel: Spiking Neural Networks with Dynamic Time Steps for Vision Transformers. arXiv 2311.16456; as
Dynamic SpikFormer in ICASSP 2025. No code was published. New over Spikformer: training chooses at which steps a layer
of neurons may emit spikes, by a score for each step, of which a binary mask is made.

The paper's text fixes this and no more. What is chosen here, and why, stands in docs/reconstructions.md: scores for
each layer of neurons, all open at first; the gradient that the mask hands to them; a membrane that the mask leaves
alone; and the term of the loss that closes steps.
"""

import functools
from typing import Any

import torch
from braincog.base.node.node import BaseNode
from torch import Tensor, nn

from ..errors import UserError
from ..layers import MakeNode
from ..nodes import SpikingNode
from .registry import Paper, Variant, cfg, cifar, flat, register
from .spikformer import Spikformer

__all__ = ["DynamicSpikformer"]


class _Masked(BaseNode):
    """Mixin of a neuron whose spikes pass at some steps only: those whose score is above 0.

    Attributes:
        scores: `(T,)`, learnt.
    """

    _taken = 0

    def mask(self) -> Tensor:
        """Return 1 for an open step and 0 for a closed one, `(T,)`; the gradient goes straight to the scores from -1 to
        1."""
        through = self.scores.clamp(-1, 1)
        return (self.scores > 0).to(through) + (through - through.detach())

    def _let_through(self, spikes: Tensor) -> Tensor:
        """Mask all steps `(T, ...)`, or the next one `(1, ...)`."""
        first = 0 if self.layer_by_layer else self._taken
        mask = self.mask()[first : first + len(spikes)].to(spikes.dtype)
        if len(mask) < len(spikes):
            raise ValueError(
                f"{type(self).__name__}: the scores are those of {len(self.scores)} steps, and one more was taken; "
                "call n_reset() (reset() on a network) between sequences."
            )
        self._taken = first + len(spikes)
        return spikes * mask.view(-1, *[1] * (spikes.dim() - 1))

    def n_reset(self) -> None:
        """Forget the state, and begin at the first step again."""
        super().n_reset()
        self._taken = 0

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _rebuilt, (type(self).__mro__[3],), self.__getstate__()


class _MaskedSpikingNode(_Masked):
    """Mask of a `SpikingNode`: where its steps run, so that records have what was emitted."""

    def _run(self, x: Tensor, parameters: Any, with_potentials: bool) -> tuple[Tensor, Tensor | None]:
        spikes, potentials = super()._run(x, parameters, with_potentials)
        return self._let_through(spikes), potentials

    def _move(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        spikes, potential = super()._move(inputs)
        return self._let_through(spikes.unsqueeze(0)).squeeze(0), potential


class _MaskedBrainCogNode(_Masked):
    """Mask of any other node of BrainCog's: behind it."""

    def forward(self, inputs: Tensor) -> Tensor:
        spikes = super().forward(inputs)
        emitted = self._let_through(spikes.unflatten(0, (self.step if self.layer_by_layer else 1, -1)))
        self.spike = emitted[-1]
        if self.requires_fp:
            self.feature_map[-len(emitted) :] = emitted.unbind(0)
        return emitted.flatten(0, 1)


@functools.cache
def _masked(cls: type[BaseNode]) -> type[BaseNode]:
    return type(
        f"Masked{cls.__name__}", (_MaskedSpikingNode if issubclass(cls, SpikingNode) else _MaskedBrainCogNode, cls), {}
    )


def _rebuilt(cls: type[BaseNode]) -> BaseNode:
    return _masked(cls).__new__(_masked(cls))


def mask_steps(node: nn.Module, step: int) -> nn.Module:
    """Give a neuron, or what is wrapped around one, scores for its T steps, in place: all open."""
    inner = next(module for module in node.modules() if isinstance(module, BaseNode))
    inner.__class__ = _masked(type(inner))
    inner.scores = nn.Parameter(torch.ones(step))
    return node


class DynamicSpikformer(Spikformer):
    """Spikformer whose layers of neurons learn at which steps they emit spikes.

    Args:
        penalty: weight of what `extra_loss` adds to the loss of training.
        **spikformer: see `Spikformer`. T is the largest number of steps that a layer can have.
    """

    status = "reconstruction"
    official_names = None
    joins_steps = "each step has scores of its own"

    def __init__(self, *, penalty: float = 1e-2, step: int = 6, **spikformer: Any):
        if penalty < 0:
            raise UserError(f"DynamicSpikformer: penalty must be at least 0; got {penalty}")
        self.penalty = penalty
        super().__init__(step=step, **spikformer)

    def _neuron(self, threshold_ratio: float = 1.0) -> MakeNode:
        build = super()._neuron(threshold_ratio)
        return lambda: mask_steps(build(), self.step)

    def extra_loss(self) -> Tensor:
        """Return `penalty` times the mean sigmoid of the scores, over all layers and steps."""
        return self.penalty * torch.cat([node.scores for node in self.nodes.values()]).sigmoid().mean()

    def figures(self) -> dict[str, float]:
        """Return the number of open steps, a mean over the layers of neurons."""
        opened = torch.stack([node.scores for node in self.nodes.values()]) > 0
        return {"time_steps": opened.sum(1).double().mean().item()}


_PAPER = Paper("Dynamic SpikFormer", "ICASSP 2025", "arXiv:2311.16456", "")
register(
    DynamicSpikformer,
    {
        "dynamic_spikformer_digits": Variant(
            flat(2, 64, 4, patch_size=1, qkv_bias=True, step=4), {"": cfg(_PAPER, (1, 8, 8), 10)}
        ),
        "dynamic_spikformer_ndigits": Variant(
            flat(2, 64, 4, patch_size=2, attn_scale=0.25, step=4), {"": cfg(_PAPER, (2, 16, 16), 10)}
        ),
        "dynamic_spikformer_4_384_cifar": Variant(
            flat(4, 384, 12, patch_size=4, qkv_bias=True), cifar(_PAPER, "95.97 (4.97 steps on average)", "")
        ),
    },
    first_conv="patch_embed.stages.0.conv",
)
