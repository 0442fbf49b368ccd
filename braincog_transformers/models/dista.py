"""DISTA: a reconstruction.

Xu, Geng, Yin, Li: DISTA: Denoising Spiking Transformer with Intrinsic Plasticity and Spatiotemporal Attention. arXiv
2311.09376. No code was published. New over Spikformer: neurons learn their time constants; queries, keys and values
are projected from the inputs of several steps; and small entries of the attention map are removed.

The paper's text fixes these three and no more. What is chosen here, and why, stands in docs/reconstructions.md: one
matrix for each lag between two steps, of which all but the first begin at zero, so that training begins at Spikformer;
entries below 2 are removed; one time constant for each layer of neurons.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import UserError
from ..layers import DenoisedProduct, LinearBNNode, MakeNode, SpikingSelfAttention, baked, fire_after, foldable
from ..nodes.base import state_without_graph
from .registry import Paper, Variant, cfg, cifar, events, flat, register
from .spikformer import Spikformer

__all__ = ["DISTA"]


class LaggedLinearBNNode(LinearBNNode):
    """`LinearBNNode` that reads the steps before, too: `node(BatchNorm(sum over k of W_k x[t - k] + b))`.

    Args:
        dim: width C of the tokens.
        lags: number L of matrices, for the lags 0 to L - 1.
        step: number of steps T.
        bias, node: see `LinearBNNode`.
    """

    def __init__(self, dim: int, lags: int, step: int, *, bias: bool, node: MakeNode):
        super().__init__(dim, dim, bias=bias, node=node)
        self.lagged = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(lags - 1))
        self.step, self.layer_by_layer = step, True
        self.n_reset()

    def n_reset(self) -> None:
        """Forget the inputs of the steps before."""
        self.before: list[Tensor] = []

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle takes along: the inputs of the steps before as values."""
        return state_without_graph(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T*B, N, C)`, or `(B, N, C)` of the next step, to spikes of the same shape."""
        y = self._multiply(self.linear, x)
        y = self._add_steps_before(x, y) if self.layer_by_layer else self._add_calls_before(x, y)
        return fire_after(self.node, self.bn, y)

    def _add_steps_before(self, x: Tensor, y: Tensor) -> Tensor:
        steps = x.unflatten(0, (self.step, -1))
        for lag, layer in zip(range(1, self.step), self.lagged, strict=False):
            past = self._multiply(layer, steps[:-lag].flatten(0, 1)).unflatten(0, (self.step - lag, -1))
            y = y + pad(past, (0, 0, 0, 0, 0, 0, lag, 0)).flatten(0, 1)  # before the first step there is nothing
        return y

    def _add_calls_before(self, x: Tensor, y: Tensor) -> Tensor:
        for layer, past in zip(self.lagged, self.before, strict=False):
            y = y + self._multiply(layer, past)
        self.before = [x, *self.before][: len(self.lagged)]
        return y

    @torch.no_grad()
    def fuse(self) -> "LaggedLinearBNNode":
        """Fold the normalisation into all matrices, if they are `foldable`."""
        if foldable(self.linear, *self.lagged, self.bn):
            factor = self.bn.weight * (self.bn.running_var + self.bn.eps).rsqrt()
            for index, layer in enumerate(self.lagged):
                self.lagged[index] = baked(layer)
                self.lagged[index].weight.mul_(factor[:, None])
            super().fuse()
        return self


class DISTAAttention(SpikingSelfAttention):
    """Spiking self-attention over the present and earlier steps, on a denoised map.

    Args:
        dim, num_heads, scale, qkv_bias: see `SpikingSelfAttention`.
        lags, step: see `LaggedLinearBNNode`.
        denoise: smallest entry of the map that is kept.
        node, attn_node: constructors of neurons.
    """

    def __init__(
        self, dim: int, num_heads: int, *, lags: int, step: int, denoise: float, scale: float, qkv_bias: bool,
        node: MakeNode, attn_node: MakeNode,
    ):  # fmt: skip
        super().__init__(dim, num_heads, node=node, attn_node=attn_node)
        self.q, self.k, self.v = (LaggedLinearBNNode(dim, lags, step, bias=qkv_bias, node=node) for _ in range(3))
        self.product = DenoisedProduct(scale, denoise)


class DISTA(Spikformer):
    """Spikformer with learned time constants, projections that reach back in time, and a denoised attention map.

    Args:
        lags: number L of steps that a projection reads, the present one among them; None for all T.
        denoise: smallest entry of the map Q K^T that is kept, the paper's u; 0 keeps all.
        **spikformer: see `Spikformer`; the neurons are PLIFNode unless another is named.
    """

    status = "reconstruction"
    official_names = None
    neuron_defaults: ClassVar = {"node_type": "PLIFNode"}

    def __init__(self, *, lags: int | None = None, denoise: float = 2.0, **spikformer: Any):
        self.lags, self.denoise = lags, denoise
        super().__init__(**spikformer)

    def _attention(self) -> nn.Module:
        lags = self.step if self.lags is None else self.lags
        if not 1 <= lags <= self.step:
            raise UserError(f"DISTA: lags must be 1 to step; got lags={lags}, step={self.step}")
        return DISTAAttention(
            self.embed_dim, self.num_heads, lags=lags, step=self.step, denoise=self.denoise, scale=self.attn_scale,
            qkv_bias=self.qkv_bias, **self._attention_nodes(),
        )  # fmt: skip

    def _build_head(self) -> None:
        super()._build_head()
        for module in self.modules():
            if isinstance(module, LaggedLinearBNNode):
                for layer in module.lagged:
                    nn.init.zeros_(layer.weight)


_PAPER = Paper("DISTA", "arXiv 2023", "arXiv:2311.09376", "")
_DIGITS = flat(2, 64, 4, patch_size=1, qkv_bias=True, denoise=1)
register(
    DISTA,
    {
        "dista_digits": Variant(_DIGITS, {"": cfg(_PAPER, (1, 8, 8), 10)}),
        "dista_ndigits": Variant(
            flat(2, 64, 4, patch_size=2, attn_scale=0.25, step=4), {"": cfg(_PAPER, (2, 16, 16), 10)}
        ),
        "dista_4_384_cifar": Variant(
            flat(4, 384, 12, patch_size=4, qkv_bias=True, step=6), cifar(_PAPER, 96.26, 79.15)
        ),
        "dista_2_256_dvs": Variant(flat(2, 256, 16, attn_scale=0.25, step=10), events(_PAPER, "79.1", None)),
    },
    first_conv="patch_embed.stages.0.conv",
)
