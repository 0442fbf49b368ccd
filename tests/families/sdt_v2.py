"""What the tests need to know of Spike-driven Transformer V2."""

from braincog_transformers.models import MetaSpikeformer

from .official import builder

# A size at which every variant of the family builds and runs at once.
TINY = {
    "embed_dims": (8, 8, 8, 16),
    "depths": (1, 2),
    "num_heads": 2,
    "num_classes": 5,
    "img_size": 32,
    "step": 2,
}
# The variant that the tests of what all variants share take.
EXAMPLE = "sdt_v2_15m"
# Registered names without a published count.
SMALL = {"sdt_v2_digits"}
ALIASES = {"sd_transformer_v2": "sdt_v2_55m", "sd_transformer_v2_dvs": "sdt_v2_18m_dvs"}
# Trainable parameters of the official classes, from their specification; with one classifier.
PARAMETERS = {
    "sdt_v2_15m": 15_112_208,
    "sdt_v2_31m": 31_333_864,
    "sdt_v2_55m": 55_350_248,
    "sdt_v2_124m": 123_741_160,
    "sdt_v2_18m_dvs.hardvs": 18_262_980,
    "sdt_v2_18m_dvs.cifar10dvs": 18_146_690,
    "sdt_v2_26m_dvs": 26_218_620,
    "sdt_v2_46m_dvs": 46_433_004,
}


@builder
def build(official):
    """Build the network of one of the two official classes, which fix the depths; that of events takes time first."""
    official.read("depths", None)
    common = official.common(None, 8)
    common.pop("embed_dim")
    model = MetaSpikeformer(
        **common,
        embed_dims=tuple(official.read("embed_dim", (64, 128, 256, 512))),
        depths=(4, 2) if official.kind == "events" else (6, 2),
        distilled=official.read("kd", False),
        step=official.steps(),
    )
    if model.distilled:
        model.set_distilled_training()
    return model


# How to build the network of a test vector, by official repository and classes.
SOURCES = {
    ("BICLab/Spike-Driven-Transformer-V2", "Spiking_vit_MetaFormer"): build,
    ("BICLab/Spike-Driven-Transformer-V3", "Spiking_vit_MetaFormer"): build,
}
