"""One file per paper; importing this package registers every variant with timm."""

from .autost import AutoST
from .catalog import ModelInfo, describe, list_models
from .qkformer import QKFormer
from .registry import REGISTERED
from .sdt import SpikeDrivenTransformer
from .sdt_v2 import MetaSpikeformer
from .sdt_v3 import ESpikeformer
from .sdt_v3_large import ESpikeformerLarge
from .sglformer import SGLFormer, SGLFormerImageNet
from .spikformer import Spikformer
from .spikformer_v2 import SpikformerV2
from .spikingformer import Spikingformer
from .spikingresformer import SpikingResformer
from .tim import TIMSpikformer

__all__ = [
    "REGISTERED",
    "AutoST",
    "ESpikeformer",
    "ESpikeformerLarge",
    "MetaSpikeformer",
    "QKFormer",
    "SGLFormer",
    "SGLFormerImageNet",
    "SpikeDrivenTransformer",
    "Spikformer",
    "SpikformerV2",
    "Spikingformer",
    "SpikingResformer",
    "TIMSpikformer",
    "ModelInfo",
    "describe",
    "list_models",
]
