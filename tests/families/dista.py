"""What the tests need to know of DISTA."""

# A size at which every variant of the family builds and runs at once.
TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5, "img_size": 16, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "dista_4_384_cifar"
# Registered names without a published count.
SMALL = {"dista_digits", "dista_ndigits"}
ALIASES = {}


def _count(spikformer, depth, dim, steps):
    """Return Spikformer's parameters, 3 (T - 1) D^2 more in each block, and one w for each layer of neurons."""
    return spikformer + depth * 3 * (steps - 1) * dim**2 + 5 + 7 * depth


# Trainable parameters of the construction, by the formula of its specification.
PARAMETERS = {
    "dista_4_384_cifar.cifar10": _count(9_324_730, 4, 384, 6),
    "dista_4_384_cifar.cifar100": _count(9_359_380, 4, 384, 6),
    "dista_2_256_dvs.cifar10dvs": _count(2_566_666, 2, 256, 10),
}
# No code was published, so there are no vectors.
SOURCES = {}
