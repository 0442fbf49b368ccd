"""Faults of released code: the networks here compute what the papers say, and `as_released` what the code does."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..errors import UserError

__all__ = ["BatchMixingFault", "ReleasedFault"]


class ReleasedFault:
    """Mixin of a network whose released code contradicts its paper; `as_released` reproduces the code.

    The choice is part of the state dict, so that a checkpoint brings it back.
    """

    fault: str
    """What the released code does, in a clause."""
    as_released = False

    def set_as_released(self, enable: bool = True) -> None:
        """Compute as the released code does, or as the paper says."""
        self.as_released = enable

    def shows_fault(self, state: Mapping[str, Tensor]) -> bool:
        """Tell whether official weights, under our names, were trained with the fault."""
        return True

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.as_released)

    def set_extra_state(self, state: Tensor) -> None:
        self.set_as_released(bool(state))


class BatchMixingFault(ReleasedFault):
    """Mixin of a network in whose released code some neurons do not tell samples from time steps."""

    fault = "some neurons run over time x batch, so that a sample's logits depend on its neighbours in the batch"

    def _nodes_over_batch(self) -> Iterable[nn.Module]:
        """Return those neurons."""
        raise NotImplementedError

    def set_as_released(self, enable: bool = True) -> None:
        """Let the membrane of those neurons run through the batch, or keep the samples apart.

        Raises:
            UserError: for neurons that can't do it.
        """
        nodes = list(self._nodes_over_batch())
        if enable and not all(hasattr(type(node), "over_batch") for node in nodes):
            raise UserError(f"{type(self).__name__}: as_released needs LIFNode, PLIFNode or IFNode neurons")
        super().set_as_released(enable)
        for node in nodes:
            node.over_batch = enable
