"""RoBERTa-like encoders of text, as a plain network to be converted. Their weights have the names of Hugging Face.

Source: Liu et al., RoBERTa (arXiv 1907.11692); with ReLU, as in You et al., SpikeZIP-TF (ICML 2024).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models.official import OfficialNames
from .attention import Product

__all__ = ["RobertaEncoder"]

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class Embeddings(nn.Module):
    """Sum of the embeddings of words, of places and of the one type of tokens, normalised."""

    def __init__(self, vocab_size: int, places: int, dim: int, padding: int, eps: float, drop: float):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, dim, padding_idx=padding)
        self.position_embeddings = nn.Embedding(places, dim, padding_idx=padding)
        self.token_type_embeddings = nn.Embedding(1, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(drop)
        self.padding = padding

    def forward(self, ids: Tensor) -> Tensor:
        word = (ids != self.padding).long()
        places = word.cumsum(dim=1) * word + self.padding  # padding is at the place of its own number
        x = self.word_embeddings(ids) + self.position_embeddings(places) + self.token_type_embeddings.weight
        return self.dropout(self.LayerNorm(x))


class Add(nn.Module):
    def forward(self, x: Tensor, constant: Tensor) -> Tensor:
        return x + constant


class SelfAttention(nn.Module):
    """`softmax(q k^T / sqrt(d) + mask) v`, with a place for a neuron or a quantiser at each of its values."""

    def __init__(self, dim: int, num_heads: int, drop: float):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = nn.Dropout(drop)
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.q_node, self.k_node, self.v_node = nn.Identity(), nn.Identity(), nn.Identity()
        self.weight_node, self.context_node = nn.Identity(), nn.Identity()
        self.scores, self.masked, self.softmax, self.context = Product(), Add(), nn.Softmax(dim=-1), Product()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map tokens `(B, N, C)`, with `mask` `(B, 1, 1, N)` added to the scores, to tokens."""
        q, k, v = (
            node(layer(x)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for node, layer in ((self.q_node, self.query), (self.k_node, self.key), (self.v_node, self.value))
        )
        scores = self.masked(self.scores(q * self.scale, k.transpose(-2, -1)), mask)
        weights = self.weight_node(self.dropout(self.softmax(scores)))
        return self.context_node(self.context(weights, v)).transpose(1, 2).flatten(2)


class Output(nn.Module):
    """A projection, added to what entered the layer, and normalised."""

    def __init__(self, in_dim: int, dim: int, eps: float, drop: float):
        super().__init__()
        self.dense = nn.Linear(in_dim, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(drop)

    def forward(self, x: Tensor, entered: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + entered)


class _Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int, eps: float, drop: float):
        super().__init__()
        self.self = SelfAttention(dim, num_heads, drop)
        self.output = Output(dim, dim, eps, drop)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.output(self.self(x, mask), x)


class _Intermediate(nn.Module):
    def __init__(self, dim: int, mlp_dim: int, activation: str):
        super().__init__()
        self.dense = nn.Linear(dim, mlp_dim)
        self.act = _ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.dense(x))


class _Layer(nn.Module):
    def __init__(self, dim: int, num_heads: int, mlp_dim: int, activation: str, eps: float, drop: float):
        super().__init__()
        self.attention = _Attention(dim, num_heads, eps, drop)
        self.intermediate = _Intermediate(dim, mlp_dim, activation)
        self.output = Output(mlp_dim, dim, eps, drop)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class _Encoder(nn.Module):
    def __init__(self, depth: int, *args):
        super().__init__()
        self.layer = nn.ModuleList(_Layer(*args) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class _Head(nn.Module):
    """Two layers on the first token, as in `RobertaForSequenceClassification`."""

    def __init__(self, dim: int, num_classes: int, activation: str, drop: float):
        super().__init__()
        self.dense = nn.Linear(dim, dim)
        self.act = _ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(drop)
        self.out_proj = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.dropout(self.act(self.dense(self.dropout(x[:, 0])))))


