"""BrainCog nodes over `ops`: neurons that run all T steps in one call, BrainCog's own, and `accelerate`."""

from .adaptive import ALIFNode, CLIFNode, DynamicThresholdNode
from .analog import PLIAFNode
from .base import SpikingNode
from .brain_cog import WrappedNode, accelerate, fires_levels, make_node, node_class, register_node
from .integer import ILIFNode
from .neurons import FusableNode, IFNode, LIFNode, PLIFNode
from .valued import BurstNode, SoftResetNode, STBIFNode, ValuedNode

__all__ = [
    "ALIFNode",
    "BurstNode",
    "CLIFNode",
    "DynamicThresholdNode",
    "FusableNode",
    "ILIFNode",
    "IFNode",
    "LIFNode",
    "PLIAFNode",
    "PLIFNode",
    "STBIFNode",
    "SoftResetNode",
    "SpikingNode",
    "ValuedNode",
    "WrappedNode",
    "accelerate",
    "fires_levels",
    "make_node",
    "node_class",
    "register_node",
]
