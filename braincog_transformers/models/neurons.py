"""The options that every neuron of a network is built with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from ..nodes import make_node
from .arguments import check_arguments, hints_of

__all__ = ["NodeOptions"]


@dataclass(frozen=True)
class NodeOptions:
    """How a network's neurons are built; the defaults are those of the Spikformer family's papers.

    Whatever the surrogate, they fire at the threshold, not only above it, and its steepness is not learnt.

    Args:
        node_type: BrainCog's node class or its name.
        threshold: firing threshold; neurons with a threshold of their own keep its ratio to the network's.
        tau: membrane time constant, in steps.
        act_fun: surrogate gradient, BrainCog's class or its name.
        alpha: steepness of the surrogate.
        requires_thres_grad: learn the thresholds.
        sigmoid_thres: the threshold is the sigmoid of the parameter.
        mem_detach: no gradient from one step to the one before.
    """

    node_type: str | type = "LIFNode"
    threshold: float = 1.0
    tau: float = 2.0
    act_fun: str | type = "SigmoidGrad"
    alpha: float = 4.0
    requires_thres_grad: bool = False
    sigmoid_thres: bool = False
    mem_detach: bool = False

    def __post_init__(self):
        check_arguments("a network's neurons", hints_of(type(self)), vars(self))

    def constructor(self, step: int, threshold_ratio: float = 1.0) -> Callable[[], nn.Module]:
        """Return a function that builds one neuron.

        Args:
            step: number of steps T.
            threshold_ratio: this neuron's threshold over the network's.
        """
        return partial(
            make_node,
            self.node_type,
            step=step,
            layer_by_layer=True,
            threshold=self.threshold * threshold_ratio,
            tau=self.tau,
            act_fun=self.act_fun,
            alpha=self.alpha,
            requires_thres_grad=self.requires_thres_grad,
            sigmoid_thres=self.sigmoid_thres,
            mem_detach=self.mem_detach,
            strict=False,
            requires_alpha_grad=False,
        )
