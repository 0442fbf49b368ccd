"""From a table of variants to timm's registry."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import nn

from ..errors import UserError

__all__ = ["REGISTERED", "Entry", "Paper", "Variant", "cfg", "cifar", "enter", "events", "flat", "imagenet", "register"]


@dataclass(frozen=True)
class Paper:
    """Where an architecture comes from.

    Args:
        name: what the paper calls the network.
        venue: where it appeared, year last, as "ICLR 2023".
        ids: as "arXiv:2209.15425".
        code: official repository, "owner/name" on GitHub; "" if there is none.
    """

    name: str
    venue: str
    ids: str
    code: str


@dataclass(frozen=True)
class Variant:
    """One registered name.

    Args:
        args: arguments of the network's constructor.
        cfgs: default configurations by tag, as `cfg` builds them; the first is the default.
    """

    args: Mapping[str, Any]
    cfgs: Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """What is known of a registered name without building it.

    Args:
        cls: the network.
        variant: its arguments and configurations.
        alias_of: the variant's own name, where this is BrainCog's name for it.
    """

    cls: type
    variant: Variant
    alias_of: str = ""


REGISTERED: dict[str, Entry] = {}
"""Every name of this package, in the order of registration."""


def cfg(
    paper: Paper, input_size: tuple[int, int, int], num_classes: int, published: str = "", **kwargs: Any
) -> dict[str, Any]:
    """Build a default configuration of timm's.

    Args:
        paper: the source.
        input_size: `(C, H, W)`.
        num_classes: classes K.
        published: data set and published top-1 accuracy in percent, then in brackets what the configuration does not
            say, as "CIFAR10-DVS 80.0 (T=16)"; kept in `notes`.
        **kwargs: further fields of timm's `PretrainedCfg`.
    """
    neutral = {"mean": (0.0,) * input_size[0], "std": (1.0,) * input_size[0]} if input_size[0] != 3 else {}
    return {
        "input_size": input_size,
        "num_classes": num_classes,
        "fixed_input_size": True,
        "crop_pct": 1.0,
        "classifier": "head",
        "paper_ids": paper.ids,
        "paper_name": f"{paper.name}, {paper.venue}",
        "origin_url": paper.code and f"https://github.com/{paper.code}",
        "notes": (published,) if published else None,
        **neutral,
        **kwargs,
    }


def _by_tag(
    paper: Paper, input_size: tuple[int, int, int], sets: Mapping[str, tuple[str, int, Any]], **kwargs: Any
) -> dict[str, dict[str, Any]]:
    """Build configurations by tag from title, classes and published top-1 accuracy in percent of each data set: ""
    where none was published, None where there is no such network."""
    return {
        tag: cfg(paper, input_size, classes, f"{title} {top1}" if top1 else "", **kwargs)
        for tag, (title, classes, top1) in sets.items()
        if top1 is not None
    }


def cifar(paper: Paper, cifar10: float | str | None, cifar100: float | str | None) -> dict[str, dict[str, Any]]:
    """Build the configurations of a CIFAR network, see `_by_tag`."""
    sets = {"cifar10": ("CIFAR10", 10, cifar10), "cifar100": ("CIFAR100", 100, cifar100)}
    return _by_tag(paper, (3, 32, 32), sets, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


def imagenet(paper: Paper, top1: float | str, **kwargs: Any) -> dict[str, dict[str, Any]]:
    """Build the configuration of an ImageNet network, see `_by_tag`."""
    return _by_tag(paper, (3, 224, 224), {"in1k": ("ImageNet", 1000, top1)}, **kwargs)


def events(paper: Paper, cifar10_dvs: str | None, gesture: str | None, side: int = 128) -> dict[str, dict[str, Any]]:
    """Build the configurations of an event network, see `_by_tag`."""
    sets = {"cifar10dvs": ("CIFAR10-DVS", 10, cifar10_dvs), "gesture": ("DVS128 Gesture", 11, gesture)}
    return _by_tag(paper, (2, side, side), sets)


def flat(depth: int, dim: int, heads: int | Sequence[int], **args: Any) -> dict[str, Any]:
    """Build the arguments of a network without stages: depth, width and heads, by which papers name it, and others."""
    return {"depth": depth, "embed_dim": dim, "num_heads": heads, **args}


def _build(cls: type, name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """Build a registered variant through timm; a keyword that `cls` does not know raises."""
    weights = resolve_pretrained_cfg(name, kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay"))
    if pretrained and not weights.has_weights:
        raise UserError(
            f"{name}: no official weights were released for download, so there is nothing to fetch; train it, or load "
            "a file with checkpoints.load_checkpoint (--initial-checkpoint on the command line)."
        )
    if kwargs.get("features_only") and kwargs.get("feature_cls", "getter") != "getter":
        raise UserError(
            f"{name}: feature_cls must be 'getter', since other classes of timm's would give T*B maps for B samples; "
            f"got {kwargs['feature_cls']!r} (leave it out)"
        )
    # out_indices=None: see TimmCalls.prune_intermediate_layers
    features = {"feature_cls": "getter", "out_indices": None}
    return build_model_with_cfg(cls, name, pretrained, feature_cfg=features, **kwargs)


def _entry_point(name: str, entry: Entry) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return _build(entry.cls, entry.alias_of or name, pretrained, **{**entry.variant.args, **kwargs})

    shown = ", ".join(f"{key}={value!r}" for key, value in entry.variant.args.items())
    build.__name__ = build.__qualname__ = name
    build.__module__ = entry.cls.__module__
    build.__doc__ = (
        f"Build `{entry.alias_of}` under BrainCog's name for it."
        if entry.alias_of
        else f"Build {entry.cls.__name__}({shown})."
    )
    return build


def _pool_size(entry: Entry, tag: str, reduction: Callable[[Mapping[str, Any]], int] | None) -> dict[str, Any]:
    """Return timm's field for height and width of what a pyramid pools; tokens have no such field."""
    if reduction is None:
        return {}
    _, height, width = entry.variant.cfgs[tag]["input_size"]
    factor = reduction(entry.variant.args)
    return {"pool_size": (height // factor, width // factor)}


def register(
    cls: type,
    variants: Mapping[str, Variant],
    *,
    first_conv: str,
    reduction: Callable[[Mapping[str, Any]], int] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Register variants of a spiking network with timm and here, see `enter`."""
    REGISTERED.update(enter(cls, variants, first_conv=first_conv, reduction=reduction, aliases=aliases))


def enter(
    cls: type,
    variants: Mapping[str, Variant],
    *,
    first_conv: str,
    reduction: Callable[[Mapping[str, Any]], int] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> dict[str, Entry]:
    """Register variants with timm, and make each name a function of the module that defines `cls`.

    Args:
        cls: the network.
        variants: by registry name.
        first_conv: name of the first convolution, for timm's conversion of input channels; a configuration may have
            its own.
        reduction: for a pyramid, maps a variant's arguments to the input's side over that of the last maps.
        aliases: further names, each with the variant that it stands for.

    Returns:
        What is known of each name.

    Raises:
        UserError: for a name that a network of another module has, or that is given twice.
    """
    module, aliases = sys.modules[cls.__module__], aliases or {}
    entries = {name: Entry(cls, variant) for name, variant in variants.items()}
    entries |= {alias: Entry(cls, variants[name], alias_of=name) for alias, name in aliases.items()}
    for name in entries:
        if name in REGISTERED and REGISTERED[name].cls.__module__ != cls.__module__:
            raise UserError(f"{name}: {REGISTERED[name].cls.__name__} has this name; choose another")
        if name in variants and name in aliases:
            raise UserError(f"{name}: the same name stands for a variant and for an alias")
    configurations = generate_default_cfgs(
        {
            f"{name}.{tag}" if tag else name: {"first_conv": first_conv, **_pool_size(entry, tag, reduction), **found}
            for name, entry in entries.items()
            for tag, found in entry.variant.cfgs.items()
        }
    )
    module.default_cfgs = {**getattr(module, "default_cfgs", {}), **configurations}
    for name, entry in entries.items():
        entry_point = _entry_point(name, entry)
        setattr(module, name, entry_point)
        register_model(entry_point)
    return entries
