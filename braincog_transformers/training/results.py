"""`results.json`: what a run was, what came of it, on which machine, and the command that repeats it."""

import json
import os
import platform
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..files import write_text
from ..models import REGISTERED, describe
from ..models.task_networks import TASK_NETWORKS
from ..recipe import Options, arguments
from ..report import write_report
from ..version import __version__
from .assembly import Parts
from .generators import isolated
from .journal import Journal
from .machine import processor
from .visualization import visualize_run

__all__ = ["conclude", "repeating", "run_record", "write_results"]

FILE = "results.json"


def repeating(options: Options) -> str:
    """Return the command that repeats a run, whatever recipe it came from."""
    return shlex.join(["python", "main.py", *arguments(options.changed())])


def run_record(folder: Path) -> dict[str, Any] | None:
    """Return what a training or a conversion has written into a folder, or None."""
    path = folder / FILE
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if found.get("kind") in ("training", "conversion") else None


def write_results(
    folder: Path, parts: Parts, *, results: dict[str, float], checkpoint: str | None, kind: str,
    pictures: Sequence[str],
) -> Path:  # fmt: skip
    """Write `results.json` into the folder of a run and return its path.

    An evaluation in the folder of a training or a conversion is noted beside it, under `evaluation`.

    Args:
        folder: of the run.
        parts: what the run was made of.
        results: final figures by name, as in `summary.csv`.
        checkpoint: file of the weights that they belong to; None for random ones.
        kind: of run: training, evaluation or conversion.
        pictures: paths of what was drawn.
    """
    drawn = [os.path.relpath(path, folder) for path in pictures]
    outcome = {
        "kind": kind,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": repeating(parts.options),
        "results": results,
        "checkpoint": checkpoint,
    }
    if kind == "evaluation" and (earlier := run_record(folder)) is not None:
        content = earlier | {"evaluation": outcome, "pictures": list(dict.fromkeys(earlier["pictures"] + drawn))}
    else:
        content = outcome | _facts(folder, parts) | {"pictures": drawn}
    write_text(folder / FILE, json.dumps(content, indent=1))
    return folder / FILE


def conclude(
    parts: Parts, figures: dict[str, float], journal: Journal, *, checkpoint: str | None, kind: str = "evaluation",
    pictures: Sequence[Path] = (),
) -> dict[str, Any]:  # fmt: skip
    """Draw and print what was asked for, and write down what came of the run; on the first rank only.

    Args:
        parts: of the run.
        figures: final ones by name.
        journal: of the run.
        checkpoint: see `write_results`.
        kind: see `write_results`.
        pictures: that the run has drawn already.
    """
    with isolated(parts.options.run.seed):
        rate, drawn = visualize_run(parts, journal)
    paths = [str(path) for path in (*pictures, *drawn)]
    figures = figures | ({} if rate is None else {"firing_rate": rate})
    write_results(journal.folder, parts, results=figures, checkpoint=checkpoint, kind=kind, pictures=paths)
    if parts.options.analysis.report:
        journal.say(f"report {write_report([journal.folder])}")
    return {"folder": str(journal.folder), "pictures": paths}


def _facts(folder: Path, parts: Parts) -> dict[str, Any]:
    """Describe network, data, settings and machine."""
    options, network, bundle, task = parts.options, parts.network, parts.bundle, parts.task
    return {
        "experiment": folder.name,
        "model": {
            "name": options.model.model,
            **_paper(options.model.model),
            "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
            "step": parts.shape.step or None,
            "input_shape": list(bundle.input_shape),
            "num_classes": bundle.num_classes,
        },
        **({} if task is None else {"task": {"name": task.name, "metric": task.metric, "decreasing": task.decreasing}}),
        "dataset": bundle.info.name,
        "samples": {"train": len(bundle.train), "test": len(bundle.test)},
        "options": options.to_dict(),
        "changed": options.changed(),
        "environment": _environment(parts.ranks.device),
    }


def _paper(model: str) -> dict[str, Any]:
    """Say where a network of the zoo comes from; a network of the user's own has no paper here."""
    name = model.partition(".")[0]
    if name in TASK_NETWORKS:
        paper = TASK_NETWORKS[name].paper
        return {"family": paper.name, "paper": paper.venue, "ids": paper.ids, "code": paper.code}
    if name not in REGISTERED:
        return {}
    info = next(describe(name))
    return {"family": info.family, "paper": info.venue, "ids": info.ids, "code": info.code,
            "published": list(info.published), "status": info.status}  # fmt: skip


def _environment(device: torch.device) -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "timm", "braincog", "numpy")}
    cuda = device.type == "cuda"
    return {
        "braincog_transformers": __version__,
        "python": platform.python_version(),
        **packages,
        "platform": platform.platform(),
        "processor": f"{processor()}, {os.cpu_count()} logical cores",
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
    }
