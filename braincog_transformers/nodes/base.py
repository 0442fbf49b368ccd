"""What the neurons of `nodes` share: BrainCog's interface in both of its modes, over one step in plain PyTorch.

With `layer_by_layer` a call takes all steps, `(T*B, ...)`, T outermost, starts from the resting potential and leaves
nothing behind: there is nothing to reset. Without it, BrainCog's default, a call takes one step, `(B, ...)`, and the
membrane stays in the node until `n_reset`. The two agree spike for spike.

`mem` and `spike` are those of the last step, as in BrainCog. After a call of all steps they are worked out again from
its input when they are read: in a forward hook, or as long as somebody holds that input; then they are None, unless
`requires_mem` kept the potentials.
"""

import threading
import weakref
from contextlib import AbstractContextManager, nullcontext
from inspect import getattr_static, signature
from typing import Any, ClassVar, NamedTuple

import torch
from braincog.base.node.node import BaseNode
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import UserError, nearest
from ..ops.kernels import fused_neuron, step_neuron
from ..ops.neuron import Fire, Neuron, membrane_dtype, move, run
from ..ops.surrogate import spike
from ..runtime.watching import followed
from .normalisation import normalised
from .surrogates import build_surrogate, fires_above, is_known, own_fire

__all__ = ["SpikingNode", "fill", "is_scalar", "state_without_graph", "taking_turns"]

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
    "tau",  # a neuron that has a time constant takes it itself
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


def _check_keywords(cls: type, keywords: dict[str, Any]) -> None:
    """Raise for what neither a node nor a network of BrainCog's knows, and for what a node here can't do."""
    owner = cls.__name__
    for name, value in keywords.items():
        if name in _AT_REST and value != _AT_REST[name][0]:
            rest, reason = _AT_REST[name]
            raise UserError(f"{owner}: {name} must be {rest}; got {value} ({reason})")
    strange = sorted(keywords.keys() - _FOR_THE_NETWORK - _AT_REST.keys())
    if strange:
        known = ["tau", *(name for base in cls.__mro__[:-1] for name in signature(base.__init__).parameters)]
        close = nearest(strange[0], known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise TypeError(f"{owner} got an unexpected keyword argument {', '.join(strange)}{hint}")


def is_scalar(value: Any) -> bool:
    """Tell whether a parameter is one number for all neurons, or none."""
    return not isinstance(value, Tensor) or value.dim() == 0


def _versions(*values: Any) -> list[int | None]:
    """Return how often each tensor was changed in place, None where PyTorch does not count."""
    return [v._version if isinstance(v, Tensor) and not v.is_inference() else None for v in values]


def _without_graph(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_graph(item) for item in value]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)._make(map(_without_graph, value))
    return value.detach() if isinstance(value, Tensor) and not value.is_leaf else value


