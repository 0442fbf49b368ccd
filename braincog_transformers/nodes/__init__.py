"""BrainCog nodes over `ops`: neurons that run all T steps in one call, BrainCog's own, and `accelerate`."""

from .adaptive import ALIFNode, CLIFNode
from .analog import PLIAFNode
from .base import SpikingNode
from .brain_cog import WrappedNode, accelerate, fires_levels, make_node, node_class, register_node
from .integer import ILIFNode
from .neurons import FusableNode, IFNode, LIFNode, PLIFNode

__all__ = [
    "ALIFNode",
    "CLIFNode",
    "FusableNode",
    "ILIFNode",
    "IFNode",
    "LIFNode",
    "PLIAFNode",
    "PLIFNode",
    "SpikingNode",
    "WrappedNode",
    "accelerate",
    "fires_levels",
    "make_node",
    "node_class",
    "register_node",
]
