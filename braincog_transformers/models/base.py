"""What every spiking transformer here has in common: neurons, time, features, head.

A network reads like an ordinary vision transformer, because time is folded into the batch: `(T*B, C, H, W)` and
`(T*B, N, C)`, T outermost. A subclass builds `patch_embed`, `blocks` (or, for a pyramid, `stages`; a `nn.Sequential`)
and `head`, and defines nothing else if it can. Flat networks fill in `flat.FlatTransformer`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from braincog.model_zoo.base_module import BaseModule
from torch import Tensor, nn
from torch.fx import Proxy

from ..errors import UserError
from ..layers import Encoder, MakeNode, StepDropPath, checkpoint_module
from ..nodes import FusableNode, fires_levels, make_node, node_class
from ..ops.levels import Rounding
from ..runtime.packing import packed_spikes
from ..runtime.watching import transformed
from .arguments import ArgumentChecks, check_arguments, hints_of, sides
from .calls import BrainCogCalls, TimmCalls
from .official import OfficialNames

__all__ = ["Masking", "NodeOptions", "SpikingTransformer", "init_linear", "init_weights"]


# Options that not every neuron has: those of neurons that fire 0 or 1, of those that fire whole numbers, and of those
# whose step is `ops.neuron.advance`.
_SURROGATE = ("act_fun", "alpha", "strict")
_LEVELS = ("levels", "norm", "rounding")
_EQUATIONS = ("decay_input", "detach_reset")
_WHY_LACKING = {
    _SURROGATE: ("fires whole numbers, without a surrogate gradient", "leave it out"),
    _LEVELS: ("fires 0 or 1", "node_type=ILIFNode fires whole numbers"),
    _EQUATIONS: ("has equations of its own", "LIFNode, PLIFNode and IFNode have it"),
}


def _lacking(node_type: str | type) -> set[str]:
    """Return the options that a neuron does not have."""
    equations = () if issubclass(node_class(node_type), FusableNode) else _EQUATIONS
    return {*(_SURROGATE if fires_levels(node_type) else _LEVELS), *equations}


@dataclass(frozen=True)
class NodeOptions:
    """How a network's neurons are built; the defaults are those of the Spikformer family's papers.

    The steepness of the surrogate is not learnt. A neuron that fires whole numbers has no surrogate, so `act_fun`,
    `alpha` and `strict` say nothing about it.

    Args:
        node_type: BrainCog's node class or its name.
        threshold: firing threshold; neurons with a threshold of their own keep its ratio to the network's.
        tau: membrane time constant, in steps.
        act_fun: surrogate gradient, BrainCog's class or its name.
        alpha: steepness of the surrogate.
        requires_thres_grad: learn the thresholds.
        sigmoid_thres: the threshold is the sigmoid of the parameter.
        mem_detach: no gradient from one step to the one before.
        strict: fire above the threshold only, not at it, whatever the surrogate; BrainCog's own nodes fire as they do.
        decay_input: divide the input by tau too; like the next one, for LIFNode, PLIFNode and IFNode.
        detach_reset: no gradient through the spike in the reset.
        levels, norm, rounding: of neurons that fire whole numbers, see `ILIFNode`, whose defaults None leaves.
    """

    node_type: str | type = "LIFNode"
    threshold: float = 1.0
    tau: float = 2.0
    act_fun: str | type = "SigmoidGrad"
    alpha: float = 4.0
    requires_thres_grad: bool = False
    sigmoid_thres: bool = False
    mem_detach: bool = False
    strict: bool = False
    decay_input: bool = True
    detach_reset: bool = True
    levels: int | None = None
    norm: float | None = None
    rounding: Rounding | None = None

    def __post_init__(self):
        check_arguments("a network's neurons", hints_of(type(self)), vars(self))

    @classmethod
    def chosen(cls, given: dict[str, Any], paper: dict[str, Any]) -> "NodeOptions":
        """Return the options that somebody gave; the others are the paper's, as far as they hold for this neuron.

        Args:
            given: options by name.
            paper: where the paper's neurons differ from the defaults here. They are left if the paper's neuron fires
                whole numbers and the given one doesn't; else those are that the given one does not have.

        Raises:
            UserError: for an option that this kind of neuron does not have.
        """
        name = given.get("node_type", paper.get("node_type", cls.node_type))
        given, lacking = {option: value for option, value in given.items() if value is not None}, _lacking(name)
        if strange := sorted(given.keys() & lacking):
            kind = next(kind for kind in (_SURROGATE, _LEVELS, _EQUATIONS) if strange[0] in kind)
            reason, way_out = _WHY_LACKING[kind]
            shown = name if isinstance(name, str) else name.__name__
            raise UserError(f"a network's neurons: {shown} {reason}, so it has no {', '.join(strange)}; {way_out}")
        if fires_levels(paper.get("node_type", cls.node_type)) and not fires_levels(name):
            paper = {}
        return cls(**{**{option: value for option, value in paper.items() if option not in lacking}, **given})

    def constructor(self, step: int, threshold_ratio: float = 1.0, **levels: Any) -> MakeNode:
        """Return a function that builds one neuron.

        Args:
            step: number of steps T.
            threshold_ratio: this neuron's threshold over the network's.
            **levels: `levels`, `norm` or `rounding` of this neuron alone, if the network's neurons fire whole numbers.
        """
        options = {**vars(self), "threshold": self.threshold * threshold_ratio, "step": step, "layer_by_layer": True}
        left_out = _lacking(self.node_type)
        if fires_levels(self.node_type):
            options |= levels
            left_out |= {name for name in _LEVELS if options[name] is None}
        else:
            options["requires_alpha_grad"] = False
        return partial(make_node, **{name: value for name, value in options.items() if name not in left_out})


@dataclass(frozen=True)
class Masking:
    """How a network is pre-trained on masked pictures, see `masked.MaskedAutoencoder`.

    Args:
        parts: names of the modules that map a picture to its tokens, which may see visible patches only.
        arguments: of the constructor, where pre-training needs other ones.
        new: pattern of the parameters that only a classifier has, beside its last layer.
        has_code: whether official code pre-trains it, whose fault `as_released` can keep.
    """

    parts: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    new: str = "$^"
    has_code: bool = False


class SpikingTransformer(ArgumentChecks, TimmCalls, BrainCogCalls, BaseModule):
    """Base of the networks: encoding, features, head.

    Args:
        embed_dim: width C of what the head reads.
        img_size: height and width of the input, or one number for both, in pixels.
        in_chans: channels of the input (2 for events).
        num_classes: classes K; 0 for features only.
        drop_rate: dropout in front of the classifier.
        global_pool: "avg", or "" for features of every token or position, see `forward_head`.
        feature_steps: features of blocks by step instead of their mean over time, see `forward_intermediates`.
        step: number of time steps T.
        encode_type: how a static image becomes T inputs: "direct", "rate", "ttfs" or "phase", see
            `layers.encoder.Encoder`.
        **neuron: the fields of `NodeOptions`; any other name raises.

    Attributes:
        output_steps: return the logits of every step, `(T, B, K)`, instead of their mean.
        streaming: each call takes one step and keeps the neurons' state, see `set_streaming`.
        spiking_inference: products read binary planes instead of whole numbers, see `set_spiking_inference`.
        pack_spikes: keep spikes for the backward pass as bits, see `runtime.packing`.
    """

    units = "blocks"
    """Name of the sequence that features are taken from and layer-wise learning rates count."""
    status = ""
    """"reconstruction" for a network whose authors released no code: it has what its paper says, and choices of ours.
    Every list, log and report of the network prints it; a user's subclass inherits it."""
    official_names: OfficialNames | None = None
    """How official weights name what is here; a user's subclass inherits it."""
    neuron_defaults: ClassVar[dict[str, Any]] = {}
    """Where the paper's neurons differ from the defaults of `NodeOptions`."""
    head_bias = True
    """Whether the classifier has a bias."""
    multiple = 1
    """What height and width of the input must be multiples of."""
    mixes_time = ""
    """Why the network can't run one step at a time; empty if it can."""
    masking: ClassVar[Masking | None] = None
    """How it is pre-trained on masked pictures; None if it can't be."""
    joins_steps = ""
    """Why T can't change after construction; empty if it can."""
    sums_steps = ""
    """Why blocks and head read the sum over the stem's steps, as a single step, so that no step has logits of its own;
    empty if they run all T steps."""

    def __new__(cls, *_: Any, **arguments: Any):
        """Check the arguments of a subclass before its constructor uses them."""
        hints = hints_of(NodeOptions) | hints_of(cls)
        check_arguments(cls.__name__, hints, arguments)
        if "embed_dims" in hints and "embed_dim" in arguments:
            raise UserError(
                f"{cls.__name__}: embed_dim is the last of embed_dims; got embed_dim={arguments['embed_dim']} (give "
                "embed_dims)"
            )
        return super().__new__(cls)

    def __init__(
        self,
        *,
        embed_dim: int,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        global_pool: Literal["avg", ""] = "avg",
        feature_steps: bool = False,
        step: int = 4,
        encode_type: str = "direct",
        **neuron: Any,
    ):
        if unknown := neuron.keys() - {option.name for option in fields(NodeOptions)}:
            raise TypeError(f"{type(self).__name__} got an unexpected argument {', '.join(sorted(unknown))}")
        super().__init__(step=step, encode_type="direct", layer_by_layer=True)
        self.encoder = Encoder(step, encode_type)
        self.img_size, self.in_chans, self.num_classes = sides(type(self).__name__, img_size), in_chans, num_classes
        self._set_pooling(global_pool, num_classes)
        self.feature_steps = feature_steps
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.grad_checkpointing = self.output_steps = self.streaming = self.spiking_inference = False
        self.pack_spikes = True
        self.neurons = NodeOptions.chosen(neuron, self.neuron_defaults)
        self.head_node = nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)

    # For subclasses

    @property
    def unit_steps(self) -> int:
        """Number of steps that blocks and head run: T, or 1 if the network `sums_steps`."""
        return 1 if self.sums_steps else self.step

    def _neuron(self, threshold_ratio: float = 1.0, *, step: int | None = None, **levels: Any) -> MakeNode:
        """Return a constructor of the network's neurons, their threshold a multiple of the network's, for T steps or
        another number; see `NodeOptions.constructor`."""
        return self.neurons.constructor(self.step if step is None else step, threshold_ratio, **levels)

    def _attention_nodes(self) -> dict[str, MakeNode]:
        """Return constructors of the neurons in most attentions; the one behind the product has half the threshold."""
        return {"node": self._neuron(), "attn_node": self._neuron(0.5)}

    def _drop_paths(self, rate: float, depth: int) -> list[StepDropPath]:
        """Return one stochastic depth for each of `depth` blocks; the rate grows linearly from 0."""
        return [StepDropPath(rate * i / max(depth - 1, 1), self.unit_steps) for i in range(depth)]

    def _layout(self) -> tuple[int, int] | None:
        """Return height and width of the map of tokens, None in a pyramid; raise `UserError` for an input that does not
        fit."""
        self._require_sides(self.multiple)

    def _new_head(self, num_classes: int) -> nn.Module:
        """Build a classifier, initialised as in the official code."""
        if num_classes == 0:
            return nn.Identity()
        head = nn.Linear(self.num_features, num_classes, bias=self.head_bias)
        self._init_head(head)
        reference = next(self.parameters(), None)
        return head if reference is None else head.to(reference.device, reference.dtype)

    def _init_head(self, head: nn.Linear) -> None:
        """Initialise a new classifier."""
        init_linear(head)

    def extra_loss(self) -> Tensor | None:
        """Return what training adds to the loss of the logits, a scalar; None for nothing."""
        return None

    def figures(self) -> dict[str, float]:
        """Return what results say of the network beside loss and accuracy, by name."""
        return {}

    # What a call consists of

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` or `(B, T, C, H, W)` to logits `(B, K)`, or `(T, B, K)` with `output_steps`."""
        with self._planes():
            return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` or `(B, T, C, H, W)` to tokens `(T*B, N, C)` or, in a pyramid, maps `(T*B, C, H', W')`;
        of a network that `sums_steps`, without T."""
        x = self._frames(x)
        with self._planes(), self._packing():
            return self._forward_units(self._embed(x)) if self.layer_by_layer else self._step_by_step(x)

    def _embed(self, x: Tensor) -> Tensor:
        """Encode and embed: `(T*B, N, C)` or `(T*B, C, H', W')`. What all steps share is computed once, and the steps
        are summed if the network `sums_steps`."""
        # one graph of torch.fx holds for images and events, so in it nothing is known of what the steps share
        copied = not isinstance(x, Proxy) and x.dim() == 4 and self.encoder.encode_type == "direct"
        # convolutions are faster, and maps turn into tokens without a copy, where channels are last in memory
        x = x if copied else self.encoder(x)
        x = x if transformed() else x.contiguous(memory_format=torch.channels_last)
        x = self.patch_embed(x, copies=self.step) if copied else self.patch_embed(x)
        return x.unflatten(0, (self.step, -1)).sum(dim=0) if self.sums_steps else x

    def _forward_units(self, x: Tensor) -> Tensor:
        for unit in getattr(self, self.units):
            x = self._forward_unit(unit, x)
        return x

    def _forward_unit(self, unit: nn.Module, x: Tensor) -> Tensor:
        return checkpoint_module(unit, x) if self.grad_checkpointing and torch.is_grad_enabled() else unit(x)

    def _packing(self) -> AbstractContextManager:
        """Return the context in which spikes are kept as bits for a backward pass, if one follows."""
        packs = self.pack_spikes and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return packed_spikes() if packs else nullcontext()

    def _pool(self, x: Tensor) -> Tensor:
        """Average over tokens or positions, if `global_pool` says so, and fire, if the head does: `(T, B, C)`, without
        pooling `(T, B, N, C)` or `(T, B, C, H', W')`."""
        if self.global_pool:
            tokens = self.has_tokens if isinstance(x, Proxy) else x.dim() == 3
            x = x.mean(dim=1 if tokens else (2, 3))
        return self._fire(self.head_node, x)

    def _fire(self, node: nn.Module, x: Tensor) -> Tensor:
        """Return what a neuron of the head makes of `(T*B, ...)`, all steps at once or one by one: `(T, B, ...)`."""
        steps = 1 if self.streaming else self.unit_steps
        frames = [x] if self.layer_by_layer else x.chunk(steps)
        return torch.cat([node(frame) for frame in frames]).unflatten(0, (steps, -1))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map features to logits `(B, K)`, or `(T, B, K)` with `output_steps`; with `pre_logits` to what the
        classifier reads.

        With `global_pool=""` every token has its own: `(B, N, K)`; in a pyramid, which then has no classifier, the maps
        leave: `(B, C, H', W')`.

        Raises:
            UserError: with `output_steps`, if the network `sums_steps`.
        """
        if self.output_steps and self.sums_steps:
            raise UserError(
                f"{type(self).__name__} has no logits by step (output_steps, the TET loss): {self.sums_steps}"
            )
        with self._planes(x):
            x = self._pool(x)
            x = self.head_drop(x if self.output_steps else x.mean(dim=0))
            return x if pre_logits else self.head(x)


def init_linear(module: nn.Module) -> None:
    """Initialise a linear layer as the official code does: normal with deviation 0.02 cut at 2, zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-2.0, b=2.0)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_weights(module: nn.Module) -> None:
    """Initialise a linear layer as `init_linear` does, and the weight of a convolution alike."""
    init_linear(module)
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-2.0, b=2.0)
