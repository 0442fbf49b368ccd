"""What the tests need to know of TIM."""

from braincog_transformers.models import TIMSpikformer

from .official import builder

# A size at which every variant of the family builds and runs at once; as many tokens, 16, as a head is wide.
TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "tim_ndigits"
# Registered names without a published count.
SMALL = {"tim_ndigits"}
ALIASES = {}
# Trainable parameters of the official classes, from their specification, without the layer norms that none calls.
PARAMETERS = {
    "tim_2_256_dvs.cifar10dvs": 2_568_746,
    "tim_2_256_dvs.ncaltech101": 2_592_133,
    "tim_2_256_dvs.ncars": 2_566_690,
    "tim_2_256_dvs.ucf101dvs": 2_592_133,
    "tim_2_256_dvs.hmdb51dvs": 2_579_283,
    "tim_2_256_shd": 2_571_316,
}


@builder
def build(official):
    """Build the network of one of the two official classes: of sounds, or of frames, which `if_UCF` averages."""
    sounds, pooled = official.input[-1] == 700, official.read("if_UCF", False)
    if sounds:
        common = {**official.common(256, 16), "img_size": (1, 700), "in_chans": 1, "patch_size": 4}
    else:
        common = {**official.common(256, 16), "pool_to": 64 if pooled else None}
    return TIMSpikformer(
        **common,
        depth=official.read("depths", 2),
        tim_alpha=official.read("TIM_alpha", 0.5),
        step=official.steps("step"),
    )


# How to build the network of a test vector, by official repository and classes.
SOURCES = {("BrainCog-X/Brain-Cog", "Spikformer"): build, ("Fancyssc/TIM", "Spikformer"): build}
