"""One file per paper; importing this package registers every variant with timm."""

from .attention_free_spikformer import AttentionFreeSpikformer
from .autost import AutoST
from .catalog import ModelInfo, describe, list_models
from .dista import DISTA
from .dynamic_spikformer import DynamicSpikformer
from .masked import MaskedAutoencoder
from .ost import OST
from .qkformer import QKFormer
from .registry import REGISTERED
from .sdt import SpikeDrivenTransformer
from .sdt_v2 import MetaSpikeformer
from .sdt_v3 import ESpikeformer
from .sdt_v3_large import ESpikeformerLarge
from .sglformer import SGLFormer, SGLFormerImageNet
from .spike_transformer_depth import SpikeTransformerDepth
from .spikeformer import Spikeformer
from .spikformer import Spikformer
from .spikformer_v2 import SpikformerV2
from .spiking_pose_transformer import SpikingPoseTransformer
from .spikingformer import Spikingformer
from .spikingresformer import SpikingResformer
from .stnet import STNet
from .stsa import STSTransformer
from .tim import TIMSpikformer

__all__ = [
    "DISTA", "OST", "REGISTERED", "AttentionFreeSpikformer", "AutoST", "DynamicSpikformer", "ESpikeformer",
    "ESpikeformerLarge", "MaskedAutoencoder", "MetaSpikeformer", "QKFormer", "SGLFormer", "SGLFormerImageNet",
    "STSTransformer", "SpikeDrivenTransformer", "Spikeformer", "Spikformer", "SpikformerV2", "SpikingPoseTransformer",
    "SpikingResformer", "Spikingformer", "TIMSpikformer", "ModelInfo", "describe", "list_models", "STNet",
    "SpikeTransformerDepth",
]  # fmt: skip