class RobertaEncoder(nn.Module):
    """A RoBERTa, normalised after each sum, with a classifier on its first token.

    `checkpoints.load_state` loads state dicts of Hugging Face's `RobertaModel` and `RobertaForSequenceClassification`
    into it. Their networks have `activation="gelu", head_activation="tanh", eps=1e-5`; SpikeZIP-TF trains them with
    ReLU in both places.

    Args:
        vocab_size: number of tokens.
        num_classes: K; 0 leaves the classifier out, and the tokens of the last layer are the answer.
        embed_dim: C.
        depth: number of layers.
        num_heads: h.
        mlp_dim: width between the two layers of an MLP.
        max_tokens: the longest sequence.
        padding: the token that fills up shorter sequences. It is not attended to.
        activation: "relu" or "gelu", in the MLPs.
        head_activation: "relu" or "tanh", in the classifier.
        drop_rate: dropout, everywhere.
        eps: of the normalisations.

    Raises:
        UserError: for a width that the heads do not divide, or an unknown activation.
    """

    official_names = OfficialNames(
        rename=((r"^roberta\.", ""),),
        dead=(
            (r"^(roberta\.)?embeddings\.position_ids$", "counts the places, which is done here from the tokens"),
            (r"^(roberta\.)?pooler\.", "the classifier reads the first token itself"),
            (r"^lm_head\.", "predicts tokens, in pre-training"),
        ),
    )

    def __init__(
        self,
        vocab_size: int = 50265,
        num_classes: int = 2,
        *,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        max_tokens: int = 512,
        padding: int = 1,
        activation: Literal["relu", "gelu"] = "relu",
        head_activation: Literal["relu", "tanh"] = "relu",
        drop_rate: float = 0.1,
        eps: float = 1e-5,
    ):
        super().__init__()
        if embed_dim % num_heads:
            raise UserError(
                f"RobertaEncoder: embed_dim must be a multiple of num_heads; got embed_dim={embed_dim}, "
                f"num_heads={num_heads}"
            )
        if activation not in ("relu", "gelu") or head_activation not in ("relu", "tanh"):
            raise UserError(
                "RobertaEncoder: activation must be 'relu' or 'gelu', head_activation 'relu' or 'tanh'; got "
                f"{activation!r}, {head_activation!r}"
            )
        self.num_classes, self.padding, self.max_tokens = num_classes, padding, max_tokens
        self.embeddings = Embeddings(vocab_size, max_tokens + padding + 1, embed_dim, padding, eps, drop_rate)
        self.encoder = _Encoder(depth, embed_dim, num_heads, mlp_dim, activation, eps, drop_rate)
        self.classifier = _Head(embed_dim, num_classes, head_activation, drop_rate) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def get_classifier(self) -> nn.Module:
        """Return the classifier."""
        return self.classifier

    def example_input(self) -> Tensor:
        """Return a sequence of two tokens, of which one is padding."""
        ids = torch.tensor([[self.padding + 1, self.padding]], device=self.embeddings.LayerNorm.weight.device)
        return ids % self.embeddings.word_embeddings.num_embeddings

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Map tokens `(B, N)`, whole numbers, to logits `(B, K)`.

        Args:
            ids: the tokens.
            attention_mask: `(B, N)`, 0 or False where nothing is attended to; None for there where the padding is.

        Raises:
            UserError: for a sequence that is too long.
        """
        if ids.dim() != 2 or ids.shape[1] > self.max_tokens:
            raise UserError(
                f"RobertaEncoder: tokens must be (B, N) with N of at most {self.max_tokens}; got {tuple(ids.shape)}"
            )
        x = self.embeddings(ids)
        attended = ids != self.padding if attention_mask is None else attention_mask.bool()
        mask = torch.zeros_like(attended, dtype=x.dtype).masked_fill_(~attended, torch.finfo(x.dtype).min)
        return self.classifier(self.encoder(x, mask[:, None, None]))


PARTS = (
    *(RobertaEncoder, Embeddings, Add, SelfAttention, Output, _Attention, _Intermediate, _Layer, _Encoder, _Head),
    *(Product, nn.Softmax, nn.Embedding, nn.ModuleList),
)
"""Classes of the modules that such an encoder consists of, besides layers, normalisations and activations."""
