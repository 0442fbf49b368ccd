"""What the tests need to know of SpikingResformer."""

from braincog_transformers.models import SpikingResformer

from .official import builder

# A size at which every variant of the family builds and runs at once.
TINY = {
    "embed_dims": (16, 16),
    "depths": (1, 1),
    "num_heads": (2, 2),
    "patch_sizes": (2, 1),
    "group_size": 16,
    "num_classes": 5,
    "img_size": 16,
    "step": 2,
}
# The variant that the tests of what all variants share take.
EXAMPLE = "spikingresformer_cifar"
# Registered names without a published count.
SMALL = {"spikingresformer_digits"}
ALIASES = {}
# Trainable parameters of the official class, from its specification.
PARAMETERS = {
    "spikingresformer_ti": 11_180_992,
    "spikingresformer_s": 17_813_824,
    "spikingresformer_m": 35_601_472,
    "spikingresformer_l": 60_375_680,
    "spikingresformer_l.in1k_288": 60_375_680,
    "spikingresformer_s.cifar10_transfer": 17_306_944,
    "spikingresformer_s.cifar100_transfer": 17_353_024,
    "spikingresformer_s.cifar10dvs_transfer": 17_306_944,
    "spikingresformer_s.gesture_transfer": 17_307_456,
    "spikingresformer_cifar.cifar10": 10_793_152,
    "spikingresformer_cifar.cifar100": 10_827_712,
    "spikingresformer_cifar.cifar10dvs": 10_793_152,
    "spikingresformer_dvsg": 2_709_830,
}


@builder
def build(official):
    """Build the network of the official class, which returns the logits of every step."""
    for name in ("in_channels", "num_classes"):
        official.read(name, None)
    model = SpikingResformer(
        img_size=official.size(),
        in_chans=official.input[-3],
        num_classes=official.classes,
        stem_stride=1 if official.read("prologue", None) else 4,
        embed_dims=official.read("planes"),
        depths=[stage.count("DSSA") for stage in official.read("layers")],
        num_heads=official.read("num_heads"),
        patch_sizes=official.read("patch_sizes"),
        group_size=official.read("group_size", 64),
        node_type=f"{official.read('activation', 'LIF').removesuffix('Node')}Node",
        step=official.steps(),
    )
    model.output_steps = True
    return model


# How to build the network of a test vector, by official repository and classes.
SOURCES = {("xyshi2000/SpikingResformer", "SpikingResformer"): build}
