"""What the tests need to know of Spike-driven Transformer V3, its networks with blocks of one width."""

from braincog_transformers.models import ESpikeformerLarge

from .official import builder

# A size at which every variant of the family builds and runs at once.
TINY = {"embed_dim": 16, "stem_dims": None, "depth": 2, "num_heads": 2, "num_classes": 5, "img_size": 32, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "sdt_v3_83m"
# Registered names without a published count.
SMALL = set()
ALIASES = {}
# Live trainable parameters of the official classes, from their specification; with one classifier.
PARAMETERS = {
    "sdt_v3_83m": 82_502_952 - 6_316_032,
    "sdt_v3_173m": 170_971_714,
    "sdt_v3_171m": 170_810_824,
}


@builder
def build(official):
    """Build the network of the official class, whose second classifier has an argument of its own for the classes."""
    official.read("choice"), official.read("drop_path_rate", 0.1), official.read("nb_classes", None)
    *stem_dims, dim = official.read("embed_dim")
    model = ESpikeformerLarge(
        **{**official.common(dim, 8), "embed_dim": dim},
        patch_size=official.read("patch_size", 16),
        stem_dims=tuple(stem_dims),
        depth=official.read("depths", 8),
        distilled=official.read("kd", True),
        step=official.read("T", 1),
    )
    if model.distilled:
        model.set_distilled_training()
    return model


# How to build the network of a test vector, by official repository and classes.
SOURCES = {("BICLab/Spike-Driven-Transformer-V3", "Spikformer"): build}
