"""The model zoo of spiking transformers for BrainCog.

Importing it registers the models: `timm.create_model("spikformer_4_384_cifar", num_classes=100)`.
"""

import sys

from . import _braincog as _braincog  # isort: skip - first, for its effect: it makes braincog importable
from .analysis.energy import analyze
from .checkpoints import matching
from .errors import UserError
from .models import list_models
from .nodes import IFNode, ILIFNode, LIFNode, PLIFNode, accelerate
from .version import __version__

__all__ = [
    "IFNode", "ILIFNode", "LIFNode", "PLIFNode", "UserError", "__version__", "accelerate", "analyze", "list_models",
]  # fmt: skip

sys.modules[f"{__name__}.identify"] = matching  # under its former name, which scripts import from
