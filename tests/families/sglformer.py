"""What the tests need to know of SGLFormer, for CIFAR and events and for ImageNet."""

from braincog_transformers.models import SGLFormer, SGLFormerImageNet

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


def _common(kwargs, meta):
    return {
        "img_size": (kwargs["img_size_h"], kwargs["img_size_w"]),
        "patch_size": kwargs["patch_size"],
        "in_chans": kwargs["in_channels"],
        "num_classes": kwargs["num_classes"],
        "embed_dim": kwargs["embed_dims"],
        "depth": kwargs["depths"],
        "num_heads": kwargs["num_heads"],
        "mlp_ratio": kwargs["mlp_ratios"],
        "step": int(meta["timesteps"]),
    }


def build(kwargs, meta):
    """Translate the official constructor's arguments for CIFAR and events."""
    return SGLFormer(**_common(kwargs, meta))


def build_imagenet(kwargs, meta):
    """Translate the official constructor's arguments for ImageNet, where the class tells the pooling."""
    return SGLFormerImageNet(late_pooling=meta["class"] == "sglformer_ima2", **_common(kwargs, meta))


# How to build the network of a test vector, by the start of the file's name.
VECTORS = {"sglformer": build, "sglformer_ima": build_imagenet}
