"""Neurons that put out their potential: real numbers, not spikes."""

from typing import Any

from torch import Tensor

from ..errors import UserError
from ..ops.neuron import Fire, Membrane, Numbers, charge, reset
from .neurons import PLIFNode

__all__ = ["PLIAFNode"]


class PLIAFNode(PLIFNode):
    """Leaky integrate-and-analog-fire neuron that learns its time constant: a PLIF neuron that puts out `relu(h)`.

    h is the charged potential, before the reset. The threshold decides on the reset only, so that the surrogate has
    no effect while `detach_reset` is True. What reads the output multiplies, as in an ordinary network.

    Args:
        *args, **kwargs: see `PLIFNode`.

    Raises:
        UserError: for a threshold that learns, but would get no gradient.

    Source: Li, Lei, Yang, Spikeformer (arXiv 2211.10686); official code, `imagenet/neuron.py`.
    """

    binary = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.threshold.requires_grad and self.detach_reset and not self.soft_reset:
            raise UserError(
                "PLIAFNode: its threshold gets no gradient, since its output is no spike; leave out "
                "requires_thres_grad, or give soft_reset=True or detach_reset=False"
            )

    @staticmethod
    def advance(x: Tensor, state: Membrane, numbers: Numbers, fire: Fire) -> tuple[Tensor, Membrane]:
        leak, threshold, dynamics = numbers
        h = charge(x, state.v, leak, dynamics)
        s = fire(h - threshold)
        return h.relu(), Membrane(reset(h, s.detach() if dynamics.detach_reset else s, threshold, dynamics))
