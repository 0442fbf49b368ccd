"""Faults of released code: the networks here compute what the papers say, and `as_released` what the code does."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..nodes import SpikingNode

__all__ = ["BatchMixingFault", "ReleasedFault", "run_over_batch"]


class ReleasedFault:
    """Mixin of a network whose released code contradicts its paper; `as_released` reproduces the code.

    The choice is part of the state dict, so that a checkpoint restores it. A network that goes on building after this
    constructor takes the argument itself.
    """

    fault: str
    """What the released code does, in a clause."""
    mixes_samples = False
    """Whether a sample's logits depend on its neighbours in the batch then."""
    as_released = False

    def __init__(self, *, as_released: bool = False, **arguments: Any):
        super().__init__(**arguments)
        if as_released:
            self.set_as_released()

    def set_as_released(self, enable: bool = True) -> None:
        """Compute as the released code does, or as the paper says."""
        self.as_released = enable

    def shows_fault(self, state: Mapping[str, Tensor]) -> bool:
        """Return whether official weights, under our names, were trained with the fault."""
        return True

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.as_released)

    def set_extra_state(self, state: Tensor) -> None:
        self.set_as_released(bool(state))


class BatchMixingFault(ReleasedFault):
    """Mixin of a network in whose released code some neurons treat samples as time steps."""

    fault = "some neurons run over time x batch, so that a sample's logits depend on its neighbours in the batch"
    mixes_samples = True

    def _nodes_over_batch(self) -> Iterable[nn.Module]:
        """Return those neurons."""
        raise NotImplementedError

    def set_as_released(self, enable: bool = True) -> None:
        """Let the membrane of those neurons run through the batch, or keep the samples apart.

        Raises:
            UserError: for neurons that can't do it.
        """
        nodes = list(self._nodes_over_batch())
        if enable and not all(isinstance(node, SpikingNode) for node in nodes):
            raise UserError(f"{type(self).__name__}: as_released needs LIFNode, PLIFNode or IFNode neurons")
        super().set_as_released(enable)
        for node in nodes:
            run_over_batch(node, enable)


class _OverBatch(SpikingNode):
    """Mixin of a neuron whose membrane runs through all T*B slices of the first axis, from one sample to the next."""

    over_batch = True

    def _run(self, x: Tensor, parameters: Any, with_potentials: bool) -> tuple[Tensor, Tensor | None]:
        spikes, potentials = super()._run(x.flatten(0, 1), parameters, with_potentials)
        return spikes.reshape(x.shape), None if potentials is None else potentials.reshape(x.shape)

    def _over(self, x: Tensor) -> Tensor | None:
        over = super()._over(x.flatten(0, 1))
        return None if over is None else over.reshape(x.shape)

    def _move(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        move = super()._move
        return tuple(map(torch.cat, zip(*map(move, inputs.split(1)), strict=True)))

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _rebuilt, (type(self).__mro__[2],), self.__getstate__()

    def extra_repr(self) -> str:
        return super().extra_repr() + ", over_batch"


@functools.cache
def _over_batch(cls: type[SpikingNode]) -> type[SpikingNode]:
    return type(f"OverBatch{cls.__name__}", (_OverBatch, cls), {})


def _rebuilt(cls: type[SpikingNode]) -> SpikingNode:
    return _over_batch(cls).__new__(_over_batch(cls))


def run_over_batch(node: SpikingNode, enable: bool = True) -> None:
    """Let the membrane of a neuron run through the batch, or keep the samples apart: in place, so that hooks and
    references to it stay."""
    if isinstance(node, _OverBatch) != enable:
        node.__class__ = _over_batch(type(node)) if enable else type(node).__mro__[2]
