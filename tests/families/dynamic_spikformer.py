"""What the tests need to know of Dynamic SpikFormer."""

# A size at which every variant of the family builds and runs at once.
TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5, "img_size": 16, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "dynamic_spikformer_4_384_cifar"
# Registered names without a published count.
SMALL = {"dynamic_spikformer_digits", "dynamic_spikformer_ndigits"}
ALIASES = {}
# Trainable parameters of the construction, from its specification: Spikformer's, and six scores for each of the 33
# layers of neurons.
PARAMETERS = {
    "dynamic_spikformer_4_384_cifar.cifar10": 9_324_730 + 33 * 6,
    "dynamic_spikformer_4_384_cifar.cifar100": 9_359_380 + 33 * 6,
}
# No code was published, so there are no vectors.
SOURCES = {}
