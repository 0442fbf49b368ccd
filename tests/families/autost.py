"""What the tests need to know of AutoST."""

from braincog_transformers.models import AutoST

from .official import builder

# A size at which every variant of the family builds and runs at once.
TINY = {
    **dict(embed_dim=16, depth=2, num_heads=(2, 4), mlp_ratio=(4.0, 3.0)),
    **dict(num_classes=5, img_size=16, step=2),
}
# The variant that the tests of what all variants share take.
EXAMPLE = "autost_small"
# Registered names without a published count.
SMALL = {"autost_digits"}
ALIASES = {"autost": "autost_small"}
# Live trainable parameters: the specification has those of tiny and small for CIFAR10, and the formula for the others,
# which was measured with the official class.
PARAMETERS = {
    "autost_tiny.cifar10": 4_281_284,
    "autost_small.cifar10": 11_818_594,
    "autost_base.cifar10": 29_280_193,
    "autost_tiny.cifar100": 4_315_934,
    "autost_small.cifar100": 11_864_764,
    "autost_base.cifar100": 29_343_643,
}


@builder
def build(official):
    """Build the network of the official class; `patch_size` changes nothing there."""
    common = official.common(None, None)
    common.pop("mlp_ratio")
    return AutoST(**common, mlp_ratio=official.read("mlp_ratios"), depth=official.read("depths"), step=official.steps())


# How to build the network of a test vector, by official repository and classes.
SOURCES = {("AlexandreWANG915/AutoST", "AutoST"): build}
