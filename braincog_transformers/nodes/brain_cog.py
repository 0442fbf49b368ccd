"""BrainCog's own nodes: built by name, run beside ours, or turned into ours by `accelerate`."""

import copy
import functools
import logging
from typing import Any

import torch
from braincog.base.node import node as braincog_node
from braincog.base.node.node import BaseNode
from braincog.base.strategy import surrogate as braincog_surrogate
from torch import Tensor, nn

from ..errors import UserError, unknown
from ..runtime.watching import is_hooked, is_patched
from .adaptive import ALIFNode, CLIFNode
from .analog import PLIAFNode
from .base import SpikingNode, state_without_graph, taking_turns
from .integer import ILIFNode
from .neurons import FusableNode, IFNode, LIFNode, PLIFNode
from .surrogates import build_surrogate, fires_above

__all__ = ["WrappedNode", "accelerate", "fires_levels", "make_node", "node_class", "register_node"]

_logger = logging.getLogger(__name__)


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
            spikes = self.node(inputs.flatten(1)).view(inputs.shape)
            return spikes.to(inputs.dtype)  # the noise of some is float64, and so would be what they fire

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle takes along, see `SpikingNode`."""
        node = copy.copy(self.node)
        node.__dict__.update(state_without_graph(node))
        return {**self.__dict__, "_modules": {**self._modules, "node": node}}


_TWINS = {"LIFNode": LIFNode, "PLIFNode": PLIFNode, "IFNode": IFNode}
_NODES = {**_TWINS, "ALIFNode": ALIFNode, "CLIFNode": CLIFNode, "ILIFNode": ILIFNode, "PLIAFNode": PLIAFNode}
# BrainCog's other nodes that can stand in for a LIF neuron; a test runs each.
_WRAPPED = {
    name: getattr(braincog_node, name)
    for name in ("BiasLIFNode", "BiasPLIFNode", "NoiseLIFNode", "NoisePLIFNode", "ReLUNode")
}
_REGISTERED: dict[str, type[BaseNode]] = {}


def register_node(cls: type[BaseNode]) -> type[BaseNode]:
    """Make a neuron known by its class's name, as a decorator: `node_type="Mine"`, or `--node-type Mine`.

    It is built and run once, so that a mistake shows here.

    Args:
        cls: derived from a node of this package, or from BrainCog's `BaseNode`.

    Raises:
        UserError: for another class, one that can't be built and run as networks do it, or a name that BrainCog's nodes
            or another class have.
    """
    name = _tried(cls).__name__
    if name in (*_NODES, *_WRAPPED) or _REGISTERED.get(name, cls).__module__ != cls.__module__:
        raise UserError(f"neuron {name}: another one has this name; choose another")
    _REGISTERED[name] = cls
    return cls


@functools.cache
def _tried(cls: type) -> type[BaseNode]:
    """Build a user's neuron as networks do, run two steps, and return its class."""
    owner = f"neuron {cls.__name__}"
    if not issubclass(cls, BaseNode):
        raise UserError(f"{owner} must be derived from a node of braincog_transformers, or from BrainCog's BaseNode")
    asked = {"threshold": 0.75, "step": 2, "layer_by_layer": True}
    others = {"tau": 2.0, "requires_thres_grad": False, "sigmoid_thres": False, "mem_detach": False}
    if not issubclass(cls, ILIFNode):
        others |= {"act_fun": "AtanGrad", "alpha": 2.0}
    x = torch.linspace(-1, 3, 12, device="cpu").view(4, 3)
    try:
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            node = _built(cls, **asked, **others)
            spikes = node(x)
    except Exception as error:  # whatever the user wrote
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{owner} can't be built and run as networks do it: {what}") from error
    if spikes.shape != x.shape:
        shapes = f"{tuple(x.shape)} gave {tuple(spikes.shape)}"
        raise UserError(f"{owner} must return spikes in the shape of its input, (T*B, ...); {shapes}")
    plain = isinstance(node, SpikingNode) and cls.forward is SpikingNode.forward  # puts out what its step returns
    if plain and node.binary and not ((spikes == 0) | (spikes == 1)).all():
        raise UserError(f"{owner} puts out other numbers than 0 and 1, and must say so: binary = False in its class")
    inner = node.node if isinstance(node, WrappedNode) else node
    if lost := [name for name, value in asked.items() if float(getattr(inner, name)) != value]:
        raise UserError(f"{owner} does not hand {', '.join(lost)} to the constructor of the class that it derives from")
    return cls


def make_node(node_type: str | type = "LIFNode", **kwargs: Any) -> nn.Module:
    """Build a neuron by the name or class of BrainCog's node.

    Args:
        node_type: "LIFNode", "PLIFNode", "IFNode", "ALIFNode", "CLIFNode", "ILIFNode", "PLIAFNode", one of BrainCog's
            other nodes, one that was registered, or a class derived from `SpikingNode` or BrainCog's `BaseNode`.
        **kwargs: the node's arguments.

    Raises:
        UserError: for an unknown name or class, or an option that the class can't honour.
    """
    return _built(node_class(node_type), **kwargs)


def node_class(node_type: str | type) -> type[BaseNode]:
    """Return the class of which `make_node` builds a neuron, in a `WrappedNode` unless it is a `SpikingNode`."""
    known = {**_NODES, **_WRAPPED, **_REGISTERED}
    name = node_type if isinstance(node_type, str) else node_type.__name__
    if isinstance(node_type, str) or node_type is getattr(braincog_node, name, None):
        if name not in known:
            raise unknown("node type", name, list(known))
        return known[name]
    if issubclass(node_type, SpikingNode):
        return node_type
    if name in (*_NODES, *_WRAPPED):
        raise UserError(
            f"node type {node_type.__module__}.{name} is not BrainCog's {name}; derive it from a node of "
            "braincog_transformers, or give it another name"
        )
    return _tried(node_type)


def fires_levels(node_type: str | type) -> bool:
    """Tell whether a name or class means a neuron that fires whole numbers, `ILIFNode` or one derived from it."""
    return issubclass(node_class(node_type), ILIFNode)


def _built(cls: type[BaseNode], **kwargs: Any) -> nn.Module:
    return cls(**kwargs) if issubclass(cls, SpikingNode) else WrappedNode(_build_wrapped(cls, **kwargs))


def _build_wrapped(
    cls: type[BaseNode],
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
        takes, refused = ", ".join(sorted(allowed)), ", ".join(sorted(refused))
        raise UserError(f"node type {cls.__name__} takes {takes}, not {refused}")
    node = cls(act_fun=type(build_surrogate(act_fun, alpha)), **kwargs)
    if hasattr(getattr(node, "act_fun", None), "alpha"):
        # BrainCog's constructors pass 2, whatever was asked for.
        node.act_fun.alpha.data.fill_(alpha)
    return node


def _twin(node: BaseNode) -> type[FusableNode] | None:
    """Return the class here that computes what one of BrainCog's nodes does; None where there is none."""
    cls = {getattr(braincog_node, name): cls for name, cls in _TWINS.items()}.get(type(node))
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
        if isinstance(module, BaseNode) and not isinstance(module, SpikingNode):
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
