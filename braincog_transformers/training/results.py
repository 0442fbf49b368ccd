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
from ..recipe import Options, arguments
from ..version import __version__
from .assembly import Parts
from .machine import processor

__all__ = ["repeating", "training_record", "write_results"]

FILE = "results.json"


def repeating(options: Options) -> str:
    """Return the command that repeats a run, whatever recipe it came from."""
    return shlex.join(["python", "main.py", *arguments(options.changed())])


def training_record(folder: Path) -> dict[str, Any] | None:
    """Return what a training has written into a folder, or None."""
    path = folder / FILE
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if found.get("kind") == "training" else None


def write_results(
    folder: Path, parts: Parts, *, results: dict[str, float], checkpoint: str | None, trained: bool,
    pictures: Sequence[str],
) -> Path:  # fmt: skip
    """Write `results.json` into the folder of a run and return its path.

    An evaluation in the folder of a training is noted beside it, under `evaluation`.

    Args:
        folder: of the run.
        parts: what the run was made of.
        results: final figures by name, as in `summary.csv`.
        checkpoint: file of the weights that they belong to; None for random ones.
        trained: whether they come from a training.
        pictures: paths of what was drawn.
    """
    drawn = [os.path.relpath(path, folder) for path in pictures]
    outcome = {
        "kind": "training" if trained else "evaluation",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": repeating(parts.options),
        "results": results,
        "checkpoint": checkpoint,
    }
    if not trained and (earlier := training_record(folder)) is not None:
        content = earlier | {"evaluation": outcome, "pictures": list(dict.fromkeys(earlier["pictures"] + drawn))}
    else:
        content = outcome | _facts(folder, parts) | {"pictures": drawn}
    write_text(folder / FILE, json.dumps(content, indent=1))
    return folder / FILE


def _facts(folder: Path, parts: Parts) -> dict[str, Any]:
    """Describe network, data, settings and machine."""
    options, network, bundle = parts.options, parts.network, parts.bundle
    return {
        "experiment": folder.name,
        "model": {
            "name": options.model.model,
            **_paper(options.model.model),
            "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
            "step": network.step,
            "input_shape": list(bundle.input_shape),
            "num_classes": bundle.num_classes,
        },
        "dataset": bundle.info.name,
        "samples": {"train": len(bundle.train), "test": len(bundle.test)},
        "options": options.to_dict(),
        "changed": options.changed(),
        "environment": _environment(parts.ranks.device),
    }


def _paper(model: str) -> dict[str, Any]:
    """Say where a network of the zoo comes from; a network of the user's own has no paper here."""
    name = model.partition(".")[0]
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
