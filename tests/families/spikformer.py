"""What the tests need to know of Spikformer and CML-Spikformer."""

from braincog_transformers.models import Spikformer

from .official import builder

# A size at which every variant of the family builds and runs at once.
TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5, "img_size": 16, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "spikformer_4_384_cifar"
# Registered names without a published count.
SMALL = {"spikformer_digits", "spikformer_ndigits"}
ALIASES = {"spikformer": "spikformer_8_512", "spikformer_dvs": "spikformer_2_256_dvs"}
# Live trainable parameters of the official classes, from their specification.
PARAMETERS = {
    "spikformer_4_256_cifar.cifar10": 4_155_178,
    "spikformer_2_384_cifar.cifar10": 5_765_050,
    "spikformer_4_384_cifar.cifar10": 9_324_730,
    "spikformer_4_256_cifar.cifar100": 4_178_308,
    "spikformer_2_384_cifar.cifar100": 5_799_700,
    "spikformer_4_384_cifar.cifar100": 9_359_380,
    "spikformer_8_384": 16_816_024,
    "spikformer_6_512": 23_373_352,
    "spikformer_8_512": 29_689_384,
    "spikformer_10_512": 36_005_416,
    "spikformer_8_768": 66_338_632,
    "spikformer_2_256_dvs.cifar10dvs": 2_566_666,
    "spikformer_2_256_dvs.gesture": 2_566_923,
    "spikformer_cml_4_256_cifar.cifar10": 4_155_178,
    "spikformer_cml_2_384_cifar.cifar10": 5_765_050,
    "spikformer_cml_4_384_cifar.cifar10": 9_324_730,
    "spikformer_cml_4_256_cifar.cifar100": 4_178_308,
    "spikformer_cml_2_384_cifar.cifar100": 5_799_700,
    "spikformer_cml_4_384_cifar.cifar100": 9_359_380,
    "spikformer_cml_8_384": 16_816_024,
    "spikformer_cml_8_512": 29_689_384,
    "spikformer_cml_8_768": 66_338_632,
    "spikformer_cml_2_256_dvs": 2_566_666,
}


@builder
def build(official):
    """Build the network of an official class, which hard-codes what its folder tells; CIFAR has no defaults."""
    kind = official.require_kind()
    dim, heads, depth = {"cifar": (384, 12, 4), "imagenet": (512, 8, 8), "events": (256, 16, 2)}[kind]
    return Spikformer(
        **official.common(dim, heads),
        patch_size=4 if kind == "cifar" else 16,
        depth=official.read("depths", depth),
        qkv_bias=kind == "cifar",
        attn_scale=0.25 if kind == "events" else 0.125,
        pool="before" if official.repository.endswith("CML") else "after",
        step=official.steps(),
    )


# How to build the network of a test vector, by official repository and classes.
SOURCES = {
    ("ZK-Zhou/spikformer", "Spikformer"): build,
    ("zhouchenlin2096/Spikingformer-CML", "Spikformer"): build,
    ("zhouchenlin2096/Spikingformer-CML", "CML_Spikformer"): build,
}
