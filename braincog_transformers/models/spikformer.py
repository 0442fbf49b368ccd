"""Spikformer and CML-Spikformer.

Zhou, Zhu, He, Wang, Yan, Tian, Yuan: Spikformer: When Spiking Neural Network Meets Transformer. ICLR 2023, arXiv
2209.15425. Official code: ZK-Zhou/spikformer at 6212689, MIT. New: spiking self-attention, the plain product of
binary Q, K and V with a neuron behind it instead of a softmax; a convolutional stem whose last convolution serves as
position embedding.

C. Zhou, Zhang, Z. Zhou, Yu, Ma, H. Zhou, Fan, Tian: Enhancing the Performance of Transformer-based Spiking Neural
Networks by SNN-optimized Downsampling with Precise Gradient Backpropagation. arXiv 2305.05954. Official code:
zhouchenlin2096/Spikingformer-CML at 8e51213, Apache-2.0. New: the stem's pooling moves in front of the neuron
(`pool="before"`).

Deviations of the official code from the papers, kept here:
- The attention scale is a constant: 0.125, for events 0.25 (the paper speaks of a learned one).
- q, k and v have a bias in the CIFAR networks only.
- Layer norms, drop path, position tables that the official classes declare and never use are left out.
  `drop_path_rate` works here.
- CML-Spikformer's code exists for CIFAR only; the ImageNet and event networks make the same exchange in Spikformer's.
"""

from collections.abc import Callable
from typing import Any, Literal

from einops import rearrange
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from ..errors import UserError
from ..layers.conv import ConvBNNode
from ..layers.drop import StepDropPath
from ..layers.linear import LinearBNNode, SpikingMLP
from ..ops.attention import spiking_attention
from .base import NodeOptions, SpikingTransformer, build, cfg, init_linear

__all__ = ["Spikformer"]


class SpikingSelfAttention(nn.Module):
    """Spiking self-attention: `proj(attn_node(scale * Q K^T V))` with binary Q, K, V. Equation 6 of the paper.

    Args:
        dim: width C of the tokens.
        num_heads: heads h; each is C/h wide.
        scale: constant factor of the product.
        qkv_bias: whether the projections to q, k and v have a bias.
        node: constructor of the neurons.
        attn_node: constructor of the neuron behind the product, which has a lower threshold.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        scale: float,
        qkv_bias: bool,
        node: Callable[[], nn.Module],
        attn_node: Callable[[], nn.Module],
    ):
        super().__init__()
        self.num_heads = num_heads
        self.scale = scale
        self.q = LinearBNNode(dim, dim, node=node, bias=qkv_bias)
        self.k = LinearBNNode(dim, dim, node=node, bias=qkv_bias)
        self.v = LinearBNNode(dim, dim, node=node, bias=qkv_bias)
        self.attn_node = attn_node()
        self.proj = LinearBNNode(dim, dim, node=node)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to spikes of the same shape."""
        q, k, v = (rearrange(p(x), "b n (h d) -> b h n d", h=self.num_heads) for p in (self.q, self.k, self.v))
        x = rearrange(spiking_attention(q, k, v, self.scale), "b h n d -> b n (h d)")
        return self.proj(self.attn_node(x))


