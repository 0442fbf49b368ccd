"""Modules that two or more papers share. They receive the neuron as a constructor and know no model's name."""

from .blocks import (
    Block,
    LayerScale,
    MembraneMLP,
    MembranePatchSplitting,
    MembraneSelfAttention,
    SpikingMLP,
    SpikingPatchSplitting,
    SpikingSelfAttention,
    StepDropPath,
)
from .checkpointing import checkpoint_module
from .encoder import ENCODINGS, Encoder
from .folding import Foldable, baked, foldable
from .linear import (
    ConvBN,
    ConvBNNode,
    ConvSequence,
    LinearBN,
    LinearBNNode,
    MakeNode,
    NodeConvBN,
    NodeLinearBN,
    SpikeInput,
    fire_after,
)
from .membrane import ConvMLP, MembraneAttention
from .products import (
    AttentionMatmul,
    DenoisedProduct,
    GatedSum,
    HammingProduct,
    SoftmaxProduct,
    SpikeMatmul,
    SpikeSum,
    SpikingProduct,
)
from .transforms import FixedTransform, FourierTransform, HaarTransform
from .windows import WindowAttention, WindowBlock

__all__ = [
    "ENCODINGS", "AttentionMatmul", "Block", "ConvBN", "ConvBNNode", "ConvMLP", "ConvSequence", "DenoisedProduct",
    "Encoder", "FixedTransform", "Foldable", "FourierTransform", "GatedSum", "HaarTransform", "HammingProduct",
    "LayerScale", "LinearBN", "LinearBNNode", "MakeNode", "MembraneAttention", "MembraneMLP", "MembranePatchSplitting",
    "MembraneSelfAttention", "NodeConvBN", "NodeLinearBN", "SoftmaxProduct", "SpikeInput", "SpikeMatmul", "SpikeSum",
    "SpikingMLP", "SpikingPatchSplitting", "SpikingProduct", "SpikingSelfAttention", "StepDropPath", "WindowAttention",
    "WindowBlock", "baked", "checkpoint_module", "fire_after", "foldable",
]  # fmt: skip
