"""What the tests need to know of Spike-driven Transformer."""

from braincog_transformers.models import SpikeDrivenTransformer

from .official import builder

# A size at which every variant of the family builds and runs at once.
TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5, "img_size": 16, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "sdt_2_256_dvs"
# Registered names without a published count.
SMALL = {"sdt_digits"}
ALIASES = {"sd_transformer": "sdt_8_512", "sd_transformer_dvs": "sdt_2_256_dvs"}
# Live trainable parameters of the official class, from its specification.
PARAMETERS = {
    "sdt_2_256_cifar.cifar10": 2_566_954,
    "sdt_2_512_cifar.cifar10": 10_233_418,
    "sdt_2_256_cifar.cifar100": 2_590_084,
    "sdt_2_512_cifar.cifar100": 10_279_588,
    "sdt_8_384": 16_816_024,
    "sdt_6_512": 23_373_352,
    "sdt_8_512": 29_689_384,
    "sdt_10_512": 36_005_416,
    "sdt_8_768": 66_338_632,
    "sdt_2_256_dvs": 2_566_666,
    "sdt_2_256_gesture": 2_566_923,
}


@builder
def build(official):
    """Build the network of the official class, whose poolings make the patches."""
    stages = official.read("pooling_stat", "1111")
    if "10" in stages:
        raise ValueError(f"{official}: pooling_stat {stages} pools before a stage that is not pooled; none here does")
    model = SpikeDrivenTransformer(
        **official.common(512, 8),
        patch_size=2 ** stages.count("1"),
        depth=official.read("depths", 8),
        attn_pool=official.read("dvs_mode", False),
        step=official.steps(),
        node_type={"lif": "LIFNode", "plif": "PLIFNode"}[official.read("spike_mode", "lif")],
    )
    model.output_steps = official.read("TET", False)
    return model


# How to build the network of a test vector, by official repository and classes.
SOURCES = {("BICLab/Spike-Driven-Transformer", name): build for name in ("SpikeDrivenTransformer", "sdt")}
