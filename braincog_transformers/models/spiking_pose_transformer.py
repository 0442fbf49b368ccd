"""Spiking pose transformer: 3D human pose over time from events.

Zou, Mu, Ji, Wang, Zuo, Wang, Si, Cheng: Highly Efficient 3D Human Pose Tracking from Events with Spiking
Spatiotemporal Transformer. IEEE TCSVT, arXiv 2303.09681. Official code: JimmyZou/HumanPoseTracking_SNN at 766c4af, MIT.
New: a SEW-ResNet's places at all steps attend to each other, earlier or later; the similarity of query and key is the
share of channels in which their spikes agree, through a softmax, and the values are real numbers.

T event tensors give T+1 poses, at the borders of the T time slices: rotations of the 24 joints of the body model SMPL,
its ten numbers of shape, and the body's translation. Points in space need a body model (`body_model`).

Deviations of the official code from the paper, kept here:
- The scripts that trained the released weights have SEW-ResNet-34, the paper names SEW-ResNet-50; both are registered.
- The table of positions is divided by T, so that the same weights see other positions at another T.
- The translation is added to joints and vertices without a gradient: losses of points don't train it.
- The first and last pose rest on a single step, each other one on two.
Kept from the dependency: all steps have one dropout mask.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any, ClassVar, Literal

import torch
from braincog.base.node.node import BaseNode
from einops import rearrange
from torch import Tensor, nn

from ..errors import UserError
from ..layers import HammingProduct, LinearBNNode, MakeNode, SpikeInput, checkpoint_module, fire_after
from ..nodes import FusableNode, make_node, node_class
from ..runtime.batch import Batch
from ..runtime.packing import packed_spikes
from .arguments import check_arguments, hints_of, sides
from .base import NodeOptions
from .official import OfficialNames
from .registry import Paper, Variant, cfg
from .rotations import Camera, matrices_from_six, project
from .sew_resnet import Connection, SEWResNet, connect
from .task_networks import register_for

__all__ = ["SpikingPoseTransformer"]

JOINTS, SHAPES = 24, 10
"""Joints and numbers of shape of the body model SMPL."""


def position_table(grid_size: tuple[int, int], dim: int) -> Tensor:
    """Return sines and cosines of each place's row, then of its column, `(N, dim)`, float32.

    Args:
        grid_size: height and width of the map, each at least 2.
        dim: width, a multiple of 4.
    """
    exponents = torch.arange(dim // 2, dtype=torch.float32)
    periods = 10000 ** (2 * exponents / dim)
    parts = []
    for side in grid_size:
        turns = torch.arange(side, dtype=torch.float32) / (side - 1) * (2 * math.pi)
        angles = turns[:, None] / periods
        parts.append(torch.cat((angles[:, 0::2].sin(), angles[:, 1::2].cos()), 1))
    rows, columns = parts
    height, width = grid_size
    table = torch.cat((rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)), 2)
    return table.flatten(0, 1)


class StepDropout(nn.Dropout):
    """Dropout with one mask for all steps.

    Attributes:
        step: number of steps T.
    """

    step = 1

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, ...)` to the same shape; what stays is scaled by 1/(1 - p)."""
        if not self.training or not self.p:
            return x
        x = x.unflatten(0, (self.step, -1))
        return (x * super().forward(torch.ones_like(x[0]))).flatten(0, 1)


