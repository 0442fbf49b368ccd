"""The transformers of Mueller et al., one for pictures and one for text: softmax attention, ReLU and no normalisation.

They are trained as ordinary networks; `convert(network, "rate", step=T, data=...)` makes them spiking.

Source: Mueller, Studenyak, Auge, Knoll: Spiking Transformer Networks: A Rate Coded Approach for Processing Sequential
Data (ICSAI 2021, doi 10.1109/ICSAI53574.2021.9664146). Code of the second author: vvvityaaa/transformer-ann2snn at
e0a4cba, for Keras; it has no licence, and nothing of it is here.

The report beside the code speaks of four patches of 7x7 pixels; this is the code, which has 49 patches of 4x4.

Corrected here, unless `as_released` says otherwise: the attention of every block is added to the embedding, and not to
what the block before it puts out; and the text network passes the width of the tokens for the width of a head, so that
its heads have a part of the tokens each, in full width, where a head should have all tokens, in a part of the width.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..errors import UserError
from ..models.arguments import ArgumentChecks, check_arguments, hints_of, sides
from ..models.registry import Paper, Variant, cfg
from ..models.released import ReleasedFault
from .sources import register_source

__all__ = ["RateCodedTextTransformer", "RateCodedTransformer", "from_official"]


class SelfAttention(nn.Module):
    """`proj(softmax(q k^T / sqrt(d)) v)`.

    Args:
        dim: width of the tokens.
        num_heads: heads h.

    Attributes:
        cuts_tokens: head j has the tokens j, j + h, j + 2h, ... in full width, instead of all in a part of the width.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads, self.cuts_tokens = num_heads, False
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, N, C)` to tokens."""
        tokens = "b (n h) d" if self.cuts_tokens else "b n (h d)"
        q, k, v = (rearrange(part(x), f"{tokens} -> b h n d", h=self.num_heads) for part in (self.q, self.k, self.v))
        return self.proj(rearrange(functional.scaled_dot_product_attention(q, k, v), f"b h n d -> {tokens}"))


class Block(nn.Module):
    """Encoder block.

    Args:
        dim: width of the tokens.
        num_heads: heads of the attention.
        hidden: width of the MLP's hidden layer.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int):
        super().__init__()
        self.attn = SelfAttention(dim, num_heads)
        self.mlp = Mlp(dim, hidden, act_layer=nn.ReLU)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Map tokens `(B, N, C)` to tokens; the attention is added to `shortcut`."""
        x = self.attn(x) + shortcut
        return self.mlp(x) + x


class _Encoder(ArgumentChecks, ReleasedFault, nn.Module):
    """Embedding, blocks, head; a subclass makes the tokens in `embed` and what the head reads in `pool`.

    Args:
        embed_dim: width C of the tokens.
        depth: number of blocks.
        num_heads: heads h.
        mlp_ratio: width of the hidden layers over that of the tokens.
        num_classes: classes K; 0 for features.
        tokens: number N of tokens.
        as_released: compute as the released code does.
    """

    fault = "the attention of every block is added to the embedding"

    def __init__(
        self, *, embed_dim: int, depth: int, num_heads: int, mlp_ratio: float, num_classes: int, tokens: int,
        as_released: bool,
    ):  # fmt: skip
        super().__init__()
        self._require_heads(embed_dim, num_heads)
        self.embed_dim, self.num_classes, self.tokens = embed_dim, num_classes, tokens
        self.num_features = int(embed_dim * mlp_ratio)
        self.grad_checkpointing = False
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, embed_dim))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, self.num_features) for _ in range(depth))
        self.neck = self._build_neck()
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.apply(_initialise)
        nn.init.uniform_(self.pos_embed, -0.05, 0.05)
        if as_released:
            self.set_as_released()

    def _build_neck(self) -> nn.Module:
        """Return the layers between `pool` and the classifier."""
        raise NotImplementedError

    def embed(self, x: Tensor) -> Tensor:
        """Map the input to tokens `(B, N, C)`."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        """Map tokens to what the neck reads, `(B, ...)`."""
        raise NotImplementedError

    # timm's calls

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Name the parameters that must not decay, besides vectors: embeddings."""
        return {"pos_embed", "cls_token", "token_embed.weight"} & {name for name, _ in self.named_parameters()}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Describe the layers for layer-wise learning rates."""
        return {"stem": r"^cls_token|pos_embed|patch_embed|token_embed", "blocks": [(r"^blocks\.(\d+)", None)]}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what is inside."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new one for `num_classes` classes, or by none for 0."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        _initialise(self.head)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map the input to tokens `(B, N, C)`."""
        x = embedding = self.embed(x)
        for block in self.blocks:
            shortcut = embedding if self.as_released else x
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, shortcut, use_reentrant=False)
            else:
                x = block(x, shortcut)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map tokens to logits, or to what the classifier reads."""
        x = self.neck(self.pool(x))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map the input to logits `(B, K)`."""
        return self.forward_head(self.forward_features(x))


def _initialise(module: nn.Module) -> None:
    """Initialise layers as Keras does."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.uniform_(module.weight, -0.05, 0.05)


class RateCodedTransformer(_Encoder):
    """The network for pictures: patches and a class token, blocks, and a head that reads all tokens.

    Args:
        img_size: side or sides of the picture, in pixels.
        patch_size: side of a patch, in pixels.
        in_chans: channels of the picture.
        num_classes: classes K; 0 for features.
        embed_dim: width C of the tokens.
        depth: number of blocks.
        num_heads: heads.
        mlp_ratio: width of the hidden layers, the head's among them, over that of the tokens.
        as_released: add the attention of every block to the embedding.

    Raises:
        UserError: for sizes that don't fit each other, or values that are none.
    """

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 28,
        patch_size: int = 4,
        in_chans: int = 1,
        num_classes: int = 10,
        embed_dim: int = 64,
        depth: int = 4,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        as_released: bool = False,
    ):
        given = {"img_size": img_size, "patch_size": patch_size, "in_chans": in_chans, "num_classes": num_classes}
        given |= {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_ratio}
        check_arguments(type(self).__name__, hints_of(type(self)), given)
        self.img_size = height, width = sides(type(self).__name__, img_size)
        self._require_sides(patch_size)
        super().__init__(
            embed_dim=embed_dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio, num_classes=num_classes,
            tokens=(height // patch_size) * (width // patch_size) + 1, as_released=as_released,
        )  # fmt: skip
        self.in_chans = in_chans
        self.patch_embed = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim).uniform_(-0.05, 0.05))
        _initialise(self.patch_embed)

    def _build_neck(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.tokens * self.embed_dim, self.num_features), nn.ReLU())

    def embed(self, x: Tensor) -> Tensor:
        """Map pictures `(B, C, H, W)` to tokens, the class token first."""
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed

    def pool(self, x: Tensor) -> Tensor:
        """Join all tokens."""
        return x.flatten(1)


class RateCodedTextTransformer(_Encoder):
    """The network for text: tokens, blocks, and a head that reads the mean token. It is no network of timm's.

    Args:
        vocabulary: number of words.
        length: words of a text; shorter ones are filled up with the word 0.
        num_classes: classes K; 0 for features.
        embed_dim: width C of the tokens.
        depth: number of blocks.
        num_heads: heads.
        mlp_ratio: width of the hidden layers over that of the tokens.
        as_released: add the attention of every block to the embedding, and give each head a part of the tokens.

    Raises:
        UserError: for sizes that don't fit each other, or values that are none.
    """

    fault = f"{_Encoder.fault}, and each head has a part of the tokens"

    def __init__(
        self,
        *,
        vocabulary: int = 20_000,
        length: int = 200,
        num_classes: int = 2,
        embed_dim: int = 32,
        depth: int = 2,
        num_heads: int = 2,
        mlp_ratio: float = 2.0,
        as_released: bool = False,
    ):
        given = {"vocabulary": vocabulary, "length": length, "num_classes": num_classes, "embed_dim": embed_dim}
        given |= {"depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_ratio}
        check_arguments(type(self).__name__, hints_of(type(self)), given)
        super().__init__(
            embed_dim=embed_dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio, num_classes=num_classes,
            tokens=length, as_released=as_released,
        )  # fmt: skip
        self.token_embed = nn.Embedding(vocabulary, embed_dim)
        _initialise(self.token_embed)

    def set_as_released(self, enable: bool = True) -> None:
        """Compute as the released code does, or as the paper says.

        Raises:
            UserError: if the heads can't share the tokens out.
        """
        num_heads = self.blocks[0].attn.num_heads
        if enable and self.tokens % num_heads:
            raise UserError(
                f"{type(self).__name__}: as_released gives each head a part of the tokens, so length must be a "
                f"multiple of num_heads; got {self.tokens}, {num_heads}"
            )
        super().set_as_released(enable)
        for block in self.blocks:
            block.attn.cuts_tokens = enable

    def _build_neck(self) -> nn.Module:
        dim, hidden = self.embed_dim, self.num_features
        return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.Linear(dim, hidden), nn.ReLU())

    def embed(self, x: Tensor) -> Tensor:
        """Map texts `(B, N)`, as numbers of words, to tokens."""
        if x.shape[1:] != (self.tokens,):
            raise UserError(f"{type(self).__name__}: texts must have {self.tokens} words; got {tuple(x.shape)}")
        return self.token_embed(x) + self.pos_embed

    def pool(self, x: Tensor) -> Tensor:
        """Return the mean token."""
        return x.mean(1)


_NAMES = (
    (r"^embed\.pos$|^pos_emb$", "pos_embed"),
    (r"^class_emb$", "cls_token"),
    (r"^embed\.token$", "token_embed.weight"),
    (r"^patch\.", "patch_embed."),
    (r"^block\.(\d+)\.(q|k|v|proj)\.", r"blocks.\1.attn.\2."),
    (r"^block\.(\d+)\.mlp(\d)\.", r"blocks.\1.mlp.fc\2."),
    (r"\.kernel$", ".weight"),
)
_HEAD_OF_TEXT = {"0": "neck.0", "1": "neck.2", "2": "neck.3", "3": "head"}
_HEAD_OF_PICTURES = {"0": "neck.0", "1": "head"}


def from_official(state: Mapping[str, Tensor], patch_size: int = 4) -> dict[str, Tensor]:
    """Translate weights of the released Keras networks into a state dict of the networks here.

    Args:
        state: tensors by name: `embed.pos` and `embed.token`, or `patch.*`, `pos_emb` and `class_emb`; then, in Keras's
            order, `block.{i}.{q,k,v,proj,mlp1,mlp2}.*` and `head.{j}.*`, where `*` is `kernel`, `(in, out)`, or `bias`.
        patch_size: side of a patch, in pixels.
    """
    heads = _HEAD_OF_TEXT if "embed.token" in state else _HEAD_OF_PICTURES
    found = {}
    for name, value in state.items():
        new = re.sub(r"^head\.(\d)", lambda match: heads[match[1]], name)
        for pattern, replacement in _NAMES:
            new = re.sub(pattern, replacement, new)
        if name == "patch.kernel":
            value = rearrange(value, "(h w c) d -> d c h w", h=patch_size, w=patch_size)
        elif name.endswith(".kernel"):
            value = value.T
        elif name == "embed.pos":
            value = value[None]
        found[new] = value
    return found


_PAPER = Paper(
    "Spiking Transformer Networks", "ICSAI 2021", "doi:10.1109/ICSAI53574.2021.9664146", "vvvityaaa/transformer-ann2snn"
)
register_source(
    RateCodedTransformer,
    "rate",
    _PAPER,
    {
        "rate_coded_transformer_digits": Variant(
            {"img_size": 8, "patch_size": 2, "embed_dim": 32, "depth": 2}, {"": cfg(_PAPER, (1, 8, 8), 10)}
        ),
        "rate_coded_transformer_mnist": Variant({}, {"": cfg(_PAPER, (1, 28, 28), 10, "MNIST 97.16 (T=50)")}),
    },
    first_conv="patch_embed",
)
