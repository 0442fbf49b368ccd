"""BrainCog nodes over `ops`: neurons that run all T steps in one call, BrainCog's own, and `accelerate`."""

from .adaptive import ALIFNode, CLIFNode
from .base import SpikingNode
from .brain_cog import WrappedNode, accelerate, make_node, node_class, register_node
from .neurons import FusableNode, IFNode, LIFNode, PLIFNode

__all__ = [
    "ALIFNode",
    "CLIFNode",
    "FusableNode",
    "IFNode",
    "LIFNode",
    "PLIFNode",
    "SpikingNode",
    "WrappedNode",
    "accelerate",
    "make_node",
    "node_class",
    "register_node",
]