class PositionedProjection(SpikeInput):
    """Spikes of `node(bn(W x + P))`, where P is the table of positions."""

    def __init__(self, dim: int, hidden: int, *, node: MakeNode):
        super().__init__()
        self.linear = nn.Linear(dim, hidden, bias=False)
        self.bn = nn.BatchNorm1d(hidden)
        self.node = node()

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` and positions `(N, C')` to spikes `(T*B, N, C')`."""
        return fire_after(self.node, self.bn, self._multiply(self.linear, x) + positions)


class HammingAttention(SpikeInput):
    """Attention between the places of all steps by the similarity of spikes, see `HammingProduct`.

    Args:
        dim: width C of the tokens.
        hidden: width of queries, keys and values, a multiple of 4.
        num_heads: heads h; each is hidden/h wide.
        grid_size: height and width of the map of tokens.
        node: constructor of the neurons.

    Attributes:
        step: number of steps T.
    """

    step = 1

    def __init__(self, dim: int, hidden: int, num_heads: int, grid_size: tuple[int, int], *, node: MakeNode):
        super().__init__()
        self.num_heads = num_heads
        self.register_buffer("positions", position_table(grid_size, hidden), persistent=False)
        self.q, self.k = (PositionedProjection(dim, hidden, node=node) for _ in range(2))
        self.v = nn.Linear(dim, hidden)
        self.product = HammingProduct()
        self.bn = nn.BatchNorm1d(hidden)
        self.node = node()
        self.proj = LinearBNNode(hidden, dim, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to spikes of the same shape."""
        axes = {"t": self.step, "h": self.num_heads}
        positions = (self.positions.float() / self.step).to(x.dtype)  # in float32, as official weights have seen it
        qkv = self.q(x, positions), self.k(x, positions), self._multiply(self.v, x) + positions
        q, k, v = (rearrange(y, "(t b) n (h d) -> b h (t n) d", **axes) for y in qkv)
        y = rearrange(self.product(q, k, v), "b h (t n) d -> (t b) n (h d)", **axes)
        return self.proj(fire_after(self.node, self.bn, y))


class DropoutMLP(nn.Module):
    """Two `LinearBNNode`s without bias, dropout in front of each.

    Args:
        dim: width C of the tokens.
        hidden: width in between.
        drop: probability of dropout.
        node: constructor of the neurons.
    """

    def __init__(self, dim: int, hidden: int, drop: float, *, node: MakeNode):
        super().__init__()
        self.drop1, self.drop2 = StepDropout(drop), StepDropout(drop)
        self.fc1 = LinearBNNode(dim, hidden, bias=False, node=node)
        self.fc2 = LinearBNNode(hidden, dim, bias=False, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to spikes of the same shape."""
        return self.fc2(self.drop2(self.fc1(self.drop1(x))))


class SpatiotemporalLayer(nn.Module):
    """Attention and MLP, the spikes of each joined with what it reads.

    Args:
        dim, hidden, num_heads, grid_size, node: see `HammingAttention`; the MLP is as wide.
        drop: probability of dropout.
        cnf: how they are joined, see `sew_resnet.connect`.
    """

    def __init__(
        self, dim: int, hidden: int, num_heads: int, grid_size: tuple[int, int], drop: float, cnf: Connection, *,
        node: MakeNode,
    ):  # fmt: skip
        super().__init__()
        self.cnf = cnf
        self.attn = HammingAttention(dim, hidden, num_heads, grid_size, node=node)
        self.mlp = DropoutMLP(dim, hidden, drop, node=node)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for silent in (self.attn.proj, self.mlp.fc2):  # at first a layer passes on what comes in
            nn.init.zeros_(silent.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)`, sums of spikes, to the same shape."""
        x = connect(self.cnf, x, self.attn(x))
        return connect(self.cnf, x, self.mlp(x))


def between_steps(x: Tensor) -> Tensor:
    """Average neighbouring steps: T of them, `(T, ...)`, give T+1, of which the first and last are single ones."""
    return torch.cat((x[:1], (x[:-1] + x[1:]) / 2, x[-1:]))


class SpikingPoseTransformer(nn.Module):
    """SEW-ResNet, layers of spatiotemporal attention, mean over places and neighbouring steps, three linear regressors.

    Each call takes the number of steps T of its input.

    Args:
        backbone: the SEW-ResNet.
        widths: of its four stages.
        in_chans: channels of the event tensor of a step.
        n_layers: layers of attention; with 0 the backbone is pooled.
        d_hidden: width of attention and MLPs, a multiple of 4.
        n_head: heads, which divide it.
        drop: dropout in the MLPs.
        cnf: how residual branches are joined with what they read: "ADD", "AND" or "IAND".
        v_reset: where the potential of a neuron that fired begins again; None for a soft reset, which subtracts the
            threshold.
        img_size: height and width of the input, or one number for both, pixels; at least 64.
        camera: fx, fy, cx, cy, width, height of `rotations.Camera`, for a picture of that size, whatever the input's.
        body_model: maps rotations `(N, 24, 3, 3)` and shapes `(N, 10)` to a `Batch` of joints3d `(N, 24, 3)` and, if it
            has a surface, vertices `(N, V, 3)`, metres; see `set_body`.
        step: T until the first call.
        **neuron: the fields of `NodeOptions`.

    Attributes:
        step: T of the last call.
        pack_spikes: keep spikes for the backward pass as bits, see `runtime.packing`.

    Raises:
        UserError: for arguments that don't fit.
    """

    neuron_defaults: ClassVar = {
        **{"node_type": "PLIFNode", "act_fun": "AtanGrad", "alpha": 2.0, "detach_reset": False},
    }
    official_names = OfficialNames(
        rename=(
            (r"^backbone\.body\.layer(\d)\.", lambda match: f"backbone.stages.{int(match[1]) - 1}."),
            (r"^backbone\.body\.conv1\.", "backbone.stem.conv."),
            (r"^backbone\.body\.bn1\.", "backbone.stem.bn."),
            (r"^backbone\.body\.sn1\.", "backbone.stem.node."),
            (r"^(backbone\.stages\.\d\.\d+)\.conv(\d)\.", r"\1.conv\2.conv."),
            (r"^(backbone\.stages\.\d\.\d+)\.bn(\d)\.", r"\1.conv\2.bn."),
            (r"^(backbone\.stages\.\d\.\d+)\.sn(\d)\.", r"\1.conv\2.node."),
            (r"\.downsample\.0\.", ".shortcut.conv."),
            (r"\.downsample\.1\.", ".shortcut.bn."),
            (r"\.downsample_sn\.", ".shortcut.node."),
            (r"^tranformer_encoder\.encoder\.", "layers."),
            (r"\.attention\.linear_v\.", ".attn.v."),
            (r"\.attention\.bn_v\.", ".attn.bn."),
            (r"\.attention\.sn_v\.", ".attn.node."),
            (r"\.attention\.linear_(q|k)\.", r".attn.\1.linear."),
            (r"\.attention\.bn_(q|k)\.", r".attn.\1.bn."),
            (r"\.attention\.sn_(q|k)\.", r".attn.\1.node."),
            (r"\.attention\.linear_out\.", ".attn.proj.linear."),
            (r"\.attention\.bn_out\.", ".attn.proj.bn."),
            (r"\.attention\.sn_out\.", ".attn.proj.node."),
            (r"\.ffn\.linear(\d)\.", r".mlp.fc\1.linear."),
            (r"\.ffn\.bn(\d)\.", r".mlp.fc\1.bn."),
            (r"\.ffn\.sn(\d)\.", r".mlp.fc\1.node."),
            (r"^regressor\.", ""),
        ),
        dead=((r"^smpl\.", "part of the body model, whose size depends on batch and T; set_body takes your own file"),),
    )

    def __new__(cls, *_: Any, **arguments: Any):
        """Check the arguments' types before the constructor uses them."""
        check_arguments(cls.__name__, hints_of(NodeOptions) | hints_of(cls), arguments)
        return super().__new__(cls)

    def __init__(
        self,
        *,
        backbone: Literal["sew_resnet18", "sew_resnet34", "sew_resnet50"] = "sew_resnet34",
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        in_chans: int = 4,
        n_layers: int = 2,
        d_hidden: int = 1024,
        n_head: int = 1,
        drop: float = 0.1,
        cnf: Connection = "ADD",
        v_reset: float | None = None,
        img_size: int | tuple[int, int] = 256,
        camera: tuple[float, float, float, float, float, float] = Camera(),
        body_model: nn.Module | None = None,
        step: int = 8,
        **neuron: Any,
    ):
        if strange := neuron.keys() - {option.name for option in fields(NodeOptions)}:
            raise TypeError(f"{type(self).__name__} got an unexpected argument {', '.join(sorted(strange))}")
        super().__init__()
        _check(type(self).__name__, widths, n_layers, d_hidden, n_head, drop, camera)
        self.img_size, self.in_chans = sides(type(self).__name__, img_size), in_chans
        if min(self.img_size) < 64:
            raise UserError(
                f"{type(self).__name__}: img_size must be at least 64 a side, since positions need two rows and "
                f"columns of places, and each is 32 pixels; got {self.img_size}"
            )
        self.camera = Camera(*camera)
        self.neurons = NodeOptions.chosen(neuron, self.neuron_defaults)
        self.step, self.pack_spikes, self.grad_checkpointing = step, True, False
        self.v_reset = v_reset
        self.backbone = SEWResNet(backbone, tuple(widths), in_chans, cnf=cnf, node=self._node)
        dim, grid_size = self.backbone.out_chans, tuple(-(-side // 32) for side in self.img_size)
        self.layers = nn.ModuleList(
            SpatiotemporalLayer(dim, d_hidden, n_head, grid_size, drop, cnf, node=self._node) for _ in range(n_layers)
        )
        self.num_features = dim
        self.decpose, self.dectrans, self.decbeta = (nn.Linear(dim, size) for size in (6 * JOINTS, 3, SHAPES))
        self.set_body(body_model)
        self.set_steps(step)

    def _node(self) -> nn.Module:
        """Build a neuron."""
        node = self.neurons.constructor(self.step)
        if not issubclass(node_class(self.neurons.node_type), FusableNode):
            if self.v_reset is not None:
                raise UserError(
                    f"{type(self).__name__}: v_reset={self.v_reset} is for LIFNode, PLIFNode and IFNode; "
                    f"{self.neurons.node_type} resets as it does (leave it out)"
                )
            return node()
        built = make_node(**node.keywords, soft_reset=self.v_reset is None)
        built.v_reset = float(self.v_reset or 0)
        return built

    # What clients call

    def set_body(self, body_model: nn.Module | None) -> None:
        """Take a body model, whose points the output then has, or none. Its tensors are not part of the state dict, so
        that a checkpoint holds no licensed data."""
        self.body = body_model

    @torch.no_grad()
    def start_at(self, rotations: Tensor, trans: Tensor, beta: Tensor) -> None:
        """Set the regressors' biases, so that training starts near one pose.

        Args:
            rotations: of the joints, `(24, 3, 3)`, or means of such matrices.
            trans: `(3,)`, metres.
            beta: numbers of shape, `(10,)`.
        """
        self.decpose.bias.copy_(rotations[..., :2].mT.flatten())
        self.dectrans.bias.copy_(trans)
        self.decbeta.bias.copy_(beta)

    @property
    def nodes(self) -> dict[str, BaseNode]:
        """The neurons by name, in the order in which they were built."""
        return {name: module for name, module in self.named_modules() if isinstance(module, BaseNode)}

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Name the parameters that must not decay: leaks of neurons."""
        return {f"{name}.{inner}" for name, node in self.nodes.items() for inner, _ in node.named_parameters()}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Group the parameters for timm: those of the regressors first, then all others. So a layer decay of 0.01 gives
        the regressors a hundredth of the others' learning rate, as published."""
        return {"stem": r"^dec(?:pose|trans|beta)\.", "blocks": r"^(?:backbone|layers)\."}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block and layer in the backward pass instead of keeping what is inside."""
        self.grad_checkpointing = self.backbone.grad_checkpointing = enable

    def set_steps(self, step: int) -> None:
        """Take sequences of `step` steps; a call does this by itself."""
        for module in self.modules():
            if hasattr(module, "step"):
                module.step = step

    # What a call consists of

    def forward(self, x: Tensor) -> Batch:
        """Map event tensors `(B, T, C, H, W)` to T+1 poses.

        Returns:
            rotations `(B, T+1, 24, 3, 3)`, trans `(B, T+1, 3)` in metres, beta `(B, T+1, 10)`; with a body model
            joints3d `(B, T+1, 24, 3)` in metres, joints2d `(B, T+1, 24, 2)` as shares of the picture's width and
            height and, of a model with a surface, vertices `(B, T+1, V, 3)`, in the camera's coordinates.
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Map event tensors `(B, T, C, H, W)` to what the regressors read, `(B, T+1, C')`."""
        x = self._steps(x)
        with self._packing():
            x = self.backbone(x)
            x = x.flatten(2).transpose(1, 2)
            for layer in self.layers:
                checkpointed = self.grad_checkpointing and torch.is_grad_enabled()
                x = checkpoint_module(layer, x) if checkpointed else layer(x)
        return between_steps(x.mean(1).unflatten(0, (self.step, -1))).transpose(0, 1)

    def _steps(self, x: Tensor) -> Tensor:
        """Return the input as the stem takes it, `(T*B, C, H, W)`; raise `ValueError` if it does not fit."""
        expected = (self.in_chans, *self.img_size)
        if x.dim() != 5 or tuple(x.shape[-3:]) != expected or not x.shape[1]:
            raise ValueError(
                f"{type(self).__name__}: input must be (B, T, C, H, W) with (C, H, W)={expected} and T from 1 on; got "
                f"{tuple(x.shape)} (img_size= and in_chans= build it for other sizes)"
            )
        if x.shape[1] != self.step:
            self.set_steps(x.shape[1])
        x = x if x.is_floating_point() else x.to(self.dectrans.weight.dtype)
        return x.transpose(0, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)

    def _packing(self) -> AbstractContextManager:
        """Return the context in which spikes are kept as bits for a backward pass, if one follows."""
        packs = self.pack_spikes and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return packed_spikes() if packs else nullcontext()

    def forward_head(self, x: Tensor) -> Batch:
        """Map features `(B, T+1, C')` to poses, see `forward`."""
        numbers = self.decpose(x), self.dectrans(x), self.decbeta(x)
        with torch.autocast(x.device.type, enabled=False):  # millimetres of a body are below half precision
            pose, trans, beta = (y.to(torch.promote_types(y.dtype, torch.float32)) for y in numbers)
            rotations = matrices_from_six(pose.unflatten(-1, (JOINTS, 6)))
            points = {} if self.body is None else self._points(rotations, trans, beta)
        return Batch(rotations=rotations, trans=trans, beta=beta, **points)

    def _points(self, rotations: Tensor, trans: Tensor, beta: Tensor) -> dict[str, Tensor]:
        """Return the body's points in the camera's coordinates, by name."""
        body = self.body(rotations.flatten(0, 1), beta.flatten(0, 1))
        body = body.map(lambda points: points.unflatten(0, trans.shape[:2]) + trans.detach().unsqueeze(2))
        surface = {"vertices": body.vertices} if hasattr(body, "vertices") else {}
        return {"joints3d": body.joints3d, "joints2d": project(body.joints3d, self.camera), **surface}


def _check(
    owner: str, widths: Sequence[int], n_layers: int, d_hidden: int, n_head: int, drop: float, camera: Sequence[float]
) -> None:
    """Raise `UserError` for arguments out of range, or that don't go together."""
    if not 0 <= n_layers <= 1000:
        raise UserError(f"{owner}: n_layers must be 0 to 1000; got {n_layers}")
    if not 0 <= drop < 1:
        raise UserError(f"{owner}: drop must be at least 0 and below 1; got {drop}")
    if min(widths) < 1:
        raise UserError(f"{owner}: widths must be at least 1; got {tuple(widths)}")
    if min(d_hidden, n_head) < 1 or d_hidden % 4 or d_hidden % n_head:
        raise UserError(f"{owner}: d_hidden must be a multiple of 4 and of n_head; got {d_hidden}, n_head={n_head}")
    if min(camera) <= 0:
        raise UserError(f"{owner}: camera (fx, fy, cx, cy, width, height) must be above 0; got {tuple(camera)}")


_PAPER = Paper("Spiking pose transformer", "TCSVT 2025", "arXiv:2303.09681", "JimmyZou/HumanPoseTracking_SNN")


def _variant(backbone: str, side: int, published: str = "", **arguments: Any) -> Variant:
    # timm hands no number of classes below 0 to a constructor
    return Variant({"backbone": backbone, **arguments}, {"": cfg(_PAPER, (4, side, side), -1, published)})


register_for(
    "pose",
    SpikingPoseTransformer,
    _PAPER,
    {
        "spiking_pose_transformer_small": _variant(
            "sew_resnet18", 64, widths=(16, 32, 64, 64), n_layers=1, d_hidden=64, drop=0.0
        ),
        "spiking_pose_transformer_18": _variant("sew_resnet18", 256),
        "spiking_pose_transformer_34": _variant("sew_resnet34", 256),
        "spiking_pose_transformer_50": _variant("sew_resnet50", 256, "MMHPSD 44.1 mm PA-MPJPE (T=8, not verified)"),
    },
    first_conv="backbone.stem.conv",
)
