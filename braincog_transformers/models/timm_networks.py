"""timm's own networks by name, whatever others have registered with timm under these names."""

import sys
from collections.abc import Callable
from dataclasses import replace

import timm
from timm.models import PretrainedCfg, list_models
from torch import nn

from ..errors import unknown

__all__ = ["find_timm", "list_timm"]


def list_timm() -> list[str]:
    """Return the names of timm's own networks."""
    return [name for name in list_models() if hasattr(timm.models, name)]


def find_timm(name: str, what: str = "model") -> tuple[Callable[..., nn.Module], PretrainedCfg]:
    """Find a network of timm's own, and the weights published for it.

    Both are taken from timm's modules: in its registry, importing braincog replaces resnet18 and the like.

    Args:
        name: of the network, with a dot and the tag of its weights where the default ones are not meant.
        what: the name stands for, for messages.

    Raises:
        UserError: for an unknown name or tag.
    """
    base, _, tag = name.partition(".")
    entry = getattr(timm.models, base, None)
    known = getattr(sys.modules.get(getattr(entry, "__module__", "")), "default_cfgs", {})
    if base not in known:
        raise unknown(what, name, list_timm())
    published = known[base].cfgs
    if tag and tag not in published:
        raise unknown(f"weights of {what} {base}", tag, published)
    tag = tag or known[base].tags[0]
    config = replace(published[tag], architecture=base, tag=tag or None)
    if config.hf_hub_id == "timm/":  # timm's registry completes it in the same way
        config = replace(config, hf_hub_id=f"timm/{base}.{tag}" if tag else f"timm/{base}")
    return entry, config
