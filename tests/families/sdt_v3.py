"""What the tests need to know of Spike-driven Transformer V3, its networks with a pyramid."""

import json

from braincog_transformers.models import ESpikeformer

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
EXAMPLE = "sdt_v3_5m"
# Registered names without a published count.
SMALL = {"sdt_v3_digits"}
ALIASES = {}
# Trainable parameters of the official classes, from their specification.
PARAMETERS = {
    "sdt_v3_3m": 2_702_048,
    "sdt_v3_5m": 5_105_608,
    "sdt_v3_10m": 10_023_112,
    "sdt_v3_19m": 18_987_504,
    "sdt_v3_30m": 29_067_920,
    "sdt_v3_53m": 53_416_264,
    "sdt_v3_39m": 39_360_232,
    "sdt_v3_61m": 61_265_800,
    "sdt_v3_19m_dvs": 18_740_004,
    "sdt_v3_6m_dvs": 5_604_315,
}


@builder
def build(official):
    """Build the network of one of the two official classes; that of images fixes the depths, unless blocks were cut off
    afterwards."""
    common = official.common(None, 8)
    common.pop("embed_dim")
    depth, events = official.read("depths"), official.kind == "events"
    depths = (depth * 3 // 4, depth // 4) if events else json.loads(official.meta.get("blocks", "[6, 2]"))
    more = {"layer_scale": 1e-6, "norm": official.read("D_Norm", 4)} if events else {}
    return ESpikeformer(
        **common,
        embed_dims=tuple(official.read("embed_dim")),
        depths=tuple(count for count in depths if count),
        step=official.steps() if events else 1,
        **more,
    )


# How to build the network of a test vector, by official repository and classes.
SOURCES = {
    ("BICLab/Spike-Driven-Transformer-V3", "Spiking_vit_MetaFormer_Spike_SepConv"): build,
    ("BICLab/Spike-Driven-Transformer-V3", "Efficient_SpikeFormer_scaling"): build,
}
