"""What the tests need to know of Spikeformer, which is not Spikformer."""

from braincog_transformers.models import Spikeformer

from .official import builder

# A size at which every variant of the family builds and runs at once, without chance.
TINY = {
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 5,
    "img_size": 16,
    "patch_size": 4,
    "step": 2,
    "drop_path_rate": 0.0,
}
# The variant that the tests of what all variants share take.
EXAMPLE = "spikeformer_7_3x2x3"
# Registered names without a published count.
SMALL = {"spikeformer_digits", "spikeformer_ndigits"}
ALIASES = {}
# Trainable parameters of the official classes, from their specification.
PARAMETERS = {
    "spikeformer_7_3x2x3": 8_792_993,
    "spikeformer_7_5x3x1": 9_279_900,
    "spikeformer_7_3x2x4": 39_320_836,
}


@builder
def build(official):
    """Build the network with the tables of the official constructor, then give it the input's steps and size.

    A stage of the tokenizer is a pair of blocks, where the strides are a list, or one block.
    """
    strides, blocks = official.read("stride"), official.read("n_conv_layers")
    paired = isinstance(strides, list)
    assert strides == ([2, 1] * (blocks // 2) if paired else 2)
    assert official.read("padding") == official.read("kernel_size") // 2
    model = Spikeformer(
        img_size=official.read("img_size"),
        in_chans=official.read("n_input_channels"),
        num_classes=official.read("num_classes"),
        step=official.read("num_frames"),
        patch_size=2 ** (blocks // 2 if paired else blocks),
        kernel_size=official.read("kernel_size"),
        blocks_per_stage=2 if paired else 1,
        embed_dim=official.read("embed_dim"),
        depth=official.read("depth"),
        num_heads=official.read("num_heads"),
        mlp_ratio=float(official.read("mlp_ratio")),
        drop_path_rate=official.read("drop_path_rate"),
        node_type=f"{official.read('act_layer')}Node",
    )
    model.set_attr("step", official.steps())
    model.set_input_size(tuple(official.input[-2:]))
    return model


# How to build the network of a test vector, by official repository and classes.
SOURCES = {("Loydian/Spikeformer", "Spikeformer"): build}
