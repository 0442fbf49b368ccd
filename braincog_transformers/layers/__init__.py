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
)
from .membrane import ConvMLP, MembraneAttention
from .products import SpikeMatmul, SpikeSum, SpikingProduct

__all__ = [
    "ENCODINGS", "Block", "ConvBN", "ConvBNNode", "ConvMLP", "ConvSequence", "Encoder", "Foldable", "LayerScale",
    "LinearBN", "LinearBNNode", "MakeNode", "MembraneAttention", "MembraneMLP", "MembranePatchSplitting",
    "MembraneSelfAttention", "NodeConvBN", "NodeLinearBN", "SpikeInput", "SpikeMatmul", "SpikeSum", "SpikingMLP",
    "SpikingPatchSplitting", "SpikingProduct", "SpikingSelfAttention", "StepDropPath", "baked", "checkpoint_module",
    "foldable",
]  # fmt: skip
