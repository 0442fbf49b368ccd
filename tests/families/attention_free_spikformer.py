"""What the tests need to know of Attention-free Spikformer."""

# A size at which every variant of the family builds and runs at once.
TINY = {"embed_dim": 16, "depth": 2, "num_classes": 5, "img_size": 16, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "attention_free_spikformer_4_384_cifar"
# Registered names without a published count.
SMALL = {"attention_free_spikformer_digits", "attention_free_spikformer_ndigits"}
ALIASES = {}
# Trainable parameters of the construction, from its specification.
PARAMETERS = {
    "attention_free_spikformer_4_384_cifar.cifar10": 6_950_074,
    "attention_free_spikformer_4_384_cifar.cifar100": 6_984_724,
    "attention_free_spikformer_2_256_dvs.cifar10dvs": 2_038_794,
    "attention_free_spikformer_2_256_dvs.gesture": 2_039_051,
}
# No code was published, so there are no vectors.
SOURCES = {}
