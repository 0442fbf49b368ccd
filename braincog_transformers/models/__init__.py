"""One file per paper; importing this package registers every variant with timm."""

from .catalog import ModelInfo, describe, list_models
from .qkformer import QKFormer
from .spikformer import Spikformer
from .spikingformer import Spikingformer

__all__ = ["QKFormer", "Spikformer", "Spikingformer", "ModelInfo", "describe", "list_models"]