def state_without_graph(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module, tensors among them as values: a copy or a pickle takes no graph."""
    return {name: _without_graph(value) for name, value in module.__dict__.items()}


def taking_turns() -> AbstractContextManager:
    """Return what lets one thread at a time through, for a call that holds its state in a node while it runs.

    There is one for all networks: a module with a lock of its own could be neither copied nor pickled.
    """
    return nullcontext() if torch.compiler.is_compiling() else _TURN


class SpikingNode(BaseNode):
    """A neuron. A subclass names its state and its parameters, and writes one step.

    Left out, an argument has BrainCog's default. BrainCog's networks hand their own keywords to every node: those are
    taken and left, any other raises.

    Adds to a state dict: `threshold` and `act_fun.alpha`, as every BrainCog node does.

    Args:
        threshold: firing threshold, dimensionless.
        act_fun: surrogate gradient, a BrainCog class or its name; see `ops.surrogate`.
        alpha: steepness of the surrogate.
        requires_alpha_grad: learn the steepness, for surrogates that give it a gradient (`AtanGrad`).
        strict: fire above the threshold only, not at it; None does as BrainCog's form of the surrogate. It counts
            for the surrogates of `ops.surrogate`; any other fires as it does.
        mem_detach: no gradient from one step to the one before.
        step: number of steps T in a call with `layer_by_layer`.
        layer_by_layer: all steps at once, without state; else one step a call.
        requires_thres_grad: learn the threshold.
        sigmoid_thres: the threshold is the sigmoid of the parameter (BrainCog's LIFNode takes this and drops it).
        requires_fp: keep the spikes of the last call in `feature_map`, a list of T tensors `(B, ...)`.
        requires_mem: keep the potentials after the reset in `mem_collect`, likewise.
        **braincog: BrainCog's `n_groups`, `dt` and `v_reset`, at 1, 1 and 0; keywords of the network around.

    Attributes:
        State: NamedTuple of what a neuron remembers, the membrane potential first; the defaults of its fields are the
            numbers with which every sequence begins.
        Parameters: NamedTuple of what `advance` reads. Each field is an attribute of the node of that name, `threshold`
            what BrainCog's `get_thres` gives. A float or a tensor reaches `advance` as a tensor, the rest as it is.
        binary: whether what `advance` returns is 0 or 1. Only then may kernels keep it as bits; a neuron that puts out
            other numbers says False.
    """

    State: ClassVar[type[NamedTuple]]
    Parameters: ClassVar[type[NamedTuple]]
    binary: ClassVar[bool] = True
    _state: Any = None
    _spike: Tensor | float = 0.0
    _call: tuple | None = None

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if not isinstance(getattr_static(cls, "advance"), staticmethod):
            raise TypeError(f"{cls.__name__}.advance must be a @staticmethod: it reads nothing but its arguments")

    def __init__(
        self,
        threshold: float = 0.5,
        act_fun: str | type = "AtanGrad",
        *,
        alpha: float = 2.0,
        requires_alpha_grad: bool = False,
        strict: bool | None = None,
        mem_detach: bool = False,
        step: int = 8,
        layer_by_layer: bool = False,
        requires_thres_grad: bool = False,
        sigmoid_thres: bool = False,
        requires_fp: bool = False,
        requires_mem: bool = False,
        **braincog: Any,
    ):
        _check_keywords(type(self), braincog)
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
        self.strict = fires_above(self.act_fun) if strict is None else strict
        self.n_reset()

    # What a neuron is; for subclasses

    @staticmethod
    def advance(x: Tensor, state: NamedTuple, parameters: NamedTuple, fire: Fire) -> tuple[Tensor, NamedTuple]:
        """Charge, fire and reset: take one step, element by element, without changing a tensor in place.

        Args:
            x: input current, any shape.
            state: what the step before left, a `State` of tensors like `x`.
            parameters: a `Parameters`.
            fire: maps the potential minus the threshold to spikes, with the surrogate's gradient.

        Returns:
            Spikes, and the new `State`.
        """
        raise NotImplementedError

    def rest(self) -> NamedTuple:
        """Return the state with which every sequence begins, in numbers."""
        if self.v_reset:
            raise UserError(f"{type(self).__name__}: v_reset must be 0; this neuron has no other resting potential")
        return self.State()

    def after(self, bn: nn.Module, x: Tensor, copies: int = 1) -> Tensor:
        """Return the spikes behind a normalisation, `self(bn(x))`.

        Args:
            bn: the normalisation, or `nn.Identity`.
            x: maps `(T*B, C, H, W)` or tokens `(T*B, N, C)`; with `copies=T`, one step that stands for T equal ones.
        """
        return self(normalised(bn, x, copies))

    def _read(self, dtype: torch.dtype) -> NamedTuple:
        """Return the parameters, numbers as scalar tensors in `dtype`."""
        found = []
        for name in self.Parameters._fields:
            value = self.get_thres() if name == "threshold" else getattr(self, name)
            found.append(torch.as_tensor(value, dtype=dtype) if isinstance(value, float | Tensor) else value)
        return self.Parameters(*found)

    def _run(self, x: Tensor, parameters: NamedTuple, with_potentials: bool) -> tuple[Tensor, Tensor | None]:
        """Map all steps `(T, ...)` to spikes, and potentials after the reset where they are asked for."""
        fused = self._own_fire is None and not with_potentials and all(map(is_scalar, parameters))
        if fused and fused_neuron.takes(x):
            how = type(self.act_fun).__name__, self.strict, self.binary
            return step_neuron.spikes(x, parameters, self.act_fun.alpha, self._neuron(), *how), None
        spikes, potentials = run(self._neuron(), x, parameters, self._fire)
        return spikes, potentials if with_potentials else None

    def over_threshold(self, inputs: Tensor) -> Tensor | None:
        """Return by how much the charged potentials are above the threshold, `(T, ...)`, for input `(T*B, ...)`.

        They are what the step hands to `fire`; None if it never calls that.
        """
        return self._over(inputs.unflatten(0, (self.step, -1)))

    def _over(self, x: Tensor) -> Tensor | None:
        found = []

        def fire(over: Tensor) -> Tensor:
            found.append(over)
            return self._fire(over)

        run(self._neuron(), x, self._read(membrane_dtype(x.dtype)), fire)
        return torch.stack(found) if found else None

    def _neuron(self) -> Neuron:
        return Neuron(self.advance, self.rest(), self.mem_detach)

    def _fire(self, over: Tensor) -> Tensor:
        own, name = self._own_fire, type(self.act_fun).__name__
        if own is None or (is_known(self.act_fun) and followed()):  # few functions can be transformed
            return spike(over, self.act_fun.alpha, name, self.strict)
        return own(over)

    @property
    def _own_fire(self) -> Fire | None:
        """The spike function of the surrogate module itself, where the form in `ops.surrogate` can't take its place."""
        return own_fire(self.act_fun, self.strict)

    # BrainCog's interface

    @property
    def mem(self) -> Tensor | None:
        """Membrane potential after the last step, `(B, ...)`; None at rest, and see the module's docstring."""
        if not self.layer_by_layer or self._call is None:
            return self._state and self._state[0]
        if self.requires_mem and self.mem_collect:
            return self.mem_collect[-1]
        return self._last_step()[1]

    @mem.setter
    def mem(self, value: Tensor | float | None) -> None:
        if isinstance(value, Tensor) or value:
            state = self._state or self.rest()
            self._state = state._replace(**{state._fields[0]: value})
        else:
            self._state = None

    @property
    def spike(self) -> Tensor | float | None:
        """Spikes of the last step, `(B, ...)`; 0 at rest, likewise."""
        return self._last_step()[0] if self.layer_by_layer and self._call else self._spike

    @spike.setter
    def spike(self, value: Tensor | float) -> None:
        self._spike = value

    def calc_spike(self):
        """Do not use: charge, fire and reset are one operation here (`advance`)."""
        raise NotImplementedError(f"{type(self).__name__}: call the node; it charges, fires and resets at once.")

    def n_reset(self) -> None:
        """Forget the state and what was recorded; needed only between sequences fed step by step."""
        self._state = self._call = None
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
        for name, written in (("integral", BaseNode.integral), ("calc_spike", SpikingNode.calc_spike)):
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
        parameters = self._read(membrane_dtype(inputs.dtype))
        self._call = None
        if not torch.compiler.is_compiling():  # note what `_last_step` needs, without keeping the input alive
            values = inputs, *parameters
            graph = torch.is_grad_enabled()
            self._call = weakref.ref(inputs), _versions(*values), parameters, self.step, graph
        spikes, potentials = self._run(inputs.unflatten(0, (self.step, -1)), parameters, self.requires_mem)
        if self.requires_fp:
            self.feature_map = list(spikes.unbind(0))
        if self.requires_mem:
            self.mem_collect = list(potentials.unbind(0))
        return spikes.flatten(0, 1)

    def _last_step(self) -> tuple[Tensor | None, Tensor | None]:
        """Work out spikes and potentials of the last step of a call again, if its input lives and is what it was."""
        reference, versions, parameters, steps, graph = self._call
        inputs = reference()
        if inputs is None or versions != _versions(inputs, *parameters):
            return None, None
        with torch.set_grad_enabled(graph and torch.is_grad_enabled()):
            spikes, potentials = self._run(inputs.unflatten(0, (steps, -1)), parameters, True)
            return spikes[-1], potentials[-1]

    def _one_step(self, inputs: Tensor) -> Tensor:
        self._spike, potential = self._move(inputs)
        if self.requires_fp:
            self.feature_map.append(self._spike)
        if self.requires_mem:
            self.mem_collect.append(potential)
        return self._spike

    def _move(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Bring the state one step on; return spikes and membrane."""
        state = self._state or self.rest()
        if isinstance(state[0], Tensor) and state[0].shape != inputs.shape:
            raise ValueError(
                f"{type(self).__name__}: the membrane holds {tuple(state[0].shape)} from the step before, the input "
                f"is {tuple(inputs.shape)}; call n_reset() (reset() on a network) between sequences."
            )
        parameters = self._read(membrane_dtype(inputs.dtype))
        spikes, self._state = move(self._neuron(), inputs, state, parameters, self._fire)
        return spikes, self._state[0]

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle takes along: of state and records the values, not their graph."""
        return {**state_without_graph(self), "_call": None}

    def extra_repr(self) -> str:
        on_meta = self.threshold.device.type == "meta"
        shown = [f"step={self.step}" if on_meta else f"threshold={self.threshold.item():g}, step={self.step}"]
        flags = ("soft_reset", "mem_detach", "requires_fp", "requires_mem")
        shown += [name for name in flags if getattr(self, name, False)]
        flags = ("decay_input", "detach_reset", "layer_by_layer")
        return ", ".join(shown + [f"not {name}" for name in flags if not getattr(self, name, True)])
