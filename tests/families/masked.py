"""What the tests need to know of masked pre-training: how to build the network of a vector, and the official counts."""

import json

from safetensors import safe_open

from braincog_transformers.models import ESpikeformerLarge
from braincog_transformers.models.masked import MaskedAutoencoder

from .official import builder, source_of

# Parameters of the official classes with their tables of positions, from their specification; the network, its
# arguments, and those of them that stay as they are or are never used: two tables and the mask token.
PARAMETERS = {
    "spikmae_12_512": ("sdt_v3_83m", {"rep_branch": True}, 85_614_656, 196 * (512 + 256) + 256),
    "spikmae_12_768": ("sdt_v3_171m", {}, 173_776_608, 196 * (768 + 256) + 256),
}

_SOURCE = ("BICLab/Spike-Driven-Transformer-V3", "Spikmae")


def holds(path):
    """Return whether a file holds a masked pre-training."""
    with safe_open(path, "pt") as file:
        meta = file.metadata() or {}
    return (source_of(meta)[0], meta.get("class")) == _SOURCE


def read(path):
    """Return metadata and tensors of a vector; a value of its input may stand for a square of equal pixels."""
    with safe_open(path, "pt") as file:
        meta, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for axis in (2, 3):
        tensors["input"] = tensors["input"].repeat_interleave(int(meta.get("input_repeat", 1)), axis)
    return meta, tensors


@builder
def _build(official):
    """Build the official class, which has 224 x 224 pixels whatever its arguments say."""
    official.read("T", 1)
    *stem_dims, dim = official.read("embed_dim")
    common = {**official.common(dim, 8), "embed_dim": dim, "num_classes": 0, "img_size": 224}
    encoder = ESpikeformerLarge(
        **common,
        patch_size=official.read("patch_size", 16),
        stem_dims=tuple(stem_dims),
        depth=official.read("depths", 8),
        rep_branch=official.read("choice") == "base",
        step=1,
        **ESpikeformerLarge.masking.arguments,
    )
    sizes = {name: official.read(f"decoder_{kind}") for name, kind in _DECODER.items()}
    return MaskedAutoencoder(encoder, **sizes)


_DECODER = {"decoder_dim": "embed_dim", "decoder_depth": "depth", "decoder_heads": "num_heads"}


def build(meta):
    """Build the network of a vector's metadata."""
    return _build(json.loads(meta["kwargs"]), {**meta, "input_shape": (1, 3, 224, 224), "classes": 10})
