"""What the tests need to know of the STS-Transformer."""

from braincog_transformers.models import STSTransformer

from .official import builder

# A size at which every variant of the family builds and runs at once.
TINY = {
    "embed_dim": 32,  # the stem begins with a sixteenth; of one channel, eager and compiled code see two layouts
    "depth": 2,
    "num_heads": 2,
    "patch_size": 8,
    "mlp_drop_rate": 0.0,
    "num_classes": 5,
    "img_size": 16,
    "step": 2,
}
# The variant that the tests of what all variants share take.
EXAMPLE = "stsa_ndigits"
# Registered names without a published count.
SMALL = {"stsa_ndigits"}
ALIASES = {}
# Trainable parameters of the official class, from its specification, without the projections that it never calls.
DEAD = 396_288
PARAMETERS = {"stsa_2_256": 1_963_633 - DEAD}


@builder
def build(official):
    """Build the network of the official class, which returns the logits of every step."""
    for name in ("proj_drop_rate", "attn_drop_rate"):
        official.read(name, None)
    common = official.common(official.read("token_len", 256), 1)
    model = STSTransformer(
        **common,
        patch_size=official.read("patch_size", 16),
        depth=official.read("depths", 1),
        mlp_drop_rate=official.read("forward_drop_rate", 0.0),
        tau=1 / (1 - official.read("tau", 0.5)),
        step=official.steps(),
    )
    model.output_steps = True
    return model


# How to build the network of a test vector, by official repository and classes.
SOURCES = {("ppppps/STSA_4_Asyn_SNN", "STSTransformer"): build}
