"""BrainCog nodes over `ops.neuron`: LIF, PLIF and IF neurons that run all T steps in one call, and `accelerate`.

They are `braincog.base.node.node.BaseNode`s with its interface (`n_reset`, `set_n_threshold`, `set_n_tau`,
`requires_fp`, `requires_mem`, `step`, `layer_by_layer`) and work on tensors of any rank.

Two modes agree spike for spike. With `layer_by_layer` (the default) a call takes `(T*B, ...)`, T outermost, starts
from the resting potential and leaves nothing behind: there is nothing to reset. Without it a call takes one step,
`(B, ...)`, and the membrane stays in the node until `n_reset`.
"""

import logging
import math
from collections.abc import Callable

import torch
from braincog.base.node import node as braincog_node
from braincog.base.node.node import BaseNode
from braincog.base.strategy import surrogate as braincog_surrogate
from torch import Tensor, nn

from .errors import UserError, unknown
from .ops.dynamics import Dynamics, membrane_dtype
from .ops.neuron import multi_step, step
from .ops.surrogate import SURROGATES

__all__ = ["IFNode", "LIFNode", "PLIFNode", "WrappedNode", "accelerate", "make_node"]

_logger = logging.getLogger(__name__)

# Surrogates whose BrainCog form fires above the threshold only.
_STRICT = {"AtanGrad", "GateGrad", "QGateGrad"}


def _surrogate(act_fun: str | type, alpha: float) -> nn.Module:
    """Build BrainCog's surrogate module; its `alpha` is where the node reads the steepness from."""
    if isinstance(act_fun, str):
        cls = getattr(braincog_surrogate, act_fun, None)
        known = [name for name in vars(braincog_surrogate) if name.endswith("Grad")]
        if act_fun not in known:
            raise unknown("surrogate gradient (act_fun)", act_fun, known)
    else:
        cls = act_fun
    if cls.__name__ == "RoundGrad":
        raise UserError("act_fun RoundGrad does not give 0/1 spikes; choose from " + ", ".join(SURROGATES))
    return cls(alpha=alpha, requires_grad=False)


