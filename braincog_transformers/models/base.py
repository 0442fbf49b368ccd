"""What every spiking transformer here has in common: time, timm's calls and BrainCog's.

A network reads like an ordinary vision transformer, because time is folded into the batch: `(T*B, C, H, W)` and
`(T*B, N, C)`, T outermost. A subclass builds `patch_embed`, `blocks` (or, for a pyramid, `stages`; a `nn.Sequential`)
and `head`, and defines nothing else if it can. Flat networks fill in `flat.FlatTransformer`.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from numbers import Integral
from typing import Any, ClassVar, Literal

import torch
from braincog.base.node.node import BaseNode
from braincog.model_zoo.base_module import BaseModule
from timm.models import register_notrace_module
from torch import Tensor, nn
from torch.fx import Proxy

from ..errors import UserError
from ..layers.block import Block
from ..layers.checkpointing import checkpoint_module
from ..layers.conv import ConvBN
from ..layers.drop import StepDropPath
from ..layers.encoder import Encoder
from ..layers.linear import LinearBN
from ..layers.spike_input import SpikeInput
from ..runtime.packing import packed_spikes
from ..runtime.watching import transformed
from .arguments import check_arguments, hints_of
from .neurons import NodeOptions
from .official import OfficialNames
from .timm_calls import TimmCalls, sides

__all__ = ["SpikingTransformer", "init_linear"]

for leaf in (BaseNode, Block, ConvBN, Encoder, LinearBN):
    register_notrace_module(leaf)  # they look at shapes and modes, so torch.fx takes each of them whole


class SpikingTransformer(TimmCalls, BaseModule):
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
        **neuron: node_type, threshold, tau, act_fun, alpha, requires_thres_grad, sigmoid_thres, mem_detach, see
            `NodeOptions`; any other raises.

    Attributes:
        output_steps: return the logits of every step, `(T, B, K)`, instead of their mean.
        streaming: each call takes one step and keeps the neurons' state, see `set_streaming`.
        pack_spikes: keep spikes for the backward pass as bits, see `runtime.packing`.
    """

    units = "blocks"
    """Name of the sequence that features are taken from and layer-wise learning rates count."""
    official_names: OfficialNames | None = None
    """How official weights name what is here; a user's subclass inherits it."""
    neuron_defaults: ClassVar[dict[str, Any]] = {}
    """What the paper's neurons have that `NodeOptions` has not by default."""
    head_bias = True
    """Whether the classifier has a bias."""
    mixes_time = ""
    """Why the network can't run one step at a time; empty if it can."""
    joins_steps = ""
    """Why T can't change after construction and no step has logits of its own; empty if it can and has."""

    def __new__(cls, *_: Any, **arguments: Any):
        """Check the arguments of a subclass before its constructor uses them."""
        check_arguments(cls.__name__, hints_of(NodeOptions) | hints_of(cls), arguments)
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
        self.img_size = sides(type(self).__name__, img_size)
        self.in_chans = in_chans
        self.num_classes = num_classes
        self._set_pooling(global_pool, num_classes)
        self.feature_steps = feature_steps
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.grad_checkpointing = False
        self.output_steps = False
        self.streaming = False
        self.pack_spikes = True
        self.neurons = NodeOptions(**{**self.neuron_defaults, **neuron})
        self.head_node = nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)

    # For subclasses

    def _neuron(self, threshold_ratio: float = 1.0) -> Callable[[], nn.Module]:
        """Return a constructor of the network's neurons, their threshold a multiple of the network's."""
        return self.neurons.constructor(self.step, threshold_ratio)

    def _drop_paths(self, rate: float, depth: int) -> list[StepDropPath]:
        """Return one stochastic depth for each of `depth` blocks; the rate grows linearly from 0."""
        return [StepDropPath(rate * i / max(depth - 1, 1), self.step) for i in range(depth)]

    def _units_info(self, widths: Iterable[int], reductions: Iterable[int]) -> list[dict[str, Any]]:
        """Return timm's `feature_info`: width, and size of the input over its own, of each block or stage."""
        return [
            {"num_chs": width, "reduction": reduction, "module": f"{self.units}.{i}"}
            for i, (width, reduction) in enumerate(zip(widths, reductions, strict=True))
        ]

    def _require_heads(self, dim: int, num_heads: int) -> None:
        """Raise `UserError` unless the heads divide the width."""
        if dim % num_heads:
            fitting = sorted((h for h in range(1, 33) if dim % h == 0), key=lambda h: abs(h - num_heads))[:2]
            raise UserError(
                f"{type(self).__name__}: embed_dim must be a multiple of num_heads; got embed_dim={dim}, "
                f"num_heads={num_heads} (try {' or '.join(map(str, sorted(fitting)))})"
            )

    def _require_width(self, multiple: int) -> None:
        """Raise `UserError` unless the width is a multiple of `multiple`."""
        if self.embed_dim % multiple:
            raise UserError(f"{type(self).__name__}: embed_dim must be a multiple of {multiple}; got {self.embed_dim}")

    def _require_steps(self, step: int) -> None:
        """Raise `UserError` unless T is a whole number from 1 on."""
        if not isinstance(step, Integral) or step < 1:
            raise UserError(
                f"{type(self).__name__}: step, the number of time steps T, must be at least 1; got {step!r}"
            )

    def _layout(self) -> tuple[int, int] | None:
        """Return height and width of the map of tokens, None in a pyramid; raise `UserError` for an input that does not
        fit."""
        return None

    def _require_sides(self, multiple: int) -> None:
        """Raise `UserError` unless height and width are multiples of `multiple`."""
        if any(side % multiple or side < multiple for side in self.img_size):
            near = max(multiple, round(self.img_size[0] / multiple) * multiple)
            raise UserError(
                f"{type(self).__name__}: img_size must be a multiple of {multiple}; got {self.img_size} (try {near})"
            )

    # BrainCog's interface

    def set_attr(self, attr: str, val: Any) -> None:
        """Set an attribute of neurons, layers and the network itself, `step` and `layer_by_layer` above all.

        Raises:
            UserError: if nothing has it. BrainCog's own goes on in silence.
        """
        if attr == "step":
            self._require_steps(val)
        if attr == "step" and self.joins_steps and val != self.step:
            raise UserError(
                f"{type(self).__name__}: step stays {self.step}, as built, because {self.joins_steps}; got {val} "
                f"(build the network with step={val})"
            )
        settable = BaseNode | StepDropPath | SpikeInput
        own = (m for m in self.modules() if m is self or isinstance(m, settable))
        having = [module for module in own if hasattr(module, attr)]
        if not having:
            raise UserError(f"{type(self).__name__}: neither the network nor its neurons have an attribute {attr!r}")
        for module in having:
            setattr(module, attr, val)
        if attr == "step":
            self.encoder.step = val
        if attr == "layer_by_layer":
            self.reset()

    @property
    def nodes(self) -> dict[str, BaseNode]:
        """The neurons by name, in the order in which they were built."""
        return {name: module for name, module in self.named_modules() if isinstance(module, BaseNode)}

    # What a call consists of

    def _new_head(self, num_classes: int) -> nn.Module:
        """Build a classifier with the official initialisation."""
        if num_classes == 0:
            return nn.Identity()
        head = nn.Linear(self.num_features, num_classes, bias=self.head_bias)
        self._init_head(head)
        reference = next(self.parameters(), None)
        return head if reference is None else head.to(reference.device, reference.dtype)

    def _init_head(self, head: nn.Linear) -> None:
        """Initialise a new classifier."""
        init_linear(head)

    def _frames(self, x: Tensor) -> Tensor:
        """Return the input as the stem takes it; raise `ValueError` if it does not fit."""
        expected = (self.in_chans, *self.img_size)
        return checked_frames(x, type(self).__name__, expected, self.step, self.streaming, bool(self.joins_steps))

    def _embed(self, x: Tensor) -> Tensor:
        """Encode and embed: `(T*B, N, C)` or `(T*B, C, H', W')`. What all steps share is computed once."""
        # one graph of torch.fx holds for images and events, so in it nothing is known of what the steps share
        copied = not isinstance(x, Proxy) and x.dim() == 4 and self.encoder.encode_type == "direct"
        # convolutions are faster, and maps turn into tokens without a copy, where channels are last in memory
        x = x if copied else self.encoder(x)
        x = x if transformed() else x.contiguous(memory_format=torch.channels_last)
        return self.patch_embed(x, copies=self.step) if copied else self.patch_embed(x)

    def _forward_unit(self, unit: nn.Module, x: Tensor) -> Tensor:
        return checkpoint_module(unit, x) if self.grad_checkpointing and torch.is_grad_enabled() else unit(x)

    def _forward_units(self, x: Tensor) -> Tensor:
        for unit in getattr(self, self.units):
            x = self._forward_unit(unit, x)
        return x

    def _packing(self) -> AbstractContextManager:
        """Return the context in which spikes are kept as bits for a backward pass, if one follows."""
        packs = self.pack_spikes and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return packed_spikes() if packs else nullcontext()

    def _step_by_step(self, x: Tensor) -> Tensor:
        """Feed one step at a time, neurons keeping their state: as a chip would."""
        if isinstance(x, Proxy):
            raise UserError(
                f"{type(self).__name__}: torch.fx can't trace a network that keeps state from step to step; call "
                "set_streaming(False) and set_attr('layer_by_layer', True) first."
            )
        if self.grad_checkpointing and torch.is_grad_enabled():
            raise UserError(
                f"{type(self).__name__}: gradient checkpointing runs a block twice, which neurons that keep state "
                "between steps can't bear; leave out one of --grad-checkpointing and --no-layer-by-layer "
                "(set_grad_checkpointing, set_attr('layer_by_layer', ...))."
            )
        if self.streaming:
            return self._forward_units(self.patch_embed(x))
        self.reset()
        frames = self.encoder(x).chunk(self.step)
        return torch.cat([self._forward_units(self.patch_embed(frame)) for frame in frames])

    def set_streaming(self, enable: bool = True) -> None:
        """Take one step a call, or all steps again.

        A streaming network maps one frame `(B, C, H, W)` to that step's logits `(B, K)` and keeps its neurons' state
        until `reset()`. The mean of T calls is the result of one call on T steps.

        Raises:
            UserError: if the network mixes time outside its neurons, with the reason.
        """
        if enable and self.mixes_time:
            raise UserError(f"{type(self).__name__} can't run one step at a time: {self.mixes_time}")
        self.set_attr("layer_by_layer", not enable)
        self.streaming = enable

    def forward_features(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` or `(B, T, C, H, W)` to tokens `(T*B, N, C)` or, in a pyramid, maps `(T*B, C, H', W')`."""
        x = self._frames(x)
        with self._packing():
            return self._forward_units(self._embed(x)) if self.layer_by_layer else self._step_by_step(x)

    def _pool(self, x: Tensor) -> Tensor:
        """Average over tokens or positions, if `global_pool` says so, and fire, if the head does: `(T, B, C)`, without
        pooling `(T, B, N, C)` or `(T, B, C, H', W')`."""
        if self.global_pool:
            tokens = self.has_tokens if isinstance(x, Proxy) else x.dim() == 3
            x = x.mean(dim=1 if tokens else (2, 3))
        steps = 1 if self.streaming else self.step
        frames = [x] if self.layer_by_layer else x.chunk(steps)
        return torch.cat([self.head_node(frame) for frame in frames]).unflatten(0, (steps, -1))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map features to logits `(B, K)`, or `(T, B, K)` with `output_steps`; with `pre_logits` to what the
        classifier reads.

        With `global_pool=""` every token has its own: `(B, N, K)`; in a pyramid, which then has no classifier, the maps
        leave: `(B, C, H', W')`.
        """
        x = self._pool(x)
        x = self.head_drop(x if self.output_steps else x.mean(dim=0))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` or `(B, T, C, H, W)` to logits `(B, K)`, or `(T, B, K)` with `output_steps`."""
        return self.forward_head(self.forward_features(x))

    # Inference

    def fuse(self) -> "SpikingTransformer":
        """Fold every batch normalisation into the layer in front of it, in place; a second call changes nothing.

        Raises:
            UserError: in training mode, where normalisation depends on the batch.
        """
        if self.training:
            raise UserError(f"{type(self).__name__}: fuse() is for inference; call eval() first.")
        for module in list(self.modules()):
            if module is not self and hasattr(module, "fuse"):
                module.fuse()
        return self


def init_linear(module: nn.Module) -> None:
    """Initialise a linear layer as the official code does: normal with deviation 0.02 cut at 2, zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-2.0, b=2.0)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.fx.wrap
