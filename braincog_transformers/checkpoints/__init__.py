"""Checkpoints: files read as data, the weights in them, loading into a network, and which network they are of."""

from .files import read_checkpoint
from .loading import load_checkpoint, load_content, load_state
from .matching import Fit, identify
from .state_dicts import find_weights, weights_of

__all__ = ["Fit", "find_weights", "identify", "load_checkpoint", "load_content", "load_state", "read_checkpoint"]
__all__ += ["weights_of"]
