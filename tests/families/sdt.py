"""What the tests need to know of Spike-driven Transformer."""

from braincog_transformers.models import SpikeDrivenTransformer

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


def build(kwargs, meta):
    """Translate the official constructor's arguments."""
    model = SpikeDrivenTransformer(
        img_size=(kwargs["img_size_h"], kwargs["img_size_w"]),
        patch_size=2 ** kwargs["pooling_stat"].count("1"),
        in_chans=kwargs["in_channels"],
        num_classes=kwargs["num_classes"],
        embed_dim=kwargs["embed_dims"],
        depth=kwargs["depths"],
        num_heads=kwargs["num_heads"],
        mlp_ratio=kwargs["mlp_ratios"],
        attn_pool=kwargs["dvs_mode"],
        step=int(meta["timesteps"]),
        node_type={"lif": "LIFNode", "plif": "PLIFNode"}[kwargs["spike_mode"]],
    )
    model.output_steps = kwargs["TET"]
    return model


# How to build the network of a test vector, by the start of the file's name.
VECTORS = {"spike_driven_transformer_static": build, "spike_driven_transformer_dvs": build}
