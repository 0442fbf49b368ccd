"""One file per paper; importing this package registers every variant with timm."""

from .attention_free_spikformer import AttentionFreeSpikformer
from .catalog import ModelInfo, describe, list_models
from .dista import DISTA
from .dynamic_spikformer import DynamicSpikformer
from .qkformer import QKFormer
from .registry import REGISTERED
from .sdt import SpikeDrivenTransformer
from .sdt_v2 import MetaSpikeformer
from .sglformer import SGLFormer, SGLFormerImageNet
from .spikformer import Spikformer
from .spikingformer import Spikingformer
from .spikingresformer import SpikingResformer
from .tim import TIMSpikformer

__all__ = [
    "REGISTERED", "AttentionFreeSpikformer", "DISTA", "DynamicSpikformer", "MetaSpikeformer", "QKFormer", "SGLFormer",
    "SGLFormerImageNet", "SpikeDrivenTransformer", "Spikformer", "Spikingformer", "SpikingResformer", "TIMSpikformer",
    "ModelInfo", "describe", "list_models",
]  # fmt: skip
