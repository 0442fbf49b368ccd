"""What the tests need to know of QKFormer."""

from braincog_transformers.models import QKFormer

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


def build(kwargs, meta):
    """Translate the official constructor's arguments; what the class hard-codes is told from its file."""
    folder = meta["source"].rsplit(":", 1)[1].split("/")[0]
    depth = kwargs["depths"]
    stem, depths, heads = {
        "imagenet": ("imagenet", (1, 2, depth - 3), kwargs["num_heads"]),
        "cifar10": ("cifar", (1, 1, depth - 2), 8),
        "cifar100": ("cifar", (1, 1, depth - 2), 8),
        "cifar10-dvs": ("dvs", (1, 1), 16),
        "dvs128-gesture": ("dvs", (1, 1), 16),
    }[folder]
    return QKFormer(
        stem=stem,
        img_size=(kwargs["img_size_h"], kwargs["img_size_w"]),
        in_chans=kwargs["in_channels"],
        num_classes=kwargs["num_classes"],
        embed_dim=kwargs["embed_dims"],
        depths=depths,
        num_heads=heads,
        mlp_ratio=kwargs["mlp_ratios"],
        step=int(meta["timesteps"]),
    )


# How to build the network of a test vector, by the start of the file's name.
VECTORS = {"qkformer": build}
