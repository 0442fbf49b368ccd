"""What the tests need to know of OST."""

from braincog_transformers.models import OST

from .official import builder

# A size at which every variant of the family builds and runs at once.
TINY = {"embed_dim": 16, "depth": 2, "num_classes": 5, "img_size": 16, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "ost_4_384_cifar"
# Registered names without a published count.
SMALL = {"ost_digits", "ost_ndigits"}
ALIASES = {}
# Parameters of the official classes, from their specification, without tables and a norm that none calls, and without
# the thresholds of three units in each block, two each (for Gesture one), which the official GPU code never changes.
PARAMETERS = {
    "ost_4_256_cifar.cifar10": 5_152_066 - 4 * 6,
    "ost_4_256_cifar_r3.cifar10": 4_361_538 - 4 * 6,
    "ost_4_256_cifar_r3.cifar100": 4_384_668 - 4 * 6,
    "ost_4_256_cifar_r2.cifar10": 3_571_010 - 4 * 6,
    "ost_2_384_cifar.cifar10": 7_618_758 - 2 * 6,
    "ost_2_384_cifar_r3.cifar10": 6_730_950 - 2 * 6,
    "ost_2_384_cifar_r3.cifar100": 6_765_600 - 2 * 6,
    "ost_2_384_cifar_r2.cifar10": 5_843_142 - 2 * 6,
    "ost_2_384_cifar_r2.cifar100": 5_877_792 - 2 * 6,
    "ost_4_384_cifar.cifar10": 11_372_114 - 4 * 6,
    "ost_4_384_cifar.cifar100": 11_406_764 - 4 * 6,
    "ost_4_384_cifar_r3.cifar10": 9_596_498 - 4 * 6,
    "ost_4_384_cifar_r3.cifar100": 9_631_148 - 4 * 6,
    "ost_4_384_cifar_r2.cifar10": 7_820_882 - 4 * 6,
    "ost_4_384_cifar_r2.cifar100": 7_855_532 - 4 * 6,
    "ost_2_512_cifar.cifar10": 13_445_078 - 2 * 6,
    "ost_2_512_cifar_r3.cifar10": 11_868_118 - 2 * 6,
    "ost_2_512_cifar_r2.cifar10": 10_291_158 - 2 * 6,
    "ost_8_384_imagenet": 19_363_944 - 8 * 6,
    "ost_8_512_imagenet": 33_868_760 - 8 * 6,
    "ost_8_768_imagenet": 74_955_960 - 8 * 6,
    "ost_2_256_dvs": 3_498_838 - 16_896 - 2 * 6,
    "ost_1_256_gesture": 1_856_206 - 16_384 - 3,
}


@builder
def build(official):
    """Build the network of one of the four official classes, which differ in the stem and in the thresholds.

    The vectors were computed with neurons whose thresholds learn, which the official GPU code has not.
    """
    gesture = "gesture" in official.path
    common = official.common(256, 1)
    common.pop("num_heads")
    return OST(
        **common,
        patch_size=4 if official.require_kind() == "cifar" else 16,
        depth=official.read("depths", 1 if gesture else 2),
        downsampling="avg" if gesture else "conv",
        thresholds=1 if gesture else 2,
        step=official.steps(),
        requires_thres_grad=True,
    )


# How to build the network of a test vector, by official repository and classes.
SOURCES = {("songxt3/OST", "Spikformer"): build}
