"""What timm's and BrainCog's clients call on a network.

timm's: classifier, input size, features of blocks, groups of parameters. BrainCog's: attributes of neurons, modes.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NoReturn

import torch
from braincog.base.node.node import BaseNode
from timm.layers import to_2tuple
from timm.models import register_notrace_module
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.fx import Proxy

from ..errors import UserError
from ..layers import Block, ConvBN, Encoder, LinearBN, SpikeInput, StepDropPath
from ..nodes import ILIFNode
from ..ops import planes
from .arguments import check_arguments, sides

__all__ = ["BrainCogCalls", "TimmCalls"]

for leaf in (BaseNode, Block, ConvBN, Encoder, LinearBN):
    register_notrace_module(leaf)  # they depend on shapes and modes, so torch.fx does not trace into them


class TimmCalls:
    """Mixin of `SpikingTransformer`: timm's interface, apart from `forward_features` and `forward_head`."""

    @property
    def has_tokens(self) -> bool:
        """Whether features are tokens `(T*B, N, C)`; those of a pyramid are maps `(T*B, C, H', W')`."""
        return self.units == "blocks"

    # Parameters

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Name the parameters that must not decay: thresholds and leaks of neurons."""
        return {
            f"{name}.{parameter}" if name else parameter
            for name, node in self.nodes.items()
            for parameter, _ in node.named_parameters()
        }

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Describe the layers for layer-wise learning rates."""
        return {"stem": r"^patch_embed", "blocks": rf"^{self.units}\.(\d+)"}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block (of a pyramid, each stage) in the backward pass instead of keeping what is inside."""
        self.grad_checkpointing = enable

    # Classifier and pooling

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one for `num_classes` classes, or by none for 0.

        Args:
            num_classes: classes K.
            global_pool: "avg", "" for features of every token or position, None for what there is.

        Raises:
            UserError: for another pooling, or a classifier on the maps of a pyramid, which has none.
        """
        self._set_pooling(self.global_pool if global_pool is None else global_pool, num_classes)
        self.num_classes = num_classes
        self.head = self._new_head(num_classes)

    def _set_pooling(self, global_pool: str, num_classes: int) -> None:
        """Pool with "avg" or not with ""; raise `UserError` if no classifier can read the result."""
        name, hints = type(self).__name__, {"global_pool": Literal["avg", ""], "num_classes": int}
        check_arguments(name, hints, {"global_pool": global_pool, "num_classes": num_classes})
        if not global_pool and num_classes and not self.has_tokens:
            raise UserError(
                f"{name}: global_pool='' leaves maps, which its classifier can't read; got num_classes={num_classes} "
                "(num_classes=0 gives the maps)"
            )
        self.global_pool = global_pool

    # Size of the input

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        """Take inputs of another size from now on; the parameters stay. Few networks have any that belong to a
        position: those resize them, or refuse.

        Args:
            img_size: height and width, or one number for both, in pixels; None for no change.
            patch_size: as built, or None: convolutions make the patches.

        Raises:
            UserError: for sides that the patches don't fill, other patches, or a network that is built for a number of
                tokens.
        """
        own = getattr(self, "patch_size", None)
        if patch_size is not None and to_2tuple(patch_size) != to_2tuple(own):
            built = "the stem's convolutions make the patches" if own is None else f"patch_size stays {own}, as built"
            raise UserError(f"{type(self).__name__}: {built}; got patch_size={patch_size} (build another network)")
        if img_size is None or to_2tuple(img_size) == self.img_size:
            return
        before, self.img_size = self.img_size, sides(type(self).__name__, img_size)
        try:
            grid_size = self._layout()
        except UserError:
            self.img_size = before
            raise
        for module in self.modules():
            if hasattr(module, "grid_size"):
                module.grid_size = grid_size
        self.reset()

    # Features of blocks

    def _units_info(self, widths: Iterable[int], reductions: Iterable[int]) -> list[dict[str, Any]]:
        """Return timm's `feature_info`: width, and size of the input over its own, of each block or stage."""
        return [
            {"num_chs": width, "reduction": reduction, "module": f"{self.units}.{i}"}
            for i, (width, reduction) in enumerate(zip(widths, reductions, strict=True))
        ]

    def _take(self, indices: int | list[int] | None) -> tuple[list[int], int]:
        """Return the numbers of chosen blocks, and the last one."""
        count = len(getattr(self, self.units))
        try:
            return feature_take_indices(count, indices)
        except (AssertionError, ValueError):
            raise UserError(
                f"{type(self).__name__}: features come from {self.units} 0 to {count - 1}, or the last 1 to {count} of "
                f"them; got {indices}"
            ) from None

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return features and the outputs of chosen blocks (of a pyramid, stages).

        Args:
            x: `(B, C, H, W)` or `(B, T, C, H, W)`.
            indices: which blocks: the last n, a list of numbers, or all.
            norm: apply the network's final normalisation; most have none.
            stop_early: leave out the blocks after the last chosen one.
            output_fmt: "NCHW" for maps `(B, C, H', W')`, "NLC" for tokens `(B, N, C)`.
            intermediates_only: return only the list.

        Returns:
            Features as `forward_features` gives them, T*B in front, and the list of means over time. With
            `feature_steps` the list has T*B in front too: `unflatten(0, (model.unit_steps, -1))` gives time back.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"{type(self).__name__}: output_fmt must be 'NCHW' or 'NLC'; got {output_fmt!r}")
        if not self.layer_by_layer:
            raise UserError(
                f"{type(self).__name__}: intermediates come from all steps at once; call "
                "set_attr('layer_by_layer', True) first."
            )
        units = getattr(self, self.units)
        take, last = self._take(indices)
        x = self._frames(x)
        intermediates = []
        with self._planes(), self._packing():
            x = self._embed(x)
            for i, unit in enumerate(units[: last + 1] if stop_early else units):
                x = self._forward_unit(unit, x)
                if i in take:
                    feature = self.norm(x) if norm and hasattr(self, "norm") else x
                    intermediates.append(self._feature(feature, output_fmt))
        return intermediates if intermediates_only else (x, intermediates)

    def _feature(self, x: Tensor, output_fmt: str) -> Tensor:
        """Return a block's output as a client of timm's reads it."""
        if not self.feature_steps:
            x = x.unflatten(0, (self.unit_steps, -1)).mean(0)
        tokens = x.dim() == 3
        if output_fmt == "NLC":
            return x if tokens else x.flatten(2).transpose(1, 2)
        return x.transpose(1, 2).unflatten(2, self.patch_embed.grid_size) if tokens else x

    def prune_intermediate_layers(
        self, indices: int | list[int] | None = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the blocks after the last chosen one, and the classifier; return the chosen numbers.

        Args:
            indices: as in `forward_intermediates`; None, what `features_only` has by default, for all stages of a
                pyramid, or the last three blocks.
            prune_norm: whether the final normalisation goes; most networks have none.
            prune_head: whether the classifier goes.

        Raises:
            UserError: for blocks that are not there, or a classifier that stays and reads another width.
        """
        units = getattr(self, self.units)
        take, last = self._take(min(len(units), 3) if indices is None and self.has_tokens else indices)
        width = self.feature_info[last]["num_chs"]
        if not prune_head and self.num_classes and width != self.num_features:
            raise UserError(
                f"{type(self).__name__}: its classifier reads {self.num_features} channels, {self.units}.{last} gives "
                f"{width}; prune_head=True takes the classifier off"
            )
        setattr(self, self.units, units[: last + 1])
        self.num_features = self.head_hidden_size = width
        if prune_norm and hasattr(self, "norm"):
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return take

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse TorchScript, which can't compile BrainCog's neurons."""
        raise UserError(
            f"{type(self).__name__} can't be compiled by torch.jit.script, since BrainCog's neurons are not written in "
            "its part of Python; use torch.compile, torch.export, torch.jit.trace or braincog_transformers.export"
        )


class BrainCogCalls:
    """Mixin of `SpikingTransformer`: BrainCog's interface, streaming and fusion."""

    @property
    def nodes(self) -> dict[str, BaseNode]:
        """The neurons by name, in the order in which they were built."""
        return {name: module for name, module in self.named_modules() if isinstance(module, BaseNode)}

    def set_attr(self, attr: str, val: Any) -> None:
        """Set an attribute of neurons, layers and the network itself, `step` and `layer_by_layer` above all.

        What runs a single step whatever T is, as the blocks of a network that `sums_steps`, goes on doing so.

        Raises:
            UserError: if nothing has it (BrainCog's own is silent then), or for a number of steps T below 1, or another
                one where T can't change.
        """
        owner = type(self).__name__
        if attr == "step":
            check_arguments(owner, {"step": int}, {"step": val})
            if (reason := self.joins_steps) and val != self.step:
                raise UserError(
                    f"{owner}: step stays {self.step}, as built, because {reason}; got {val} "
                    f"(build the network with step={val})"
                )
        settable = BaseNode | StepDropPath | SpikeInput
        own = (m for m in self.modules() if m is self or isinstance(m, settable))
        having = [module for module in own if hasattr(module, attr)]
        if not having:
            raise UserError(f"{owner}: neither the network nor its neurons have an attribute {attr!r}")
        for module in having:
            setattr(module, attr, val)
        if attr == "step":
            self.encoder.step = val
            for module in {*having}.intersection(getattr(self, self.units).modules()):
                module.step = self.unit_steps
        if attr == "layer_by_layer":
            self.reset()

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

    def set_spiking_inference(self, enable: bool = True) -> None:
        """Compute every product of what integer neurons fire in binary planes, or in whole numbers again.

        A step in which neurons fire whole numbers up to D becomes D steps of 0 or 1, through whose sum the next neuron
        gets what it had got: outputs are the same, up to rounding. A product is computed once for each plane.

        Raises:
            UserError: if no neuron fires whole numbers, or in training mode.
        """
        owner, nodes = type(self).__name__, [node for node in self.nodes.values() if isinstance(node, ILIFNode)]
        if enable and not nodes:
            raise UserError(
                f"{owner}: its neurons fire no whole numbers, so there is nothing to unroll into spikes; build it with "
                "node_type='ILIFNode'"
            )
        if enable and self.training:
            raise UserError(f"{owner}: spiking inference is for a trained network; call eval() first")
        for node in nodes:
            node.spiking_inference = enable
        self.spiking_inference = enable

    def _planes(self, features: Tensor | None = None) -> AbstractContextManager:
        """Return the context in which products read binary planes, if they do.

        Args:
            features: what an earlier call returned, which may be whole numbers.
        """
        if not self.spiking_inference:
            return nullcontext()
        if self.training:
            raise UserError(f"{type(self).__name__}: spiking inference is for a trained network; call eval() first")
        if (mode := planes.active()) is not None and mode.unrolls:
            return nullcontext()
        mode = planes.Planes(unrolls=True)
        if features is not None:
            nodes = (node for node in self.nodes.values() if isinstance(node, ILIFNode))
            mode.note(features, {1 / node.divisor: node.levels for node in nodes})
        return mode

    def _step_by_step(self, x: Tensor) -> Tensor:
        """Run one step after the other, as a chip does; the neurons keep their state."""
        if isinstance(x, Proxy):
            raise UserError(
                f"{type(self).__name__}: torch.fx can't trace a network that keeps state from step to step; call "
                "set_streaming(False) and set_attr('layer_by_layer', True) first."
            )
        if self.grad_checkpointing and torch.is_grad_enabled():
            raise UserError(
                f"{type(self).__name__}: gradient checkpointing runs a block twice, which would change the state that "
                "neurons keep between steps; leave out one of --grad-checkpointing and --no-layer-by-layer "
                "(set_grad_checkpointing, set_attr('layer_by_layer', ...))."
            )
        if self.streaming:
            return self._forward_units(self.patch_embed(x))
        self.reset()
        frames = self.encoder(x).chunk(self.step)
        if self.sums_steps:
            return self._forward_units(sum(self.patch_embed(frame) for frame in frames))
        return torch.cat([self._forward_units(self.patch_embed(frame)) for frame in frames])

    def fuse(self) -> "BrainCogCalls":
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
