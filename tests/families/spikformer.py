"""What the tests need to know of Spikformer and CML-Spikformer."""

from braincog_transformers.models import Spikformer

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


def build(kwargs, meta):
    """Translate the official constructor's arguments; what the class hard-codes is told from its file."""
    folder = meta["source"].rsplit(":", 1)[1].split("/")[0]
    return Spikformer(
        img_size=(kwargs["img_size_h"], kwargs["img_size_w"]),
        patch_size=4 if folder == "cifar10" else 16,
        in_chans=kwargs["in_channels"],
        num_classes=kwargs["num_classes"],
        embed_dim=kwargs["embed_dims"],
        depth=kwargs["depths"],
        num_heads=kwargs["num_heads"],
        mlp_ratio=kwargs["mlp_ratios"],
        qkv_bias=folder == "cifar10",
        attn_scale=0.25 if folder == "cifar10dvs" else 0.125,
        pool="before" if "CML" in meta["source"] else "after",
        step=int(meta["timesteps"]),
    )


# How to build the network of a test vector, by the start of the file's name.
VECTORS = {"spikformer": build}
