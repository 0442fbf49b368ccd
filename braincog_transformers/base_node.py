"""What the neurons of `nodes` share: BrainCog's interface over `ops.neuron`, in both of its modes.

With `layer_by_layer` a call takes all steps, `(T*B, ...)`, T outermost, starts from the resting potential and leaves
nothing behind: there is nothing to reset. Without it, BrainCog's default, a call takes one step, `(B, ...)`, and the
membrane stays in the node until `n_reset`. The two agree spike for spike.

`mem` and `spike` are those of the last step, as in BrainCog. After a call of all steps they are worked out again from
its input when they are read: in a forward hook, or as long as somebody holds that input; then they are None, unless
`requires_mem` kept the potentials.
"""

import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from braincog.base.node.node import BaseNode
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .act_funs import build_surrogate, fires_above, is_known, own_fire
from .errors import UserError, nearest
from .ops.dynamics import Dynamics, membrane_dtype
from .ops.neuron import multi_step, step

__all__ = ["FusableNode", "fill", "state_without_graph", "taking_turns"]

_TURN = threading.RLock()

# Keywords for the network around a node. BrainCog's networks and the scripts that build them hand all they were given
# to every node, and its nodes drop what they don't know.
# fmt: off
_FOR_THE_NETWORK = {
    "C", "TET_loss", "adaptive_node", "auxiliary", "back_connection", "cache_dir", "cell_type", "cnf", "conv_type",
    "dataset", "encode_type", "genotype", "glob", "groups", "inplanes", "layers", "motif", "n_encode_type",
    "n_preact", "node_type", "norm_layer", "num_classes", "once", "parse_method", "pretrained", "pretrained_cfg",
    "pretrained_cfg_overlay", "reconstruct", "sew_cnf", "skip_norm", "spike_output", "sum_output",
    "temporal_flatten", "tet_loss", "width_per_group",
}
# fmt: on
# Keywords of BrainCog's nodes that are taken at the one value at which they do nothing, with the reason.
_AT_REST = {
    "n_groups": (1, "steps in groups of channels are not computed here"),
    "dt": (1.0, "steps of another length are not computed here"),
    "v_reset": (
        0.0,
        "BrainCog's nodes begin there, and leak and reset to 0; set the attribute v_reset of a built node to let it "
        "begin, leak and reset there",
    ),
}


def fill(module: nn.Module, name: str, value: float) -> None:
    """Fill a parameter in place: device, type and whether it learns stay. A parametrisation is asked for its inverse.

    Raises:
        UserError: if it has none that gives the value.
    """
    with torch.no_grad():
        if not parametrize.is_parametrized(module, name):
            getattr(module, name).fill_(value)
            return
        try:
            setattr(module, name, torch.full_like(getattr(module, name), value))
        except (NotImplementedError, RuntimeError) as error:
            raise UserError(f"{type(module).__name__}: {name} can't be set to {value:g}: {error}") from error


