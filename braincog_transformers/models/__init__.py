"""One file per paper; importing this package registers every variant with timm."""

from timm.models import list_models as _timm_list_models

from .spikformer import Spikformer
from .spikingformer import Spikingformer

__all__ = ["Spikformer", "Spikingformer", "list_models"]

_MODULES = ("spikformer", "spikingformer")


def list_models(filter: str = "") -> list[str]:
    """Return the registered names of this package, sorted; `filter` may hold wildcards, as in timm's function."""
    return sorted(name for module in _MODULES for name in _timm_list_models(filter, module=module))