class Block(nn.Module):
    """Encoder block: attention and MLP, each adding its spikes to the stream of whole numbers."""

    def __init__(self, attn: nn.Module, mlp: nn.Module, drop_path: nn.Module):
        super().__init__()
        self.attn = attn
        self.mlp = mlp
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)` to tokens of the same shape."""
        x = x + self.drop_path(self.attn(x))
        return x + self.drop_path(self.mlp(x))


class SpikingPatchSplitting(nn.Module):
    """Stem: four convolutions that widen to C and halve the side log2(patch_size) times, then a relative position
    convolution.

    Args:
        img_size: height and width, pixels; multiples of `patch_size`.
        patch_size: side of a token, pixels: 1, 2, 4, 8 or 16. The last log2(patch_size) convolutions are pooled.
        in_chans: channels of the input.
        embed_dim: width C, a multiple of 8.
        pool: pool "after" the neuron (Spikformer) or "before" it (CML).
        node: constructor of the neurons.
    """

    def __init__(
        self,
        img_size: tuple[int, int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        *,
        pool: Literal["before", "after"],
        node: Callable[[], nn.Module],
    ):
        super().__init__()
        pooled = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4}.get(patch_size)
        if pooled is None:
            raise UserError(f"Spikformer: patch_size must be 1, 2, 4, 8 or 16; got {patch_size}")
        if any(side % patch_size or side < patch_size for side in img_size):
            near = max(patch_size, round(img_size[0] / patch_size) * patch_size)
            raise UserError(
                f"Spikformer: img_size must be a multiple of patch_size {patch_size}; got {img_size} (try {near})"
            )
        if embed_dim % 8:
            raise UserError(f"Spikformer: embed_dim must be a multiple of 8; got {embed_dim}")
        self.grid_size = (img_size[0] // patch_size, img_size[1] // patch_size)
        widths = [in_chans, embed_dim // 8, embed_dim // 4, embed_dim // 2, embed_dim]
        self.stages = nn.ModuleList(
            ConvBNNode(widths[i], widths[i + 1], node=node, pool=pool if i >= 4 - pooled else None) for i in range(4)
        )
        self.rpe = ConvBNNode(embed_dim, embed_dim, node=node)

    def forward(self, x: Tensor, copies: int = 1) -> Tensor:
        """Map `(T*B, C_in, H, W)`, or `(B, C_in, H, W)` standing for `copies=T` steps, to tokens `(T*B, N, C)` in {0,
        1, 2}."""
        x = self.stages[0](x, copies)
        for stage in self.stages[1:]:
            x = stage(x)
        return (x + self.rpe(x)).flatten(2).transpose(1, 2)


class Spikformer(SpikingTransformer):
    """Spikformer: stem, L encoder blocks, mean over tokens and steps, one linear classifier. Figure 2 of the paper.

    Args:
        img_size: height and width, or one number, pixels; multiples of `patch_size`.
        patch_size: side of a token, pixels: 4 for CIFAR, 16 for ImageNet and events.
        in_chans: channels of the input.
        num_classes: classes K; 0 for features only.
        embed_dim: width C of the tokens.
        depth: number L of encoder blocks.
        num_heads: attention heads.
        mlp_ratio: width of the MLP over C.
        qkv_bias: whether q, k and v have a bias (CIFAR).
        attn_scale: constant factor of the attention product.
        pool: pooling in the stem "after" the neuron, or "before" it (CML).
        drop_rate: dropout in front of the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        step: number of time steps T.
        encode_type: how a static image becomes T inputs: "direct", "rate", "ttfs" or "phase".
        node_type, threshold, tau, act_fun, alpha, requires_thres_grad, sigmoid_thres, mem_detach: the neurons, see
            `NodeOptions`;
            the neuron behind the attention product has half the threshold.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 512,
        depth: int = 8,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        attn_scale: float = 0.125,
        pool: Literal["before", "after"] = "after",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        step: int = 4,
        encode_type: str = "direct",
        node_type: str | type = "LIFNode",
        threshold: float = 1.0,
        tau: float = 2.0,
        act_fun: str | type = "SigmoidGrad",
        alpha: float = 4.0,
        requires_thres_grad: bool = False,
        sigmoid_thres: bool = False,
        mem_detach: bool = False,
    ):
        super().__init__(
            step=step,
            encode_type=encode_type,
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            embed_dim=embed_dim,
            drop_rate=drop_rate,
        )
        if embed_dim % num_heads:
            fitting = [h for h in range(1, 33) if embed_dim % h == 0]
            near = sorted(sorted(fitting, key=lambda h: abs(h - num_heads))[:2])
            raise UserError(
                f"Spikformer: embed_dim must be a multiple of num_heads; got embed_dim={embed_dim}, "
                f"num_heads={num_heads} (try {' or '.join(map(str, near))})"
            )
        options = NodeOptions(node_type, threshold, tau, act_fun, alpha, requires_thres_grad, sigmoid_thres, mem_detach)
        node, attn_node = options.constructor(step), options.constructor(step, threshold_ratio=0.5)
        self.patch_embed = SpikingPatchSplitting(self.img_size, patch_size, in_chans, embed_dim, pool=pool, node=node)
        self.blocks = nn.Sequential(
            *(
                Block(
                    SpikingSelfAttention(
                        embed_dim, num_heads, scale=attn_scale, qkv_bias=qkv_bias, node=node, attn_node=attn_node
                    ),
                    SpikingMLP(embed_dim, mlp_ratio, node=node),
                    StepDropPath(drop_path_rate * i / max(depth - 1, 1), step),
                )
                for i in range(depth)
            )
        )
        self.feature_info = [
            {"num_chs": embed_dim, "reduction": patch_size, "module": f"blocks.{i}"} for i in range(depth)
        ]
        self.head = self._new_head(num_classes)
        self.apply(init_linear)


def _cifar(paper: str, cifar10: float, cifar100: float) -> dict[str, dict[str, Any]]:
    """List the configurations of a CIFAR network by tag, with the published top-1 accuracies in percent."""
    norm = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
    return {
        "cifar10": cfg((3, 32, 32), 10, paper, f"CIFAR10 {cifar10}", **norm),
        "cifar100": cfg((3, 32, 32), 100, paper, f"CIFAR100 {cifar100}", **norm),
    }


def _imagenet(paper: str, top1: float) -> dict[str, dict[str, Any]]:
    return {"in1k": cfg((3, 224, 224), 1000, paper, f"ImageNet {top1}")}


def _events(paper: str, cifar10_dvs: float, gesture: float) -> dict[str, dict[str, Any]]:
    norm = {"mean": (0.0, 0.0), "std": (1.0, 1.0)}
    return {
        "cifar10dvs": cfg((2, 128, 128), 10, paper, f"CIFAR10-DVS {cifar10_dvs} (T=16)", **norm),
        "gesture": cfg((2, 128, 128), 11, paper, f"DVS128 Gesture {gesture} (T=16)", **norm),
    }


_PAPER, _CML = "arXiv:2209.15425", "arXiv:2305.05954"
_CONFIGURATIONS = {
    "spikformer_digits": {"": cfg((1, 8, 8), 10, _PAPER, mean=(0.0,), std=(1.0,))},
    "spikformer_ndigits": {"": cfg((2, 16, 16), 10, _PAPER, mean=(0.0, 0.0), std=(1.0, 1.0))},
    "spikformer_4_256_cifar": _cifar(_PAPER, 93.94, 75.96),
    "spikformer_2_384_cifar": _cifar(_PAPER, 94.80, 76.95),
    "spikformer_4_384_cifar": _cifar(_PAPER, 95.51, 78.21),
    "spikformer_8_384": _imagenet(_PAPER, 70.24),
    "spikformer_6_512": _imagenet(_PAPER, 72.46),
    "spikformer_8_512": _imagenet(_PAPER, 73.38),
    "spikformer_10_512": _imagenet(_PAPER, 73.68),
    "spikformer_8_768": _imagenet(_PAPER, 74.81),
    "spikformer_2_256_dvs": _events(_PAPER, 80.9, 98.3),
    "spikformer_cml_4_256_cifar": _cifar(_CML, 94.82, 77.64),
    "spikformer_cml_2_384_cifar": _cifar(_CML, 95.63, 78.75),
    "spikformer_cml_4_384_cifar": _cifar(_CML, 96.04, 80.02),
    "spikformer_cml_8_384": _imagenet(_CML, 72.73),
    "spikformer_cml_8_512": _imagenet(_CML, 75.61),
    "spikformer_cml_8_768": _imagenet(_CML, 77.34),
    "spikformer_cml_2_256_dvs": _events(_CML, 80.9, 98.6),
}
_ALIASES = {"spikformer": "spikformer_8_512", "spikformer_dvs": "spikformer_2_256_dvs"}

default_cfgs = generate_default_cfgs(
    {
        f"{name}.{tag}" if tag else name: configuration
        for name, tags in {
            **_CONFIGURATIONS,
            **{alias: _CONFIGURATIONS[name] for alias, name in _ALIASES.items()},
        }.items()
        for tag, configuration in tags.items()
    }
)


def _create_cifar(variant: str, pretrained: bool, **kwargs: Any) -> Spikformer:
    return build(Spikformer, variant, pretrained, **dict({"patch_size": 4, "qkv_bias": True}, **kwargs))


def _create_imagenet(variant: str, pretrained: bool, **kwargs: Any) -> Spikformer:
    return build(Spikformer, variant, pretrained, **dict({"patch_size": 16}, **kwargs))


def _create_events(variant: str, pretrained: bool, **kwargs: Any) -> Spikformer:
    events = {"patch_size": 16, "embed_dim": 256, "depth": 2, "num_heads": 16, "attn_scale": 0.25, "step": 16}
    return build(Spikformer, variant, pretrained, **dict(events, **kwargs))


@register_model
def spikformer_digits(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Small Spikformer for the embedded handwritten digits, 8x8."""
    args = dict(embed_dim=64, depth=2, num_heads=4, patch_size=1)
    return _create_cifar("spikformer_digits", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_ndigits(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Small Spikformer for the embedded digits as simulated event recordings, resized to 16x16."""
    args = dict(embed_dim=64, depth=2, num_heads=4, patch_size=2, step=4)
    return _create_events("spikformer_ndigits", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_4_256_cifar(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Spikformer-4-256 for CIFAR10 and CIFAR100. The paper does not give the heads; 8 divide its width."""
    args = dict(embed_dim=256, depth=4, num_heads=8)
    return _create_cifar("spikformer_4_256_cifar", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_2_384_cifar(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Spikformer-2-384 for CIFAR10 and CIFAR100."""
    args = dict(embed_dim=384, depth=2, num_heads=12)
    return _create_cifar("spikformer_2_384_cifar", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_4_384_cifar(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Spikformer-4-384 for CIFAR10 and CIFAR100."""
    args = dict(embed_dim=384, depth=4, num_heads=12)
    return _create_cifar("spikformer_4_384_cifar", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_8_384(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Spikformer-8-384 for ImageNet. The paper does not give the heads; its sister network has 8."""
    args = dict(embed_dim=384, depth=8, num_heads=8)
    return _create_imagenet("spikformer_8_384", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_6_512(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Spikformer-6-512 for ImageNet."""
    args = dict(embed_dim=512, depth=6, num_heads=8)
    return _create_imagenet("spikformer_6_512", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_8_512(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Spikformer-8-512 for ImageNet."""
    args = dict(embed_dim=512, depth=8, num_heads=8)
    return _create_imagenet("spikformer_8_512", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_10_512(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Spikformer-10-512 for ImageNet."""
    args = dict(embed_dim=512, depth=10, num_heads=8)
    return _create_imagenet("spikformer_10_512", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_8_768(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Spikformer-8-768 for ImageNet. The paper does not give the heads; its sister network has 8."""
    args = dict(embed_dim=768, depth=8, num_heads=8)
    return _create_imagenet("spikformer_8_768", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_2_256_dvs(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Spikformer-2-256 for CIFAR10-DVS and DVS128 Gesture."""
    return _create_events("spikformer_2_256_dvs", pretrained, **kwargs)


@register_model
def spikformer_cml_4_256_cifar(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """CML-Spikformer-4-256 for CIFAR10 and CIFAR100. The paper does not give the heads; 8 divide its width."""
    args = dict(embed_dim=256, depth=4, num_heads=8, pool="before")
    return _create_cifar("spikformer_cml_4_256_cifar", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_cml_2_384_cifar(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """CML-Spikformer-2-384 for CIFAR10 and CIFAR100."""
    args = dict(embed_dim=384, depth=2, num_heads=12, pool="before")
    return _create_cifar("spikformer_cml_2_384_cifar", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_cml_4_384_cifar(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """CML-Spikformer-4-384 for CIFAR10 and CIFAR100."""
    args = dict(embed_dim=384, depth=4, num_heads=12, pool="before")
    return _create_cifar("spikformer_cml_4_384_cifar", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_cml_8_384(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """CML-Spikformer-8-384 for ImageNet. The paper does not give the heads; its sister network has 8."""
    args = dict(embed_dim=384, depth=8, num_heads=8, pool="before")
    return _create_imagenet("spikformer_cml_8_384", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_cml_8_512(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """CML-Spikformer-8-512 for ImageNet."""
    args = dict(embed_dim=512, depth=8, num_heads=8, pool="before")
    return _create_imagenet("spikformer_cml_8_512", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_cml_8_768(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """CML-Spikformer-8-768 for ImageNet. The paper does not give the heads; its sister network has 8."""
    args = dict(embed_dim=768, depth=8, num_heads=8, pool="before")
    return _create_imagenet("spikformer_cml_8_768", pretrained, **dict(args, **kwargs))


@register_model
def spikformer_cml_2_256_dvs(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """CML-Spikformer-2-256 for CIFAR10-DVS and DVS128 Gesture."""
    args = dict(pool="before")
    return _create_events("spikformer_cml_2_256_dvs", pretrained, **dict(args, **kwargs))


@register_model
def spikformer(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Build `spikformer_8_512` under BrainCog's name for it."""
    return spikformer_8_512(pretrained, **kwargs)


@register_model
def spikformer_dvs(pretrained: bool = False, **kwargs: Any) -> Spikformer:
    """Build `spikformer_2_256_dvs` under BrainCog's name for it."""
    return spikformer_2_256_dvs(pretrained, **kwargs)
