"""The papers' own networks that one method converts: ordinary networks, registered with timm, that are no zoo's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..models.registry import Entry, Paper, Variant, enter

__all__ = ["SOURCES", "Source", "register_source"]


@dataclass(frozen=True)
class Source:
    """One registered name.

    Args:
        method: the method that converts it, as in `convert(network, method)`.
        paper: where it is from.
        entry: its class, arguments and configurations.
    """

    method: str
    paper: Paper
    entry: Entry


SOURCES: dict[str, Source] = {}
"""Every such name, in the order of registration; `timm.create_model` builds it, ready to train."""


def register_source(
    cls: type,
    method: str,
    paper: Paper,
    variants: Mapping[str, Variant],
    *,
    first_conv: str,
    reduction: Callable[[Mapping[str, Any]], int] | None = None,
) -> None:
    """Register variants of a network with timm and in `SOURCES`.

    Args:
        cls: the network.
        method: the method that converts it.
        paper: where it is from.
        variants, first_conv, reduction: see `models.registry.enter`.

    Raises:
        UserError: for a name that another network has.
    """
    for name in variants:
        if name in SOURCES and SOURCES[name].entry.cls.__module__ != cls.__module__:
            raise UserError(f"{name}: {SOURCES[name].entry.cls.__name__} has this name; choose another")
    entries = enter(cls, variants, first_conv=first_conv, reduction=reduction)
    SOURCES.update({name: Source(method, paper, entry) for name, entry in entries.items()})
