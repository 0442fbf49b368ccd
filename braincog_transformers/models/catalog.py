"""What the zoo holds: names by filter, and one row of facts for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import timm
import torch
from timm.models import PretrainedCfg, get_arch_pretrained_cfgs

from ..errors import unknown
from .registry import REGISTERED

__all__ = ["ModelInfo", "describe", "list_models"]

# Tags of timm's configurations, with BrainCog's names of the same data.
_DATASETS = {
    "in1k": "imnet",
    "cifar10dvs": "dvsc10",
    "gesture": "dvsg",
    "ucf101dvs": "UCF101DVS",
    "hmdb51dvs": "HMDBDVS",
}
_KINDS = ("image", "event", "sequence")
_EVENT_TAGS = {"cifar10dvs", "gesture", "hardvs", "ncaltech101", "ncars", "ucf101dvs", "hmdb51dvs"}


@dataclass(frozen=True)
class ModelInfo:
    """Facts about one registered name.

    Args:
        name: registry name; with a tag where one configuration of several is meant.
        family: what its paper calls the network.
        venue: where the paper appeared, year last.
        ids: the paper, as "arXiv:...".
        code: address of the official code; "" if there is none.
        step: number of time steps T that it is built with.
        kind: what it is made for: "image", "event" (frames) or "sequence".
        input_size: `(C, H, W)`; of a sequence `(1, 1, features)`.
        parameters: trainable parameters.
        published: data sets and published top-1 accuracies in percent.
        fault: what the released code does wrong, where `as_released` reproduces it.
        status: "reconstruction" if no code was released, so that nothing can prove the network exact; "" otherwise.
    """

    name: str
    family: str
    venue: str
    ids: str
    code: str
    step: int
    kind: str
    input_size: tuple[int, int, int]
    parameters: int
    published: tuple[str, ...]
    fault: str
    status: str

    @property
    def year(self) -> int:
        return int(self.venue.split()[-1])


def _configurations(name: str) -> dict[str, PretrainedCfg]:
    """Return the configurations of a name by tag, the default first."""
    found = {full.partition(".")[2]: cfg for full, cfg in get_arch_pretrained_cfgs(name).items()}
    return {tag: found[tag] for tag in REGISTERED[name].variant.cfgs}


def _data(tag: str) -> str:
    """Return the part of a tag that names the data: `in1k` of `in1k_288`."""
    return tag.partition("_")[0]


def _kind(tag: str, cfg: PretrainedCfg) -> str:
    if cfg.input_size[1] == 1:
        return "sequence"
    return "event" if cfg.input_size[0] == 2 or _data(tag) in _EVENT_TAGS else "image"


def _matches(name: str, family: str, dataset: str, kind: str, year: int | None) -> bool:
    cfgs = _configurations(name)
    title, _, venue = next(iter(cfgs.values())).paper_name.rpartition(", ")
    sets = {alias for tag in map(_data, cfgs) for alias in (tag, _DATASETS.get(tag, tag))}
    return (
        family.lower() in ("", title.lower(), REGISTERED[name].cls.__name__.lower())
        and (not dataset or dataset in sets)
        and (not kind or kind in {_kind(tag, cfg) for tag, cfg in cfgs.items()})
        and (year is None or int(venue.split()[-1]) == year)
    )


def list_models(
    filter: str = "",
    *,
    family: str = "",
    dataset: str = "",
    kind: Literal["", "image", "event", "sequence"] = "",
    year: int | None = None,
) -> list[str]:
    """Return the registered names of this package, sorted.

    Args:
        filter: pattern with wildcards, as in timm's function.
        family: what a paper calls its network ("CML-Spikformer"), or the class here ("Spikformer").
        dataset: BrainCog's name of a data set that there are published settings for, or timm's tag.
        kind: of the input that a variant has published settings for: "image", "event" or "sequence".
        year: of the paper.

    Raises:
        UserError: for a kind that does not exist.
    """
    if kind not in ("", *_KINDS):
        raise unknown("kind", kind, _KINDS)
    names = (name for name in REGISTERED if fnmatchcase(name, filter or "*"))
    return sorted(name for name in names if _matches(name, family, dataset, kind, year))


def describe(name: str, *, by_tag: bool = False) -> Iterator[ModelInfo]:
    """Yield the facts of a name, which is built without memory to count its parameters.

    Args:
        name: registry name.
        by_tag: one row for each configuration, instead of one for the name.
    """
    cfgs = _configurations(name)
    tags = list(cfgs) if by_tag else [next(iter(cfgs))]
    for tag in tags:
        with torch.device("meta"):
            model = timm.create_model(f"{name}.{tag}" if tag else name)
        family, _, venue = cfgs[tag].paper_name.rpartition(", ")
        noted = [cfgs[tag]] if by_tag else cfgs.values()
        yield ModelInfo(
            name=f"{name}.{tag}" if by_tag and tag else name,
            family=family,
            venue=venue,
            ids=cfgs[tag].paper_ids,
            code=cfgs[tag].origin_url,
            step=model.step,
            kind=_kind(tag, cfgs[tag]),
            input_size=cfgs[tag].input_size,
            parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            published=tuple(note for cfg in noted for note in cfg.notes or ()),
            fault=getattr(model, "fault", ""),
            status=getattr(model, "status", ""),
        )
