"""A neuron behind a normalisation."""

from torch import Tensor, nn

from ..nodes import SpikingNode
from ..nodes.normalisation import normalised

__all__ = ["fire_after"]


def fire_after(node: nn.Module, bn: nn.Module, x: Tensor, copies: int = 1) -> Tensor:
    """Return `node(bn(x))`, in the way that the neuron knows, if it is one of ours (`SpikingNode.after`)."""
    return node.after(bn, x, copies) if isinstance(node, SpikingNode) else node(normalised(bn, x, copies))
