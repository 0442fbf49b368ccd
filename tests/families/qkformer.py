"""What the tests need to know of QKFormer."""

from braincog_transformers.models import QKFormer

from .official import builder

# A size at which every variant of the family builds and runs at once.
TINY = {"embed_dim": 32, "depths": (1, 1), "num_heads": 2, "num_classes": 5, "img_size": 32, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "qkformer_4_384_cifar"
# Registered names without a published count.
SMALL = {"qkformer_digits"}
ALIASES = {}
# Live trainable parameters of the official classes, from their specification.
PARAMETERS = {
    "qkformer_10_384": 16_473_688,
    "qkformer_10_512": 29_079_336,
    "qkformer_10_768": 64_962_760,
    "qkformer_10_768.in1k_288": 64_962_760,
    "qkformer_10_768.in1k_384": 64_962_760,
    "qkformer_4_384_cifar.cifar10": 6_706_234,
    "qkformer_4_384_cifar.cifar100": 6_740_884,
    "qkformer_2_256_dvs.cifar10dvs": 1_504_138,
    "qkformer_2_256_dvs.gesture": 1_504_395,
    "qkformer_2_256_gesture": 1_999_371,
}


@builder
def build(official):
    """Build the network of an official class, which hard-codes what its folder tells, and the heads but for
    ImageNet."""
    kind = official.require_kind()
    common = official.common({"cifar": 384, "imagenet": 512, "events": 256}[kind], 8)
    if kind == "events":
        common["mlp_ratio"] = official.read("mlp_ratios", 4 if "gesture" in official.path else 1)
    depth = official.read("depths", 10 if kind == "imagenet" else 4)
    stem, depths = {
        "imagenet": ("imagenet", (1, 2, depth - 3)),
        "cifar": ("cifar", (1, 1, depth - 2)),
        "events": ("dvs", (1, 1)),
    }[kind]
    common["num_heads"] = {"imagenet": common["num_heads"], "cifar": 8, "events": 16}[kind]
    return QKFormer(**common, stem=stem, depths=depths, step=official.steps())


# How to build the network of a test vector, by official repository and classes.
SOURCES = {
    ("zhouchenlin2096/QKFormer", name): build
    for name in ("hierarchical_spiking_transformer", "spiking_transformer", "vit_snn")
}