def _check_keywords(owner: str, keywords: dict[str, Any]) -> None:
    """Raise for what neither a node nor a network of BrainCog's knows, and for what a node here can't do."""
    for name, value in keywords.items():
        if name in _AT_REST and value != _AT_REST[name][0]:
            rest, reason = _AT_REST[name]
            raise UserError(f"{owner}: {name} must be {rest}; got {value} ({reason})")
    strange = sorted(keywords.keys() - _FOR_THE_NETWORK - _AT_REST.keys())
    if strange:
        known = [*FusableNode.__init__.__kwdefaults__, "threshold", "act_fun", "tau"]
        close = nearest(strange[0], known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise TypeError(f"{owner} got an unexpected keyword argument {', '.join(strange)}{hint}")


def _is_scalar(value: Any) -> bool:
    return value is None or (isinstance(value, Tensor) and value.dim() == 0)


def _versions(*values: Any) -> list[int | None]:
    """Return how often each tensor was changed in place, None where PyTorch does not count."""
    return [v._version if isinstance(v, Tensor) and not v.is_inference() else None for v in values]


def _without_graph(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_graph(item) for item in value]
    return value.detach() if isinstance(value, Tensor) and not value.is_leaf else value


def state_without_graph(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module, tensors among them as values: a copy or a pickle takes no graph."""
    return {name: _without_graph(value) for name, value in module.__dict__.items()}


def taking_turns() -> AbstractContextManager:
    """Return what lets one thread at a time through, for a call that holds its state in a node while it runs.

    There is one for all networks: a module with a lock of its own could be neither copied nor pickled.
    """
    return nullcontext() if torch.compiler.is_compiling() else _TURN


class FusableNode(BaseNode):
    """What the three neurons share; a subclass names its charge and holds its leak.

    Left out, an argument has BrainCog's default. BrainCog's networks hand their own keywords to every node: those are
    taken and left, any other raises.

    Adds to a state dict: `threshold` and `act_fun.alpha`, as every BrainCog node does (`PLIFNode` also `w`).

    Args:
        threshold: firing threshold, dimensionless.
        act_fun: surrogate gradient, a BrainCog class or its name; see `ops.surrogate`.
        alpha: steepness of the surrogate.
        requires_alpha_grad: learn the steepness, for surrogates that give it a gradient (`AtanGrad`).
        strict: fire above the threshold only, not at it; None does as BrainCog's form of the surrogate. It counts
            for the surrogates of `ops.surrogate`; any other fires as it does.
        decay_input: divide the input by tau too (not for IF).
        soft_reset: subtract the threshold instead of going back to rest.
        detach_reset: no gradient through the spike in the reset.
        mem_detach: no gradient from one step to the one before.
        step: number of steps T in a call with `layer_by_layer`.
        layer_by_layer: all steps at once, without state; else one step a call.
        requires_thres_grad: learn the threshold.
        sigmoid_thres: the threshold is the sigmoid of the parameter (BrainCog's LIFNode takes this and drops it).
        requires_fp: keep the spikes of the last call in `feature_map`, a list of T tensors `(B, ...)`.
        requires_mem: keep the potentials after the reset in `mem_collect`, likewise.
        **braincog: BrainCog's `n_groups`, `dt` and `v_reset`, at 1, 1 and 0; keywords of the network around.

    Attributes:
        over_batch: the membrane runs through all T*B slices of the first axis, from one sample to the next, as in some
            released networks; to reproduce those and for nothing else.
        v_reset: resting potential, where every sequence begins.
    """

    charge: str
    over_batch = False
    _mem: Tensor | float | None = None
    _spike: Tensor | float = 0.0
    _call: tuple | None = None

    def __init__(
        self,
        threshold: float = 0.5,
        act_fun: str | type = "AtanGrad",
        *,
        alpha: float = 2.0,
        requires_alpha_grad: bool = False,
        strict: bool | None = None,
        decay_input: bool = True,
        soft_reset: bool = False,
        detach_reset: bool = True,
        mem_detach: bool = False,
        step: int = 8,
        layer_by_layer: bool = False,
        requires_thres_grad: bool = False,
        sigmoid_thres: bool = False,
        requires_fp: bool = False,
        requires_mem: bool = False,
        **braincog: Any,
    ):
        _check_keywords(type(self).__name__, braincog)
        super().__init__(
            threshold=float(threshold),
            step=step,
            requires_thres_grad=requires_thres_grad,
            sigmoid_thres=sigmoid_thres,
            requires_fp=requires_fp,
            layer_by_layer=layer_by_layer,
            mem_detach=mem_detach,
            requires_mem=requires_mem,
        )
        self.act_fun = build_surrogate(act_fun, alpha, requires_alpha_grad)
        self.decay_input = decay_input
        self.soft_reset = soft_reset
        self.detach_reset = detach_reset
        self.strict = fires_above(self.act_fun) if strict is None else strict
        self.n_reset()

    def leak(self) -> Tensor | None:
        """Return tau, k or nothing, as the charge wants it."""
        raise NotImplementedError

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(
            charge=self.charge,
            surrogate=type(self.act_fun).__name__ if is_known(self.act_fun) else repr(type(self.act_fun)),
            decay_input=self.decay_input,
            soft_reset=self.soft_reset,
            detach_reset=self.detach_reset,
            detach_mem=self.mem_detach,
            strict=self.strict,
            v_reset=float(self.v_reset),
        )

    @property
    def _own_fire(self) -> Callable[[Tensor], Tensor] | None:
        """The spike function of the surrogate module itself, where the form in `ops.surrogate` can't take its place."""
        return own_fire(self.act_fun, self.strict)

    @property
    def fusable(self) -> bool:
        """Whether the node does nothing but fire, so that a kernel may do it together with what is in front."""
        recorded = self.requires_fp or self.requires_mem
        plain = self._own_fire is None and _is_scalar(self.leak()) and _is_scalar(self.get_thres())
        return self.layer_by_layer and plain and not (self.over_batch or recorded)

    @property
    def mem(self) -> Tensor | None:
        """Membrane potential after the last step, `(B, ...)`; None at rest, and see the module's docstring."""
        if not self.layer_by_layer or self._call is None:
            return self._mem
        if self.requires_mem and self.mem_collect:
            return self.mem_collect[-1]
        return self._last_step()[1]

    @mem.setter
    def mem(self, value: Tensor | float | None) -> None:
        self._mem = value if isinstance(value, Tensor) or value else None

    @property
    def spike(self) -> Tensor | float | None:
        """Spikes of the last step, `(B, ...)`; 0 at rest, likewise."""
        return self._last_step()[0] if self.layer_by_layer and self._call else self._spike

    @spike.setter
    def spike(self, value: Tensor | float) -> None:
        self._spike = value

    def calc_spike(self):
        """Do not use: charge, fire and reset are one operation here (`ops.neuron.step`)."""
        raise NotImplementedError(f"{type(self).__name__}: call the node; it charges, fires and resets at once.")

    def n_reset(self) -> None:
        """Forget the membrane and what was recorded; needed only between sequences fed step by step."""
        self._mem = self._call = None
        self._spike = 0.0
        self.feature_map = []
        self.mem_collect = []

    def set_n_threshold(self, thresh: float) -> None:
        """Set the threshold, in place: device, type and whether it learns stay."""
        fill(self, "threshold", thresh)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return spikes in the shape of `inputs`: `(T*B, ...)`, or `(B, ...)` for a single step.

        Raises:
            ValueError: if T does not divide the first axis, or a single step's shape differs from the one before.
            UserError: if a class or a user wrote an `integral` or `calc_spike` of its own, which nothing here calls.
        """
        for name, written in (("integral", BaseNode.integral), ("calc_spike", FusableNode.calc_spike)):
            if getattr(type(self), name) is not written or name in self.__dict__:
                raise UserError(
                    f"{type(self).__name__}: its own {name} would not be called, since charge, fire and reset are one "
                    "operation here; write forward, or derive the class from BrainCog's node"
                )
        return self._all_steps(inputs) if self.layer_by_layer else self._one_step(inputs)

    def _all_steps(self, inputs: Tensor) -> Tensor:
        if self.step < 1 or inputs.shape[0] % self.step:
            raise ValueError(
                f"{type(self).__name__}: the first axis must be T*B with T={self.step} steps; got {inputs.shape[0]} "
                "(set_attr('step', T) on the network changes T)."
            )
        leak, threshold = self.leak(), self.get_thres()
        if torch.compiler.is_compiling():
            self._call = None
        else:
            self._remember(inputs, leak, threshold)
        steps = inputs.unflatten(0, (self.step, -1))
        scalars = _is_scalar(leak) and _is_scalar(threshold)
        spikes, potentials = multi_step(
            steps.flatten(0, 1) if self.over_batch else steps,
            leak,
            threshold,
            self.act_fun.alpha,
            self.dynamics,
            fire=self._own_fire,
            with_potentials=self.requires_mem,
            backend=None if scalars else "reference",
        )
        spikes = spikes.view(steps.shape)
        if self.requires_fp:
            self.feature_map = list(spikes.unbind(0))
        if self.requires_mem:
            self.mem_collect = list(potentials.view(steps.shape).unbind(0))
        return spikes.flatten(0, 1)

    def _remember(self, inputs: Tensor, leak: Tensor | None, threshold: Tensor) -> None:
        """Note what `_last_step` needs, without keeping the input alive."""
        graph = torch.is_grad_enabled()
        values = inputs, leak, threshold
        self._call = weakref.ref(inputs), _versions(*values), *values[1:], self.dynamics, self.step, graph

    def _last_step(self) -> tuple[Tensor | None, Tensor | None]:
        """Work out spikes and potentials of the last step of a call again, if its input lives and is what it was."""
        reference, versions, leak, threshold, dynamics, steps, graph = self._call
        inputs = reference()
        if inputs is None or versions != _versions(inputs, leak, threshold):
            return None, None
        with torch.set_grad_enabled(graph and torch.is_grad_enabled()):
            rows = inputs if self.over_batch else inputs.unflatten(0, (steps, -1))
            found = multi_step(
                rows, leak, threshold, self.act_fun.alpha, dynamics, fire=self._own_fire, with_potentials=True
            )
            return tuple(part.reshape(steps, -1, *inputs.shape[1:])[-1] for part in found)

    def _one_step(self, inputs: Tensor) -> Tensor:
        if self.over_batch and len(inputs) > 1:
            return self._one_step_over_batch(inputs)
        if not isinstance(self._mem, Tensor):
            start = self.v_reset if self._mem is None else self._mem
            self._mem = torch.full_like(inputs, start, dtype=membrane_dtype(inputs.dtype))
        if self._mem.shape != inputs.shape:
            raise ValueError(
                f"{type(self).__name__}: the membrane holds {tuple(self._mem.shape)} from the step before, the input "
                f"is {tuple(inputs.shape)}; call n_reset() (reset() on a network) between sequences."
            )
        self._spike, self._mem = step(
            inputs, self._mem, self.leak(), self.get_thres(), self.act_fun.alpha, self.dynamics, self._own_fire
        )
        if self.requires_fp:
            self.feature_map.append(self._spike)
        if self.requires_mem:
            self.mem_collect.append(self._mem)
        return self._spike

    def _one_step_over_batch(self, inputs: Tensor) -> Tensor:
        requires_fp, requires_mem = self.requires_fp, self.requires_mem
        self.requires_fp = self.requires_mem = False
        spikes, potentials = zip(*((self._one_step(row), self._mem) for row in inputs.split(1)), strict=True)
        self.requires_fp, self.requires_mem = requires_fp, requires_mem
        if requires_fp:
            self.feature_map.append(torch.cat(spikes))
        if requires_mem:
            self.mem_collect.append(torch.cat(potentials))
        return torch.cat(spikes)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle takes along: of state and records the values, not their graph."""
        return {**state_without_graph(self), "_call": None}

    def extra_repr(self) -> str:
        on_meta = self.threshold.device.type == "meta"
        shown = [f"step={self.step}" if on_meta else f"threshold={self.threshold.item():g}, step={self.step}"]
        shown += [name for name in ("soft_reset", "mem_detach", "requires_fp", "requires_mem") if getattr(self, name)]
        shown += ["over_batch"] * self.over_batch
        shown += [
            f"not {name}" for name in ("decay_input", "detach_reset", "layer_by_layer") if not getattr(self, name)
        ]
        return ", ".join(shown)
