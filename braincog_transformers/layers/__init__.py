"""Modules that two or more papers share. They receive the neuron as a constructor and know no model's name."""

from .blocks import Block, MembraneMLP, SpikingMLP, SpikingPatchSplitting, SpikingSelfAttention, StepDropPath
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
from .products import SoftmaxProduct, SpikeMatmul, SpikeSum, SpikingProduct

__all__ = [
    "ENCODINGS", "Block", "ConvBN", "ConvBNNode", "ConvSequence", "Encoder", "Foldable", "LinearBN", "LinearBNNode",
    "MakeNode", "MembraneMLP", "NodeConvBN", "NodeLinearBN", "SoftmaxProduct", "SpikeInput", "SpikeMatmul", "SpikeSum",
    "SpikingMLP", "SpikingPatchSplitting", "SpikingProduct", "SpikingSelfAttention", "StepDropPath", "baked",
    "checkpoint_module", "foldable",
]  # fmt: skip
