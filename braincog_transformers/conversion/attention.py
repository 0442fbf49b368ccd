"""Softmax attention of timm's networks, written out, with a place for a neuron or a quantiser at each of its values."""

from timm.models.swin_transformer import WindowAttention
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from ..errors import UserError

__all__ = ["ATTENTIONS", "ExplicitAttention", "Product"]

ATTENTIONS = (Attention, WindowAttention)
"""Classes of attention that `ExplicitAttention` takes over."""


class Product(nn.Module):
    """Matrix product of two activations."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


class ExplicitAttention(nn.Module):
    """`softmax(q k^T / sqrt(d)) v` of a timm attention, whose layers it takes over under their names.

    What a method puts into the places `*_node`, `*_mask`, `softmax`, `scores` and `context` decides what it computes;
    they start as identities, softmax and plain products, so that it computes what the source does.

    Args:
        attn: timm's `Attention` of a ViT or DeiT, or `WindowAttention` of a Swin.
        path: its name in the network, for messages.

    Raises:
        UserError: for a gate or a normalisation of the attention's output, or a forward of its own.
    """

    def __init__(self, attn: nn.Module, path: str):
        super().__init__()
        if type(attn).forward not in {kind.forward for kind in ATTENTIONS} or "forward" in vars(attn):
            raise UserError(
                f"conversion: {path} is a {type(attn).__name__} with a forward of its own, where no place for neurons "
                "is known; only rate leaves an attention as it is"
            )
        for part, what in (("gate", "a gate"), ("norm", "a normalisation")):
            if not isinstance(getattr(attn, part, None), nn.Identity | None):
                raise UserError(
                    f"conversion: {path} has {what} at its output, where no place for neurons is known; only rate "
                    "leaves an attention as it is"
                )
        self.num_heads, self.scale = attn.num_heads, attn.scale
        self.qkv, self.proj = attn.qkv, attn.proj
        self.q_norm = getattr(attn, "q_norm", nn.Identity())
        self.k_norm = getattr(attn, "k_norm", nn.Identity())
        self.attn_drop, self.proj_drop = attn.attn_drop, attn.proj_drop
        self.window_area = getattr(attn, "window_area", 0)
        if self.window_area:
            self.relative_position_bias_table = attn.relative_position_bias_table
            self.register_buffer("relative_position_index", attn.relative_position_index, persistent=False)
        self.q_node, self.k_node, self.v_node = nn.Identity(), nn.Identity(), nn.Identity()
        self.score_node, self.weight_node = nn.Identity(), nn.Identity()
        self.context_node, self.proj_node = nn.Identity(), nn.Identity()
        self.q_mask, self.k_mask, self.score_mask = nn.Identity(), nn.Identity(), nn.Identity()
        self.scores, self.softmax, self.context = Product(), nn.Softmax(dim=-1), Product()

    def position_bias(self) -> Tensor:
        """Return the bias of each pair of places in a window, `(h, N, N)`."""
        area = self.window_area
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        return bias.view(area, area, -1).permute(2, 0, 1)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, mask: Tensor | None = None
    ) -> Tensor:
        """Map tokens `(B, N, C)` to tokens; of windows, `(B*windows, N, C)` with `mask` `(windows, N, N)` or None."""
        if attn_mask is not None or is_causal:
            raise UserError("conversion: attention with a mask of tokens can't run in time steps; leave the mask out")
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = self.q_node(self.q_norm(q)), self.k_node(self.k_norm(k)), self.v_node(v)
        q, k = self.q_mask(q), self.k_mask(k)
        scores = self.score_mask(self.score_node(self.scores(q * self.scale, k.transpose(-2, -1))))
        if self.window_area:
            scores = scores + self.position_bias()
        if mask is not None:
            scores = (scores.unflatten(0, (-1, len(mask))) + mask.unsqueeze(1)).flatten(0, 1)
        weights = self.attn_drop(self.weight_node(self.softmax(scores)))
        x = self.context_node(self.context(weights, v)).transpose(1, 2).flatten(2)
        return self.proj_node(self.proj_drop(self.proj(x)))
