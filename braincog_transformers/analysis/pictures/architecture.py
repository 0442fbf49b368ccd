"""Divide what `dataflow.follow` saw into the parts that a diagram shows: equal ones folded, each a graph of boxes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from braincog.base.node.node import BaseNode
from torch import nn

from ...layers.products import HammingProduct, SoftmaxProduct, SpikeMatmul, SpikeSum, SpikingProduct
from ..recorder import unwrap
from .dataflow import INPUT, Call, follow, least

__all__ = ["Box", "Part", "describe_architecture"]

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
_PRODUCTS = (SpikeMatmul, SpikeSum)
_NORMS = nn.modules.batchnorm._NormBase
_NAMES = {
    "AvgPool2d": "mean-pool",
    "GatedSum": "gated sum",
    "MaxPool2d": "max-pool",
    "AttentionMatmul": "matrix product",
    "SpikeMatmul": "matrix product",
    "SpikeSum": "sum of spikes",
    "x": "\u00d7",
    "join": "concatenate",
}
_SIZES = re.compile(r"\s*[\d\u00d7/.]+")


@dataclass
class Box:
    """A layer or a sum, with the normalisation and pooling behind it.

    Args:
        role: "weighted", "neuron", "product", "join" or "other"; the colour.
        head: what it is, "Conv 3x3, BN".
        detail: its name in the part, and its sizes.
        calls: what it holds, in order.
        sources: indices of boxes; -1 is what comes into the part.
    """

    role: str
    head: str
    detail: str
    calls: list[Call]
    sources: list[int] = field(default_factory=list)


@dataclass
class Part:
    """A module whose inside is drawn once, for all that equal it and follow each other.

    Args:
        names: the equal modules, in `model.named_modules()`.
        title: class of the module.
        boxes: of the first of them; what flows is the least spike-like of all.
        members: names of all calls, of all equal modules.
        parameters: of one of them.
        shape, kind: of what leaves.
        pattern: what parts of different sizes have in common if one drawing does for both.
        signature: what equal parts have in common.
    """

    names: list[str]
    title: str
    boxes: list[Box]
    members: list[str]
    parameters: int
    shape: tuple[int, ...]
    kind: str
    pattern: tuple
    signature: tuple


def _describe(call: Call) -> tuple[str, str, str]:
    """Return the role of a call, what it is, and its sizes."""
    module = call.module
    if isinstance(module, nn.Linear):
        return "weighted", "Linear", f"{module.in_features} \u2192 {module.out_features}"
    if isinstance(module, _WEIGHTED):
        depthwise = module.groups == module.in_channels > 1
        stride = f" /{module.stride[0]}" if module.stride[0] > 1 else ""
        head = ("Depthwise " if depthwise else "Conv ") + "\u00d7".join(map(str, module.kernel_size)) + stride
        grouped = f", {module.groups} groups" if module.groups > 1 and not depthwise else ""
        return "weighted", head + grouped, f"{module.in_channels} \u2192 {module.out_channels}"
    if isinstance(module, BaseNode):
        name, levels = type(module).__name__.removesuffix("Node"), getattr(module, "levels", 1)
        fires = f", 0 \u2026 {levels}" if levels > 1 else ""
        return "neuron", f"{name}  \u03b8 {float(module.get_thres().mean()):g}{fires}", ""
    if isinstance(module, SpikingProduct):
        return "product", f"$Q\\,K^T V\\;\\times$ {module.scale:g}", ""
    if isinstance(module, SoftmaxProduct):
        return "join", f"softmax$\\,(Q\\,K^T \\times\\,${module.scale:g}$)\\;V$", ""
    if isinstance(module, HammingProduct):
        return "join", "softmax$\\,(1 - D)\\;V$", ""
    product = isinstance(module, _PRODUCTS) or call.op == "matmul"
    name = "BN" if isinstance(module, _NORMS) else call.op or type(module).__name__
    return "product" if product else "join" if call.joins else "other", _NAMES.get(name, name), ""


def _common_prefixes(name: str) -> Iterable[str]:
    """Yield the modules around a call, outermost first, and itself."""
    words = name.split(".")
    return (".".join(words[:count]) for count in range(1, len(words) + 1))


def _part_names(calls: Iterable[Call]) -> dict[str, str]:
    """Map each call to its part: the outermost module that joins tensors itself, or has nothing that does inside."""
    calls = list(calls)
    joining = {call.owner for call in calls if call.joins} - {""}
    within = {prefix for owner in joining for prefix in _common_prefixes(owner)}
    return {
        call.name: next((p for p in _common_prefixes(call.name) if p in joining or p not in within), call.name)
        for call in calls
    }


def _boxes(prefix: str, calls: list[Call], readers: dict[str, list[str]]) -> list[Box]:
    """Put calls into boxes: what is neither layer, neuron nor sum joins the only one that it reads."""
    boxes: list[Box] = []
    place: dict[str, int] = {}
    first_words = {call.name.removeprefix(prefix).strip(".").partition(".")[0] for call in calls if call.module}
    prefix = f"{prefix}.{first_words.pop()}" if len(first_words) == 1 and len(calls) > 3 else prefix
    for call in calls:
        role, head, sizes = _describe(call)
        source = call.sources[0] if call.sources else ""
        if role == "other" and source in place and len(readers[source]) == 1:
            box = boxes[place[source]]
            box.head += f", {head}"
            box.calls.append(call)
        else:
            detail = f"{_local(prefix, call)}  {sizes}" if role == "weighted" else ""
            boxes.append(Box(role, head, detail, [call]))
        place[call.name] = place.get(source) if call is not boxes[-1].calls[0] else len(boxes) - 1
    for box in boxes:
        box.sources = list(dict.fromkeys(place.get(source, -1) for source in box.calls[0].sources))
    return boxes


def _local(prefix: str, call: Call) -> str:
    """Name a layer within its part; a bare number takes the part's last word along."""
    local = call.name.removeprefix(prefix).strip(".").rpartition(".")[0] or prefix
    return f"{prefix.rpartition('.')[2]}.{local}" if local.isdecimal() else local


