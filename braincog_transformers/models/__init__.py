"""One file per paper; importing this package registers every variant with timm."""

from .catalog import ModelInfo, describe, list_models
from .qkformer import QKFormer
from .registry import REGISTERED
from .sdt import SpikeDrivenTransformer
from .sdt_v2 import MetaSpikeformer
from .sglformer import SGLFormer, SGLFormerImageNet
from .spikformer import Spikformer
from .spikformer_v2 import SpikformerV2
from .spikingformer import Spikingformer
from .spikingresformer import SpikingResformer
from .tim import TIMSpikformer

__all__ = [
    "REGISTERED", "MetaSpikeformer", "QKFormer", "SGLFormer", "SGLFormerImageNet", "SpikeDrivenTransformer",
    "Spikformer", "SpikformerV2", "Spikingformer", "SpikingResformer", "TIMSpikformer", "ModelInfo", "describe", "list_models",
]  # fmt: skip
