"""Search for an architecture (`--search`): the options, the table of the best candidates, and a file of them.

Nothing here needs torch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from ..data.registry import lookup
from ..errors import UserError, shown, unknown
from ..files import reason, write_text
from ..recipe import ENTRIES, arguments
from ..recipe.options import entry_problems, raise_all
from ..search import SPACES, Architecture, Evolution, Found, Space, Task, search
from .data_info import aligned

__all__ = ["search_lines"]

_WINDOW = (11.0, 12.0)
"""The official default, in millions of parameters."""
_DATASET = "cifar10"
_CHOICES = {
    "search_dims": "embed_dim",
    "search_depths": "depth",
    "search_ratios": "mlp_ratio",
    "search_heads": "num_heads",
}
_NUMBERS = ("population", "generations", "top_k", "mutations", "crossovers", "layer_prob", "size_prob")
_READ = {"config", "plugin", "dataset", "img_size", "event_size", "num_classes", "step", "seed"}
_WRITERS = {".json": partial(json.dumps, indent=2), ".yaml": partial(yaml.safe_dump, sort_keys=False)}


def search_lines(family: str, given: Mapping[str, Any]) -> list[str]:
    """Search, and return the table of the best candidates and a command that trains the first one.

    Args:
        family: what is searched for; there is one that has a search.
        given: options that were named, by name.

    Raises:
        UserError: for options without effect, values that make no sense, or a window without a candidate.
    """
    if family != "autost":
        raise unknown("family to search", family, ["autost"])
    _check(given)
    values = {name: given.get(name, entry.default) for name, entry in ENTRIES.items() if entry.group == "search"}
    chosen = {field: values[name] for name, field in _CHOICES.items() if values[name]}
    space = Space(**{**vars(SPACES[values["search_space"]]), **chosen})
    window, path = values["search_params"] or _WINDOW, values["search_file"]
    task, network = _task(given, values["search_patch"])
    how = Evolution(
        **{name: values[f"search_{name}"] for name in _NUMBERS}, seed=given.get("seed", ENTRIES["seed"].default)
    )
    found = search(space, window, task, how, progress=partial(tqdm, desc="search", unit="generation"))
    best = list(islice(_alike(found), values["search_results"]))
    if path:
        _write(path, _record(space, window, task, how, found, best))
    rows = [("rank", "GMAC/step", "params", "alike", "--model-kwargs")]
    for rank, (one, alike) in enumerate(best, 1):
        score, size = f"{one.macs / 1e9:#.4g}", f"{one.parameters / 1e6:.3f} M"
        rows.append((str(rank), score, size, str(alike), " ".join(_keywords(one.architecture, task))))
    command = [
        "python main.py --model autost",
        *arguments(network),
        "--model-kwargs",
        *_keywords(best[0][0].architecture, task),
    ]
    return [
        *aligned(rows),
        f"{len(found):,} candidates scored; alike: how many of them have this score and size (their heads differ, or "
        "their ratios, with the same sum)",
        *([f"written to {shown(path)}"] if path else []),
        f"train the first: {' '.join(command)}",
    ]


def _check(given: Mapping[str, Any]) -> None:
    """Raise `UserError` for an option out of its range, one that a search does not read, or a file of another kind."""
    raise_all([problem for name, value in given.items() for problem in entry_problems(ENTRIES[name], value)])
    if idle := [ENTRIES[name].flag for name in given if name not in _READ and ENTRIES[name].group != "search"]:
        raise UserError(f"{', '.join(idle[:4])}: without effect on --search; leave it out")
    path = Path(given.get("search_file", ".yaml"))
    if (path.suffix or path.name) not in _WRITERS:
        raise UserError(f"--search-file must end in {' or '.join(_WRITERS)}; got {shown(path)}")
    if not path.parent.is_dir():
        raise UserError(f"--search-file: no folder {shown(path.parent)}")


def _task(given: Mapping[str, Any], patch_size: int) -> tuple[Task, dict[str, Any]]:
    """Return what the network reads and answers, and the options by which a training reads and answers the same."""
    info = lookup(given.get("dataset", _DATASET))
    if info.kind == "sequence":
        raise UserError(
            f"--search: {info.name} holds sequences, which have no height and width; name another --dataset"
        )
    side, other = ("event_size", "img_size") if info.kind == "event" else ("img_size", "event_size")
    if other in given:
        raise UserError(f"{ENTRIES[other].flag}: {info.name} holds {info.kind} data; use {ENTRIES[side].flag}")
    size = (given[side],) * 2 if side in given else info.size
    if info.kind == "event" and size[0] != size[1]:
        raise UserError(f"--search: frames of {info.name} are not square; name a side by --event-size")
    classes = given.get("num_classes", info.num_classes)
    task = Task(img_size=size, in_chans=info.in_chans, num_classes=classes, patch_size=patch_size)
    sides = {side: size[0]} if side in given or info.kind == "event" else {}
    kept = {name: given[name] for name in ("num_classes", "step") if name in given}
    return task, {"dataset": info.name, **sides, **kept}


def _alike(found: Sequence[Found]) -> list[tuple[Found, int]]:
    """Return the first of all candidates with one score and size, and how many these are."""
    ranked = sorted(found, key=lambda one: (-one.macs, one.parameters))
    groups = (list(group) for _, group in groupby(ranked, key=lambda one: (one.macs, one.parameters)))
    return [(group[0], len(group)) for group in groups]


def _keywords(architecture: Architecture, task: Task) -> list[str]:
    """Write the network's arguments as `--model-kwargs` takes them."""
    values = {**architecture.arguments(), "patch_size": task.patch_size}
    if task.patch_size == Task.patch_size:
        del values["patch_size"]
    texts = {
        name: ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value for name, value in values.items()
    }
    return [f"{name}={text}" for name, text in texts.items()]


def _record(
    space: Space, window: Sequence[float], task: Task, how: Evolution, found: Sequence[Found], best: Sequence[tuple]
) -> dict[str, Any]:
    """Return what was searched, and the results; each one's `model` and `model_kwargs` are options of a recipe."""
    plain = {name: list(values) for name, values in vars(space).items()}
    return {
        "space": plain,
        "million_parameters": list(window),
        "task": {**asdict(task), "img_size": list(task.img_size)},
        "evolution": asdict(how),
        "scored": len(found),
        "results": [
            {
                "gmac_per_step": one.macs / 1e9,
                "parameters": one.parameters,
                "alike": alike,
                "model": "autost",
                "model_kwargs": _keywords(one.architecture, task),
            }
            for one, alike in best
        ],
    }


def _write(path: str, content: Mapping[str, Any]) -> None:
    file = Path(path)
    try:
        write_text(file, _WRITERS[file.suffix or file.name](content))
    except OSError as error:
        raise UserError(f"--search-file {shown(path)}: {reason(error)}") from error
