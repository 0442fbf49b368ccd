"""What the tests need to know of Spikformer V2, of which there is no official code and so no vector."""

# A size at which every variant of the family builds and runs at once.
TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5, "img_size": 16, "step": 2}
# The variant that the tests of what all variants share take.
EXAMPLE = "spikformer_v2_8_384"
# Registered names without a published count.
SMALL = {"spikformer_v2_digits"}
ALIASES = {}
# Parameters of the structure that meets the printed counts of the paper, from its specification.
PARAMETERS = {
    "spikformer_v2_8_384": 29_111_272,
    "spikformer_v2_8_512": 51_545_064,
    "spikformer_v2_12_512": 64_177_128,
    "spikformer_v2_16_768": 172_278_760,
}
SOURCES = {}
