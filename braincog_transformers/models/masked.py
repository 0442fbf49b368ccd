"""Masked pre-training: a network sees a part of each picture's patches, and a small decoder predicts the others.

Official code: class `Spikmae` of BICLab/Spike-Driven-Transformer-V3 at 00fcd1f (Yao et al., TPAMI 2025, arXiv
2411.16061), which pre-trains the two largest networks of that paper. Spikformer V2 (arXiv 2401.02020) is pre-trained in
the same way here; its authors released no code.

The network is the encoder. Its convolutions up to the map of tokens see visible patches only (`layers.visible`); behind
them all tokens take part, the hidden ones starting from nothing. The decoder is an ordinary vision transformer. The
loss is the squared error of its pixels in hidden patches, each patch normalised by its own mean and deviation.

Deviations of the official code, kept here: all tokens reach the decoder, so that its mask token is never used; nor is
the encoder's table of positions. Corrected here, unless `as_released` asks for it: the decoder takes the tokens for
those of a shuffled sequence and puts them in order once more, though they never left their places.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ..errors import UserError
from ..layers.visible import VisiblePatches, show_visible_only
from .arguments import check_arguments
from .base import SpikingTransformer, init_linear
from .official import OfficialNames
from .released import ReleasedFault

__all__ = ["MaskedAutoencoder", "encoder_weights"]


class MaskedAutoencoder(ReleasedFault, nn.Module):
    """An encoder that sees a part of each picture's patches, and a decoder that predicts the pixels of the others.

    Args:
        encoder: a network without a classifier (`num_classes=0`), built with the arguments that its class's `masking`
            names; its convolutions see visible positions only from now on.
        mask_ratio: share of the patches that are hidden, above 0 and below 1.
        decoder_dim: width of the decoder, a multiple of 4 and of its heads.
        decoder_depth: number of its blocks.
        decoder_heads: its attention heads.
        as_released: keep the fault of the released code.

    Raises:
        UserError: for a network that can't be pre-trained so, a picture that the patches don't fill, a ratio that
            hides no patch or all of them, or a decoder whose width does not fit.
    """

    fault = "the decoder permutes the tokens of a picture, which are in order already, by the way back from its mask"

    def __init__(
        self,
        encoder: SpikingTransformer,
        *,
        mask_ratio: float = 0.5,
        decoder_dim: int = 256,
        decoder_depth: int = 4,
        decoder_heads: int = 4,
        as_released: bool = False,
    ):
        super().__init__(as_released=as_released)
        self.patch_size, grid_size = _patches(encoder)
        self.encoder = encoder
        count = grid_size[0] * grid_size[1]
        self.mask_ratio, self.kept = mask_ratio, int(count * (1 - mask_ratio))
        if not 0 < self.kept < count:
            raise UserError(
                f"a mask ratio of {mask_ratio:g} shows {self.kept} of {count} patches; one must be visible and one "
                "hidden at least (another ratio, or a larger picture)"
            )
        self.visible = VisiblePatches(grid_size)
        for part in encoder.masking.parts:
            show_visible_only(encoder.get_submodule(part), self.visible)
        self.norm = nn.BatchNorm1d(encoder.num_features)
        pixels = self.patch_size**2 * encoder.in_chans
        self.decoder = _Decoder(encoder.num_features, decoder_dim, decoder_depth, decoder_heads, grid_size, pixels)

    @property
    def official_names(self) -> OfficialNames:
        """How the official code names encoder and decoder."""
        return _Names(_RENAMED, _DEAD, encoder=self.encoder.official_names or OfficialNames(()))

    @property
    def step(self) -> int:
        """Number of time steps T."""
        return self.encoder.step

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Name the parameters that must not decay, as the encoder does."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the loss of each picture, `(B,)`.

        Args:
            x: pictures `(B, C, H, W)`.
            noise: `(B, N)`, numbers by which the patches of a picture are ranked: the lowest are visible; drawn if left
                out.
        """
        latent, ranks = self.encode(x, noise)
        predicted = self.decoder(latent.gather(1, ranks[:, :, None].expand_as(latent)) if self.as_released else latent)
        target = rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=self.patch_size, q=self.patch_size)
        target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
        errors = (predicted - target).square().mean(2)
        return (errors * (ranks >= self.kept)).sum(1) / (ranks.shape[1] - self.kept)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what the decoder reads of masked pictures, `(B, N, C)`, and the rank of each patch, `(B, N)`; those
        below `kept` are visible."""
        rows, columns = self.visible.grid_size
        noise = torch.rand(len(x), rows * columns, device=x.device) if noise is None else noise
        order = noise.argsort(1)
        self.visible.patches = order[:, : self.kept]
        features = self.encoder.forward_features(x * self.visible.mask(x))
        latent = features.unflatten(0, (self.step, -1)).mean(0)
        channels = latent.transpose(1, 2) if self.encoder.has_tokens else latent.flatten(2)
        return self.norm(channels).transpose(1, 2), order.argsort(1)


class _Decoder(nn.Module):
    """Vision transformer from latent tokens `(B, N, C)` to the pixels of each patch, `(B, N, P)`."""

    def __init__(self, in_dim: int, dim: int, depth: int, heads: int, grid_size: tuple[int, int], pixels: int):
        given = {"embed_dim": dim, "num_heads": heads, "depth": depth}
        check_arguments("the decoder", dict.fromkeys(given, int), given)
        if dim % 4 or dim % heads:
            raise UserError(f"the decoder's width must be a multiple of 4 and of its {heads} heads; got {dim}")
        super().__init__()
        self.embed = nn.Linear(in_dim, dim)
        self.register_buffer("position", _positions(dim, grid_size))
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.Sequential(*(Block(dim, heads, norm_layer=norm) for _ in range(depth)))
        self.norm = norm(dim)
        self.predict = nn.Linear(dim, pixels)
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.norm(self.blocks(self.embed(x) + self.position)))


def _positions(dim: int, grid_size: tuple[int, int]) -> Tensor:
    """Return sines and cosines of column, then of row, at dim/4 frequencies: `(1, N, dim)`."""
    frequencies = 10_000 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid_size), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (columns, rows)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()[None]


def _patches(encoder: nn.Module) -> tuple[int, tuple[int, int]]:
    """Return the side of a patch, pixels, and height and width of the map of patches; raise `UserError` where a network
    can't be pre-trained masked."""
    if getattr(encoder, "masking", None) is None:
        raise UserError(f"{type(encoder).__name__} can't be pre-trained masked: its layers would see hidden patches")
    side, sides = encoder.feature_info[-1]["reduction"], encoder.img_size
    if any(length % side for length in sides):
        raise UserError(f"masked pre-training hides patches of {side} pixels, which don't fill {sides[0]} x {sides[1]}")
    if side**2 * encoder.in_chans < 2:
        raise UserError("masked pre-training has nothing to predict in patches of a single number; take larger ones")
    return side, (sides[0] // side, sides[1] // side)


_BESIDE = ("decoder_", "norm.")
"""How the official names begin that are not the encoder's."""
_RENAMED = (
    (r"^decoder_pos_embed$", "decoder.position"),
    (r"^decoder_pred\.", "decoder.predict."),
    (r"^decoder_(embed|blocks|norm)\.", r"decoder.\1."),
)
_DEAD = (
    (r"^mask_token$", "mask token that no place is left for"),
    (r"^pos_embed$", "position table that is never added"),
)


@dataclass(frozen=True, kw_only=True)
class _Names(OfficialNames):
    """Official names: those of the decoder, and of the encoder as its own class has them."""

    encoder: OfficialNames

    def reason_dead(self, name: str) -> str:
        return super().reason_dead(name) or ("" if name.startswith(_BESIDE) else self.encoder.reason_dead(name))

    def translate(self, name: str) -> str | None:
        if name.startswith(_BESIDE):
            return super().translate(name)
        found = None if super().reason_dead(name) else self.encoder.translate(name)
        return found and f"encoder.{found}"


def encoder_weights(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the encoder's part of the weights of a masked pre-training, ours or official; None for other weights."""
    if any(name.startswith("decoder.") for name in state) and any(name.startswith("encoder.") for name in state):
        return {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    if "decoder_embed.weight" in state:
        beside = (*_BESIDE, "mask_token", "pos_embed")
        return {name: value for name, value in state.items() if not name.startswith(beside)}
    return None
