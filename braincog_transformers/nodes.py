"""BrainCog nodes over `ops.neuron`: LIF, PLIF and IF neurons that run all T steps in one call, and `accelerate`.

They are `braincog.base.node.node.BaseNode`s with its interface (`n_reset`, `set_n_threshold`, `set_n_tau`,
`requires_fp`, `requires_mem`, `step`, `layer_by_layer`, `mem`) and its defaults, and work on tensors of any rank. The
two modes are described in `base_node`. A class that derives from one of them runs as it is written: kernels that do
the work of several layers at once take the place of the three classes here only.
"""

import copy
import logging
import math
from typing import Any

import torch
from braincog.base.node import node as braincog_node
from braincog.base.node.node import BaseNode
from braincog.base.strategy import surrogate as braincog_surrogate
from torch import Tensor, nn

from .act_funs import build_surrogate, fires_above
from .base_node import FusableNode, fill, state_without_graph, taking_turns
from .errors import UserError, unknown
from .ops.watching import is_hooked, is_patched

__all__ = ["FusableNode", "IFNode", "LIFNode", "PLIFNode", "WrappedNode", "accelerate", "make_node"]

_logger = logging.getLogger(__name__)


class IFNode(FusableNode):
    """Integrate-and-fire neuron: the membrane adds up its input.

    Args:
        threshold: firing threshold, dimensionless.
        act_fun: surrogate gradient, a BrainCog class or its name.
        tau: left alone; BrainCog's networks hand a time constant to every node.
        **kwargs: see `FusableNode`.
    """

    charge = "if"

    def __init__(
        self, threshold: float = 0.5, act_fun: str | type = "AtanGrad", *, tau: float | None = None, **kwargs: Any
    ):
        super().__init__(threshold, act_fun, **kwargs)

    def leak(self) -> None:
        return None


class LIFNode(FusableNode):
    """Leaky integrate-and-fire neuron with a fixed time constant.

    Args:
        threshold: firing threshold, dimensionless.
        tau: time constant in steps, at least 1.
        act_fun: surrogate gradient, a BrainCog class or its name.
        **kwargs: see `FusableNode`.
    """

    charge = "lif"

    def __init__(self, threshold: float = 0.5, tau: float = 2.0, act_fun: str | type = "QGateGrad", **kwargs: Any):
        super().__init__(threshold, act_fun, **kwargs)
        self.tau = 2.0
        self.set_n_tau(tau)

    def set_n_tau(self, tau: float) -> None:
        """Set the time constant, in steps."""
        if tau < 1:
            raise UserError(f"LIFNode: tau must be at least 1 step; got {tau}")
        if isinstance(self.tau, Tensor):
            fill(self, "tau", tau)
        else:
            self.tau = float(tau)

    def leak(self) -> Tensor:
        if isinstance(self.tau, Tensor):  # a parameter, as BrainCog's set_n_tau makes one
            return self.tau
        # A scalar on the CPU mixes with tensors of any device and type, like a Python number, and is exact.
        return torch.tensor(self.tau, dtype=torch.float64)

    def extra_repr(self) -> str:
        shown = f"tau={self.tau:g}, " if isinstance(self.tau, float) else ""
        return shown + super().extra_repr()


class PLIFNode(FusableNode):
    """Leaky integrate-and-fire neuron that learns its time constant: 1/tau is the sigmoid of the parameter `w`.

    Args:
        threshold: firing threshold, dimensionless.
        tau: time constant to start from, in steps, above 1.
        act_fun: surrogate gradient, a BrainCog class or its name.
        requires_alpha_grad: learn the surrogate's steepness.
        **kwargs: see `FusableNode`.

    Source: Fang et al., ICCV 2021, arXiv 2007.05785, equation 8.
    """

    charge = "plif"

    def __init__(
        self,
        threshold: float = 1.0,
        tau: float = 2.0,
        act_fun: str | type = "AtanGrad",
        *,
        requires_alpha_grad: bool = True,
        **kwargs: Any,
    ):
        super().__init__(threshold, act_fun, requires_alpha_grad=requires_alpha_grad, **kwargs)
        self.w = nn.Parameter(torch.zeros(()))
        self.set_n_tau(tau)

    def set_n_tau(self, tau: float) -> None:
        """Set the time constant, in steps; it goes on learning from there."""
        if tau <= 1:
            raise UserError(f"PLIFNode: tau must be above 1 step; got {tau}")
        fill(self, "w", -math.log(tau - 1))

    def leak(self) -> Tensor:
        return self.w.sigmoid()


