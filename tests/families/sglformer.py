"""What the tests need to know of SGLFormer, for CIFAR and events and for ImageNet."""

from braincog_transformers.models import SGLFormer, SGLFormerImageNet

from .official import builder

# A size at which every variant of the family builds and runs at once.
TINY = {"embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 5, "img_size": 32, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "sglformer_4_384_cifar"
# Registered names without a published count.
SMALL = {"sglformer_digits"}
ALIASES = {}
# Live trainable parameters of the official classes, from their specification: for ImageNet without layer norms.
PARAMETERS = {
    "sglformer_4_384_cifar.cifar10": 8_852_874,
    "sglformer_4_384_cifar.cifar100": 8_887_524,
    "sglformer_3_256_dvs.cifar10dvs": 4_164_434,
    "sglformer_3_256_dvs.gesture": 4_164_691,
    "sglformer_8_384": 16_248_856 - 9_216,
    "sglformer_8_512": 28_671_016 - 12_288,
    "sglformer_8_512_star": 28_671_016 - 12_288,
    "sglformer_8_768_star": 64_024_648 - 18_432,
}


@builder
def build(official):
    """Build the network of an official class; of ImageNet's two the name tells the pooling."""
    kind, name = official.require_kind(), official.meta["class"]
    dim, heads, depth = {"cifar": (384, 16, 1), "imagenet": (512, 8, 8), "events": (256, 16, 1)}[kind]
    common = {
        **official.common(dim, heads),
        "depth": official.read("depths", depth),
        "patch_size": 4 if kind == "cifar" else 16,
        "step": official.steps(),
    }
    if kind == "imagenet":
        return SGLFormerImageNet(late_pooling=name == "sglformer_ima2", **common)
    return SGLFormer(**common)


# How to build the network of a test vector, by official repository and classes.
SOURCES = {("ZhangHanN1/SGLFormer", name): build for name in ("vit_snn", "sglformer_ima", "sglformer_ima2")}