def _part(prefix: str, module: nn.Module | None, calls: list[Call], readers: dict[str, list[str]]) -> Part:
    boxes = _boxes(prefix, calls, readers)
    title = type(module).__name__ if module is not None else calls[0].op
    parameters = sum(p.numel() for p in module.parameters()) if module is not None else 0
    pattern = (title, *((_SIZES.sub("", box.head), tuple(box.sources)) for box in boxes))
    last = calls[-1]
    inside = tuple((box.head, *((c.name.removeprefix(prefix), c.shape) for c in box.calls)) for box in boxes)
    signature = (pattern, inside, parameters)
    members = [call.name for call in calls]
    return Part([prefix], title, boxes, members, parameters, last.shape, last.kind, pattern, signature)


def _merge(part: Part, other: Part) -> None:
    """Add an equal part to another, which shows of all that flows what is least spike-like."""
    for box, its in zip(part.boxes, other.boxes, strict=True):
        box.calls = [replace(a, kind=least(a.kind, b.kind)) for a, b in zip(box.calls, its.calls, strict=True)]
    part.names += other.names
    part.members += other.members
    part.kind = least(part.kind, other.kind)


def describe_architecture(model: nn.Module) -> tuple[Call, list[Part]]:
    """Run a copy of a network once and describe what it did, equal parts in a row folded.

    Args:
        model: a registered network; it is left as it was.

    Returns:
        The input, and the parts in the order of execution.
    """
    seen = follow(model)
    modules = dict(unwrap(model).named_modules())
    names = _part_names(call for call in seen.values() if call.name != INPUT)
    grouped: dict[str, list[Call]] = {}
    readers: dict[str, list[str]] = {}
    for name, part in names.items():
        grouped.setdefault(part, []).append(seen[name])
        for source in seen[name].sources:
            readers.setdefault(source, []).append(name)
    parts: list[Part] = []
    for prefix, calls in grouped.items():
        part = _part(prefix, modules.get(prefix), calls, readers)
        if parts and parts[-1].signature == part.signature:
            _merge(parts[-1], part)
        else:
            parts.append(part)
    return seen[INPUT], parts
