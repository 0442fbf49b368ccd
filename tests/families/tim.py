"""What the tests need to know of TIM."""

from braincog_transformers.models import TIMSpikformer

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


def build(kwargs, meta):
    """Translate the official constructor's arguments."""
    sounds = meta["input_layout"] == "B,T,700"
    return TIMSpikformer(
        img_size=(1, 700) if sounds else (kwargs["img_size_h"], kwargs["img_size_w"]),
        patch_size=4 if sounds else kwargs["patch_size"],
        in_chans=1 if sounds else kwargs["in_channels"],
        num_classes=kwargs["num_classes"],
        embed_dim=kwargs["embed_dims"],
        depth=kwargs["depths"],
        num_heads=kwargs["num_heads"],
        mlp_ratio=kwargs["mlp_ratios"],
        tim_alpha=kwargs["TIM_alpha"],
        step=kwargs["step"],
    )


# How to build the network of a test vector, by the start of the file's name.
VECTORS = {"tim": build}