class FusableNode(BaseNode):
    """What the three neurons share; a subclass names its charge and holds its leak.

    Adds to a state dict: `threshold` and `act_fun.alpha`, as every BrainCog node does (`PLIFNode` also `w`).

    Args:
        threshold: firing threshold, dimensionless.
        act_fun: surrogate gradient, a BrainCog class or its name; see `ops.surrogate`.
        alpha: steepness of the surrogate.
        v_reset: resting potential.
        decay_input: divide the input by tau too (not for IF).
        soft_reset: subtract the threshold instead of going back to `v_reset`.
        detach_reset: no gradient through the spike in the reset.
        mem_detach: no gradient from one step to the one before.
        step: number of steps T in a call with `layer_by_layer`.
        layer_by_layer: all steps at once, without state; else one step a call.
        requires_thres_grad: learn the threshold.
        sigmoid_thres: the threshold is the sigmoid of the parameter.
        requires_fp: keep the spikes of the last call in `feature_map`, a list of T tensors `(B, ...)`.
        requires_mem: keep the potentials after the reset in `mem_collect`, likewise.

    Attributes:
        over_batch: the membrane runs through all T*B slices of the first axis, from one sample to the next, as in some
            released networks; to reproduce those and for nothing else.
    """

    charge: str
    over_batch = False

    def __init__(
        self,
        threshold: float = 1.0,
        act_fun: str | type = "SigmoidGrad",
        alpha: float = 4.0,
        v_reset: float = 0.0,
        decay_input: bool = True,
        soft_reset: bool = False,
        detach_reset: bool = True,
        mem_detach: bool = False,
        step: int = 4,
        layer_by_layer: bool = True,
        requires_thres_grad: bool = False,
        sigmoid_thres: bool = False,
        requires_fp: bool = False,
        requires_mem: bool = False,
    ):
        super().__init__(
            threshold=float(threshold),
            v_reset=v_reset,
            step=step,
            requires_thres_grad=requires_thres_grad,
            sigmoid_thres=sigmoid_thres,
            requires_fp=requires_fp,
            layer_by_layer=layer_by_layer,
            mem_detach=mem_detach,
            requires_mem=requires_mem,
        )
        self.act_fun = _surrogate(act_fun, alpha)
        self.decay_input = decay_input
        self.soft_reset = soft_reset
        self.detach_reset = detach_reset
        self.strict = False
        self.n_reset()

    def leak(self) -> Tensor | None:
        """Return tau, k or nothing, as the charge wants it."""
        raise NotImplementedError

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(
            charge=self.charge,
            surrogate=type(self.act_fun).__name__,
            decay_input=self.decay_input,
            soft_reset=self.soft_reset,
            detach_reset=self.detach_reset,
            detach_mem=self.mem_detach,
            strict=self.strict,
            v_reset=float(self.v_reset),
        )

    @property
    def _own_fire(self) -> Callable[[Tensor], Tensor] | None:
        """BrainCog's own spike function, where ours has no twin of it."""
        twin = type(self.act_fun).__name__ in SURROGATES and not self.act_fun.alpha.requires_grad
        return None if twin else self.act_fun

    @property
    def fusable(self) -> bool:
        """Whether the node does nothing but fire, so that a kernel may do it together with what is in front."""
        recorded = self.requires_fp or self.requires_mem
        return self.layer_by_layer and not (self.over_batch or recorded) and self._own_fire is None

    def calc_spike(self):
        """Do not use: charge, fire and reset are one operation here (`ops.neuron.step`)."""
        raise NotImplementedError(f"{type(self).__name__}: call the node; it charges, fires and resets at once.")

    def n_reset(self) -> None:
        """Forget the membrane and what was recorded; needed only between sequences fed step by step."""
        self.mem = None
        self.spike = 0.0
        self.feature_map = []
        self.mem_collect = []

    def set_n_threshold(self, thresh: float) -> None:
        """Set the threshold, in place: device, type and whether it learns stay."""
        with torch.no_grad():
            self.threshold.fill_(thresh)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return spikes in the shape of `inputs`: `(T*B, ...)`, or `(B, ...)` for a single step.

        Raises:
            ValueError: if T does not divide the first axis, or a single step's shape differs from the one before.
        """
        return self._all_steps(inputs) if self.layer_by_layer else self._one_step(inputs)

    def _all_steps(self, inputs: Tensor) -> Tensor:
        if self.step < 1 or inputs.shape[0] % self.step:
            raise ValueError(
                f"{type(self).__name__}: the first axis must be T*B with T={self.step} steps; got {inputs.shape[0]} "
                "(set_attr('step', T) on the network changes T)."
            )
        inputs = inputs.unflatten(0, (self.step, -1))
        spikes, potentials = multi_step(
            inputs.flatten(0, 1) if self.over_batch else inputs,
            self.leak(),
            self.get_thres(),
            self.act_fun.alpha,
            self.dynamics,
            fire=self._own_fire,
            with_potentials=self.requires_mem,
        )
        spikes = spikes.view(inputs.shape)
        if self.requires_fp:
            self.feature_map = list(spikes.unbind(0))
        if self.requires_mem:
            self.mem_collect = list(potentials.view(inputs.shape).unbind(0))
        return spikes.flatten(0, 1)

    def _one_step(self, inputs: Tensor) -> Tensor:
        if self.over_batch and len(inputs) > 1:
            return self._one_step_over_batch(inputs)
        if self.mem is None:
            self.mem = torch.full_like(inputs, self.v_reset, dtype=membrane_dtype(inputs.dtype))
        if self.mem.shape != inputs.shape:
            raise ValueError(
                f"{type(self).__name__}: the membrane holds {tuple(self.mem.shape)} from the step before, the input "
                f"is {tuple(inputs.shape)}; call n_reset() (reset() on a network) between sequences."
            )
        self.spike, self.mem = step(
            inputs, self.mem, self.leak(), self.get_thres(), self.act_fun.alpha, self.dynamics, self._own_fire
        )
        if self.requires_fp:
            self.feature_map.append(self.spike)
        if self.requires_mem:
            self.mem_collect.append(self.mem)
        return self.spike

    def _one_step_over_batch(self, inputs: Tensor) -> Tensor:
        requires_fp, requires_mem = self.requires_fp, self.requires_mem
        self.requires_fp = self.requires_mem = False
        spikes, potentials = zip(*((self._one_step(row), self.mem) for row in inputs.split(1)), strict=True)
        self.requires_fp, self.requires_mem = requires_fp, requires_mem
        if requires_fp:
            self.feature_map.append(torch.cat(spikes))
        if requires_mem:
            self.mem_collect.append(torch.cat(potentials))
        return torch.cat(spikes)

    def extra_repr(self) -> str:
        on_meta = self.threshold.device.type == "meta"
        shown = [f"step={self.step}" if on_meta else f"threshold={self.threshold.item():g}, step={self.step}"]
        shown += [name for name in ("soft_reset", "mem_detach", "requires_fp", "requires_mem") if getattr(self, name)]
        shown += ["over_batch"] * self.over_batch
        shown += [
            f"not {name}" for name in ("decay_input", "detach_reset", "layer_by_layer") if not getattr(self, name)
        ]
        return ", ".join(shown)


class IFNode(FusableNode):
    """Integrate-and-fire neuron: the membrane adds up its input. Arguments: those of `LIFNode` but `tau`."""

    charge = "if"

    def leak(self) -> None:
        return None


class LIFNode(FusableNode):
    """Leaky integrate-and-fire neuron with a fixed time constant.

    Args:
        tau: time constant in steps, above 1.
        **kwargs: threshold, act_fun, alpha, v_reset, decay_input, soft_reset, detach_reset, mem_detach, step,
            layer_by_layer,
            requires_thres_grad, sigmoid_thres, requires_fp, requires_mem; any other raises.
    """

    charge = "lif"

    def __init__(self, threshold: float = 1.0, tau: float = 2.0, act_fun: str | type = "SigmoidGrad", **kwargs):
        super().__init__(threshold, act_fun, **kwargs)
        self.set_n_tau(tau)

    def set_n_tau(self, tau: float) -> None:
        """Set the time constant, in steps."""
        if tau < 1:
            raise UserError(f"LIFNode: tau must be at least 1 step; got {tau}")
        self.tau = float(tau)

    def leak(self) -> Tensor:
        # A scalar on the CPU mixes with tensors of any device and type, like a Python number, and is exact.
        return torch.tensor(self.tau, dtype=torch.float64)

    def extra_repr(self) -> str:
        return f"tau={self.tau:g}, {super().extra_repr()}"


class PLIFNode(FusableNode):
    """Leaky integrate-and-fire neuron that learns its time constant: 1/tau is the sigmoid of the parameter `w`.

    Args:
        tau: time constant to start from, in steps, above 1.
        **kwargs: as in `LIFNode`.

    Source: Fang et al., ICCV 2021, arXiv 2007.05785, equation 8.
    """

    charge = "plif"

    def __init__(self, threshold: float = 1.0, tau: float = 2.0, act_fun: str | type = "SigmoidGrad", **kwargs):
        super().__init__(threshold, act_fun, **kwargs)
        self.w = nn.Parameter(torch.zeros(()))
        self.set_n_tau(tau)

    def set_n_tau(self, tau: float) -> None:
        """Set the time constant, in steps; it goes on learning from there."""
        if tau <= 1:
            raise UserError(f"PLIFNode: tau must be above 1 step; got {tau}")
        with torch.no_grad():
            self.w.fill_(-math.log(tau - 1))

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
        if self.node.layer_by_layer:
            self.node.n_reset()
        return self.node(inputs.flatten(1)).view(inputs.shape)


_NODES = {"LIFNode": LIFNode, "PLIFNode": PLIFNode, "IFNode": IFNode}
# BrainCog's other nodes that can stand in for a LIF neuron; a test runs each.
_WRAPPED = ("BiasLIFNode", "BiasPLIFNode", "NoiseLIFNode", "NoisePLIFNode", "ReLUNode")


def make_node(node_type: str | type = "LIFNode", **kwargs) -> nn.Module:
    """Build a neuron by the name or class of BrainCog's node.

    Args:
        node_type: "LIFNode", "PLIFNode", "IFNode", one of BrainCog's other nodes, or a class derived from those here.
        **kwargs: the node's arguments; `tau` is left out for a node without a leak.

    Raises:
        UserError: for an unknown name, or an option that the class can't honour.
    """
    if isinstance(node_type, type) and issubclass(node_type, FusableNode):
        return node_type(**kwargs)
    name = node_type if isinstance(node_type, str) else node_type.__name__
    if name in _NODES:
        if name == "IFNode":
            kwargs.pop("tau", None)
        return _NODES[name](**kwargs)
    if name not in _WRAPPED:
        raise unknown("node type", name, [*_NODES, *_WRAPPED])
    return WrappedNode(_build_wrapped(name, **kwargs))


def _build_wrapped(name: str, *, act_fun: str | type = "SigmoidGrad", alpha: float = 4.0, **kwargs) -> BaseNode:
    """Build one of BrainCog's nodes; its constructor would drop an argument that it does not know, so that is checked
    here."""
    allowed = {"threshold", "tau", "step", "layer_by_layer", "mem_detach", "requires_thres_grad", "sigmoid_thres"}
    if refused := kwargs.keys() - allowed:
        raise UserError(f"node type {name} takes {', '.join(sorted(allowed))}, not {', '.join(sorted(refused))}")
    node = getattr(braincog_node, name)(act_fun=type(_surrogate(act_fun, alpha)), **kwargs)
    if hasattr(node.act_fun, "alpha"):
        # BrainCog's constructors pass 2, whatever was asked for.
        node.act_fun.alpha.data.fill_(alpha)
    return node


def _twin(node: BaseNode) -> nn.Module | None:
    """Build our node from one of BrainCog's, sharing its parameters; None where no twin behaves the same."""
    kinds = {braincog_node.LIFNode: LIFNode, braincog_node.PLIFNode: PLIFNode, braincog_node.IFNode: IFNode}
    cls = kinds.get(type(node))
    if cls is None or node.groups != 1 or node.v_reset != 0.0 or node.dt != 1.0:
        return None
    if not isinstance(node.act_fun, braincog_surrogate.SurrogateFunctionBase):
        return None
    twin = cls(
        act_fun=type(node.act_fun),
        mem_detach=node.mem_detach,
        step=node.step,
        layer_by_layer=node.layer_by_layer,
        requires_fp=node.requires_fp,
        requires_mem=node.requires_mem,
        # BrainCog's LIFNode compares with the bare parameter, whatever `sigmoid_thres` says.
        sigmoid_thres=node.sigmoid_thres and cls is not LIFNode,
    )
    twin.threshold, twin.act_fun = node.threshold, node.act_fun
    twin.strict = type(node.act_fun).__name__ in _STRICT
    if cls is LIFNode:
        twin.tau = float(node.tau)
    if cls is PLIFNode:
        twin.w = node.w
    return twin.train(node.training)


def accelerate(model: nn.Module) -> nn.Module:
    """Swap the LIF, PLIF and IF nodes of a BrainCog network for the ones here, in place, with identical outputs.

    Parameters are shared, so an optimizer built before and the state dict's keys stay valid. A node that no node here
    reproduces exactly (another class, grouped steps, a resting potential, a surrogate that is no 0/1 spike) stays and
    is named in the log. One thing differs in layer-by-layer mode: a call starts from the resting potential, as after
    BrainCog's `reset()`, which its networks call at the start of each forward.

    Returns:
        `model`, with its nodes swapped.
    """
    kept = []
    for name, module in list(model.named_modules()):
        for child_name, child in list(module.named_children()):
            if not isinstance(child, BaseNode) or isinstance(child, FusableNode):
                continue
            twin = _twin(child)
            if twin is None:
                kept.append(f"{name}.{child_name}".lstrip("."))
            else:
                setattr(module, child_name, twin)
    if kept:
        _logger.info("accelerate: left %d nodes as they are: %s", len(kept), ", ".join(kept))
    return model