class WrappedNode(nn.Module):
    """Run a node class of BrainCog's that has no twin here, all steps in one call and without leftover state.

    BrainCog's nodes take 2-D and 4-D tensors only and keep their membrane between calls: this unfolds any `(T*B,
    ...)` for them and resets first.

    Args:
        node: a BrainCog node built with `layer_by_layer=True`.
    """

    def __init__(self, node: BaseNode):
        super().__init__()
        self.node = node

    def forward(self, inputs: Tensor) -> Tensor:
        with taking_turns():
            if self.node.layer_by_layer:
                self.node.n_reset()
            return self.node(inputs.flatten(1)).view(inputs.shape)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle takes along, see `FusableNode`."""
        node = copy.copy(self.node)
        node.__dict__.update(state_without_graph(node))
        return {**self.__dict__, "_modules": {**self._modules, "node": node}}


_NODES = {"LIFNode": LIFNode, "PLIFNode": PLIFNode, "IFNode": IFNode}
# BrainCog's other nodes that can stand in for a LIF neuron; a test runs each.
_WRAPPED = ("BiasLIFNode", "BiasPLIFNode", "NoiseLIFNode", "NoisePLIFNode", "ReLUNode")


def make_node(node_type: str | type = "LIFNode", **kwargs: Any) -> nn.Module:
    """Build a neuron by the name or class of BrainCog's node.

    Args:
        node_type: "LIFNode", "PLIFNode", "IFNode", one of BrainCog's other nodes, or a class derived from those here.
        **kwargs: the node's arguments.

    Raises:
        UserError: for an unknown name or class, or an option that the class can't honour.
    """
    if isinstance(node_type, type) and issubclass(node_type, FusableNode):
        return node_type(**kwargs)
    name = node_type if isinstance(node_type, str) else node_type.__name__
    if name not in (*_NODES, *_WRAPPED):
        raise unknown("node type", name, [*_NODES, *_WRAPPED])
    if not isinstance(node_type, str) and node_type is not getattr(braincog_node, name):
        raise UserError(
            f"node type {node_type.__module__}.{name} is not BrainCog's {name}; derive it from a node of "
            "braincog_transformers, or give it another name"
        )
    return _NODES[name](**kwargs) if name in _NODES else WrappedNode(_build_wrapped(name, **kwargs))


def _build_wrapped(
    name: str,
    *,
    act_fun: str | type = "QGateGrad",
    alpha: float = 2.0,
    strict: bool | None = None,
    requires_alpha_grad: bool | None = None,
    **kwargs: Any,
) -> BaseNode:
    """Build one of BrainCog's nodes, which fires and learns as it does whatever `strict` and `requires_alpha_grad` are.
    Its constructor would drop an argument that it does not know, so that is checked here."""
    allowed = {"threshold", "tau", "step", "layer_by_layer", "mem_detach", "requires_thres_grad", "sigmoid_thres"}
    if refused := kwargs.keys() - allowed:
        raise UserError(f"node type {name} takes {', '.join(sorted(allowed))}, not {', '.join(sorted(refused))}")
    node = getattr(braincog_node, name)(act_fun=type(build_surrogate(act_fun, alpha)), **kwargs)
    if hasattr(node.act_fun, "alpha"):
        # BrainCog's constructors pass 2, whatever was asked for.
        node.act_fun.alpha.data.fill_(alpha)
    return node


def _twin(node: BaseNode) -> type[FusableNode] | None:
    """Return the class here that computes what one of BrainCog's nodes does; None where there is none."""
    cls = {getattr(braincog_node, name): cls for name, cls in _NODES.items()}.get(type(node))
    if cls is None or is_patched(node) or node.groups != 1 or node.v_reset != 0.0 or node.dt != 1.0:
        return None
    fire = node.act_fun
    watched = is_patched(fire) or is_hooked(fire)
    return cls if isinstance(fire, braincog_surrogate.SurrogateFunctionBase) and not watched else None


def _turn_into(node: BaseNode, cls: type[FusableNode]) -> None:
    """Make one of BrainCog's nodes a node of ours: the same object, so that parameters, hooks, state and whoever holds
    it stay."""
    membrane = node.__dict__.pop("mem")
    spike = node.__dict__.pop("spike")
    node.__class__ = cls
    node.strict = fires_above(node.act_fun)
    node.decay_input, node.soft_reset, node.detach_reset = True, False, True
    if cls is LIFNode:
        node.sigmoid_thres = False  # BrainCog's compares with the bare parameter, whatever that says
    if not node.layer_by_layer:
        node.mem, node.spike = membrane, spike


def accelerate(model: nn.Module) -> nn.Module:
    """Turn the LIF, PLIF and IF nodes of a BrainCog network into those here, in place, with identical outputs.

    A node stays the same object, with its parameters, hooks, state and whatever was attached to it, so an optimizer
    built before and the state dict's keys stay valid. A node that no node here reproduces exactly (another class,
    grouped steps, a resting potential, a surrogate that is no 0/1 spike, a method that was replaced) stays as it is and
    is named in the log. So is one that several places of the network share, in layer-by-layer mode: BrainCog's carries
    its membrane from one place to the next, while a call here starts from the resting potential, as after BrainCog's
    `reset()`, which its networks call at the start of each forward.

    Args:
        model: a network or a single node.

    Returns:
        `model`, its nodes changed.
    """
    names: dict[BaseNode, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, BaseNode) and not isinstance(module, FusableNode):
            names.setdefault(module, []).append(name or type(module).__name__)
    kept = []
    for node, places in names.items():
        cls = _twin(node)
        if cls is None or (len(places) > 1 and node.layer_by_layer):
            kept.append(" = ".join(places))
        else:
            _turn_into(node, cls)
    if kept:
        _logger.warning("accelerate: left %d nodes as they are: %s", len(kept), ", ".join(kept))
    return model