def checked_frames(
    x: Tensor, owner: str, expected: tuple[int, int, int], step: int, streaming: bool, joins_steps: bool
) -> Tensor:
    """Return an input whose shape fits; raise `ValueError` for any other.

    Args:
        x: what was fed.
        owner: class of the network.
        expected: `(C, H, W)`.
        step: number of steps T.
        streaming: whether a call takes one step.
        joins_steps: whether T is fixed.
    """
    if x.dim() not in ((4,) if streaming else (4, 5)) or tuple(x.shape[-3:]) != expected:
        shapes = "one step, (B, C, H, W)," if streaming else "(B, C, H, W) or, for events, (B, T, C, H, W)"
        raise ValueError(
            f"{owner}: input must be {shapes} with (C, H, W)={expected}; got {tuple(x.shape)} (img_size= and in_chans= "
            "build it for other sizes)."
        )
    if not x.is_floating_point():
        raise ValueError(f"{owner}: input must be floating point, scaled as in training; got {x.dtype} (x.float()).")
    if x.dim() == 5 and x.shape[1] != step:
        way_out = f"step={x.shape[1]} builds" if joins_steps else f"set_attr('step', {x.shape[1]}) changes"
        raise ValueError(f"{owner}: the input has {x.shape[1]} steps, the network {step} ({way_out} it).")
    return x
