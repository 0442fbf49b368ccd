"""What every spiking transformer here has in common: time, timm's calls and BrainCog's.

A network reads like an ordinary vision transformer, because time is folded into the batch: `(T*B, C, H, W)` and
`(T*B, N, C)`, T outermost. A subclass builds `patch_embed`, `blocks` (a `nn.Sequential`) and `head`, and defines
nothing else if it can.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from braincog.base.node.node import BaseNode
from braincog.model_zoo.base_module import BaseModule
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, resolve_pretrained_cfg
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from ..errors import UserError
from ..layers.checkpointing import checkpoint_module
from ..layers.drop import StepDropPath
from ..layers.encoder import Encoder
from ..nodes import make_node

__all__ = ["NodeOptions", "SpikingTransformer", "build", "cfg"]


@dataclass(frozen=True)
class NodeOptions:
    """How a network's neurons are built; the defaults are those of the Spikformer family's papers.

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
        if self.threshold <= 0:
            raise UserError(f"threshold must be above 0; got {self.threshold}")
        if self.alpha <= 0:
            raise UserError(f"alpha must be above 0; got {self.alpha}")

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
        )


class SpikingTransformer(BaseModule):
    """Base of the networks: encoding, features, head.

    Args:
        step: number of steps T.
        encode_type: how a static image becomes T inputs, see `layers.encoder.Encoder`.
        img_size: height and width of the input, or one number for both, in pixels.
        in_chans: channels of the input (2 for events).
        num_classes: classes K; 0 for features only.
        embed_dim: width C of the tokens that `blocks` yields.
        drop_rate: dropout in front of the classifier.

    Attributes:
        output_steps: return the logits of every step, `(T, B, K)`, instead of their mean.
    """

    def __init__(
        self,
        *,
        step: int,
        encode_type: str,
        img_size: int | tuple[int, int],
        in_chans: int,
        num_classes: int,
        embed_dim: int,
        drop_rate: float,
    ):
        if step < 1:
            raise UserError(f"{type(self).__name__}: step, the number of time steps T, must be at least 1; got {step}")
        super().__init__(step=step, encode_type="direct", layer_by_layer=True)
        self.encoder = Encoder(step, encode_type)
        self.img_size = to_2tuple(img_size)
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.grad_checkpointing = False
        self.output_steps = False
        self.head_drop = nn.Dropout(drop_rate)

    # BrainCog's interface

    def set_attr(self, attr: str, val: Any) -> None:
        """Set an attribute of the neurons and of the network itself, `step` and `layer_by_layer` above all.

        Raises:
            UserError: if nothing has it. BrainCog's own goes on in silence.
        """
        if attr == "step" and val < 1:
            raise UserError(f"{type(self).__name__}: step, the number of time steps T, must be at least 1; got {val}")
        own = (m for m in self.modules() if m is self or isinstance(m, BaseNode | StepDropPath))
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

    # timm's interface

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
        return {"stem": r"^patch_embed", "blocks": r"^blocks\.(\d+)"}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what is inside."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one for `num_classes` classes, or by none for 0.

        Args:
            num_classes: classes K.
            global_pool: "avg" is all there is.
        """
        if global_pool not in (None, "avg"):
            raise UserError(f"{type(self).__name__}: global_pool must be 'avg'; got {global_pool!r}")
        self.num_classes = num_classes
        self.head = self._new_head(num_classes)

    def _new_head(self, num_classes: int) -> nn.Module:
        """Build a classifier with the official initialisation."""
        if num_classes == 0:
            return nn.Identity()
        head = nn.Linear(self.embed_dim, num_classes)
        init_linear(head)
        reference = next(self.parameters(), None)
        return head if reference is None else head.to(reference.device, reference.dtype)

    def _check_input(self, x: Tensor) -> None:
        expected = (self.in_chans, *self.img_size)
        if x.dim() not in (4, 5) or tuple(x.shape[-3:]) != expected:
            raise ValueError(
                f"{type(self).__name__}: input must be (B, C, H, W) or, for events, (B, T, C, H, W) with "
                f"(C, H, W)={expected}; got {tuple(x.shape)} (img_size= and in_chans= build it for other sizes)."
            )
        if x.dim() == 5 and x.shape[1] != self.step:
            raise ValueError(
                f"{type(self).__name__}: the input has {x.shape[1]} steps, the network {self.step} "
                f"(set_attr('step', {x.shape[1]}) changes it)."
            )

    def _embed(self, x: Tensor) -> Tensor:
        """Encode and embed: tokens `(T*B, N, C)`. What all steps share is computed once."""
        if x.dim() == 4 and self.encoder.encode_type == "direct":
            return self.patch_embed(x, copies=self.step)
        return self.patch_embed(self.encoder(x))

    def _forward_blocks(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint_module(block, x) if self.grad_checkpointing and torch.is_grad_enabled() else block(x)
        return x

    def _step_by_step(self, x: Tensor) -> Tensor:
        """Feed one step at a time, neurons keeping their state: as a chip would."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            raise UserError(
                f"{type(self).__name__}: gradient checkpointing runs a block twice, which neurons that keep state "
                "between steps can't bear; leave out one of --grad-checkpointing and --no-layer-by-layer "
                "(set_grad_checkpointing, set_attr('layer_by_layer', ...))."
            )
        self.reset()
        frames = self.encoder(x).chunk(self.step)
        return torch.cat([self._forward_blocks(self.patch_embed(frame)) for frame in frames])

    def forward_features(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` or `(B, T, C, H, W)` to tokens `(T*B, N, C)`."""
        self._check_input(x)
        return self._forward_blocks(self._embed(x)) if self.layer_by_layer else self._step_by_step(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map tokens `(T*B, N, C)` to logits `(B, K)`, or `(T, B, K)` with `output_steps`; features C with
        `pre_logits`."""
        x = x.mean(dim=1).unflatten(0, (self.step, -1))
        x = self.head_drop(x if self.output_steps else x.mean(dim=0))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` or `(B, T, C, H, W)` to logits `(B, K)`, or `(T, B, K)` with `output_steps`."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return features and the outputs of chosen blocks.

        Args:
            x: `(B, C, H, W)` or `(B, T, C, H, W)`.
            indices: which blocks: the last n, a list of numbers, or all.
            norm: there is no final normalisation; accepted for timm's callers.
            stop_early: leave out the blocks after the last chosen one.
            output_fmt: "NCHW" for maps `(T*B, C, H', W')`, "NLC" for tokens `(T*B, N, C)`.
            intermediates_only: return only the list.

        Returns:
            Tokens `(T*B, N, C)` and the list, T outermost: `unflatten(0, (model.step, -1))` gives time back.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"{type(self).__name__}: output_fmt must be 'NCHW' or 'NLC'; got {output_fmt!r}")
        if not self.layer_by_layer:
            raise UserError(
                f"{type(self).__name__}: intermediates come from all steps at once; call "
                "set_attr('layer_by_layer', True) first."
            )
        take, last = feature_take_indices(len(self.blocks), indices)
        self._check_input(x)
        x = self._embed(x)
        intermediates = []
        for i, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            x = block(x)
            if i in take:
                maps = x.transpose(1, 2).unflatten(2, self.patch_embed.grid_size)
                intermediates.append(maps if output_fmt == "NCHW" else x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the blocks after the last chosen one, and the classifier; return the chosen numbers."""
        take, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_head:
            self.reset_classifier(0)
        return take


def init_linear(module: nn.Module) -> None:
    """Initialise a linear layer as the official code does: normal with deviation 0.02 cut at 2, zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-2.0, b=2.0)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def cfg(
    input_size: tuple[int, int, int], num_classes: int, paper_ids: str, published: str | None = None, **kwargs: Any
) -> dict[str, Any]:
    """Build a default configuration of timm's.

    Args:
        input_size: `(C, H, W)`.
        num_classes: classes K.
        paper_ids: the paper, as "arXiv:...".
        published: data set and the paper's best top-1 accuracy in percent, kept in `notes`.
        **kwargs: further fields of timm's `PretrainedCfg`.
    """
    return {
        "input_size": input_size,
        "num_classes": num_classes,
        "fixed_input_size": True,
        "crop_pct": 1.0,
        "first_conv": "patch_embed.stages.0.conv",
        "classifier": "head",
        "paper_ids": paper_ids,
        "notes": (published,) if published else None,
        **kwargs,
    }


def build(cls: type, variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """Build a registered variant through timm; a keyword that `cls` does not know raises."""
    weights = resolve_pretrained_cfg(variant, kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay"))
    if pretrained and not weights.has_weights:
        raise UserError(
            f"{variant}: no official weights were released, so there is nothing to download; train it, or load a "
            "file with checkpoints.load_checkpoint (--initial-checkpoint on the command line)."
        )
    return build_model_with_cfg(cls, variant, pretrained, feature_cfg={"feature_cls": "getter"}, **kwargs)
