"""One file per paper; importing this package registers every variant with timm."""

from .autost import AutoST
from .catalog import ModelInfo, describe, list_models
from .ost import OST
from .qkformer import QKFormer
from .registry import REGISTERED
from .sdt import SpikeDrivenTransformer
from .sdt_v2 import MetaSpikeformer
from .sdt_v3 import ESpikeformer
from .sdt_v3_large import ESpikeformerLarge
from .sglformer import SGLFormer, SGLFormerImageNet
from .spikeformer import Spikeformer
from .spikformer import Spikformer
from .spikingformer import Spikingformer
from .spikingresformer import SpikingResformer
from .tim import TIMSpikformer

__all__ = [
    "OST",
    "REGISTERED",
    "AutoST",
    "ESpikeformer",
    "ESpikeformerLarge",
    "MetaSpikeformer",
    "QKFormer",
    "SGLFormer",
    "SGLFormerImageNet",
    "SpikeDrivenTransformer",
    "Spikeformer",
    "Spikformer",
    "Spikingformer",
    "SpikingResformer",
    "TIMSpikformer",
    "ModelInfo",
    "describe",
    "list_models",
]
