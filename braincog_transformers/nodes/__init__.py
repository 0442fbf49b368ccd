"""BrainCog nodes over `ops`: LIF, PLIF and IF neurons that run all T steps in one call, and `accelerate`."""

from .base import FusableNode
from .neurons import IFNode, LIFNode, PLIFNode, WrappedNode, accelerate, make_node, register_node

__all__ = ["FusableNode", "IFNode", "LIFNode", "PLIFNode", "WrappedNode", "accelerate", "make_node", "register_node"]
