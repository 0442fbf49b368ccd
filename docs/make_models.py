"""Write docs/models.md and README.md's table of families from the registry: `python docs/make_models.py`.

With `--check` nothing is written, and the status is 1 if a file is stale.
"""

import sys
from functools import cache
from itertools import groupby
from pathlib import Path

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from braincog_transformers.models import ModelInfo, describe, list_models
from braincog_transformers.models.registry import REGISTERED
from braincog_transformers.models.task_networks import TASK_NETWORKS

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- models -->", "<!-- end of models -->"
INTRODUCTION = """# Models

Written by `python docs/make_models.py` from the registry; `python main.py --list-models` prints a shorter table.

- **Parameters**: the exact number of trainable ones, without those that an official class declares and never uses.
- **GMACs**: multiply-accumulates of the dense layers and attention products for one sample and all T steps, counted
  with torch's `FlopCounterMode`. The first convolution of an image counts once. In a spiking network most of them are
  additions; their number depends on the firing rates. The transforms of Attention-free Spikformer are not in it.
- **Top-1**: the best published accuracy, in percent, of the paper or its repository. T is as in the table unless noted.
  None was repeated here.
- **Status**: a *reconstruction* is a network without released code. It has what its paper says; the rest is our choice,
  and [reconstructions.md](reconstructions.md) names each. All other networks match test vectors of their official code.
"""
ABSENT = """## Not here

| paper | why |
|---|---|
| TE-Spikformer (Neurocomputing 2024) | no code, and nothing public describes its layers; no model has its name |
"""


def operations(name: str, info: ModelInfo) -> float:
    """Return the billions of multiply-accumulates of one forward pass of one sample, all steps."""
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        shapes = {"image": info.input_size, "event": (info.step, *info.input_size)}
        x = torch.zeros(1, *shapes.get(info.kind, (info.step, info.input_size[-1])))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() / 2e9


@cache
def families() -> dict[str, list[ModelInfo]]:
    """Return a description of each configuration by family, oldest first, without aliases."""
    names = [name for name in list_models() if not REGISTERED[name].alias_of]
    infos = sorted((info for name in names for info in describe(name, by_tag=True)), key=lambda i: (i.year, i.family))
    return {family: list(group) for family, group in groupby(infos, key=lambda info: info.family)}


def _module(name: str) -> str:
    """Return the module of a network, after which its diagram is called."""
    return REGISTERED[name.partition(".")[0]].cls.__module__.rpartition(".")[2]


def details() -> str:
    """Return the text of docs/models.md."""
    lines = [INTRODUCTION]
    for family, infos in families().items():
        first = infos[0]
        code = f"official code: <{first.code}>" if first.code else "no official code"
        lines += [f"## {family}", "", f"{first.venue}, {first.ids}; {code}", ""]
        if (ROOT / "img" / "architecture" / f"{_module(first.name)}.png").exists():
            lines += [f"[Diagram](../img/architecture/{_module(first.name)}.png) of a network of this family", ""]
        if first.status:
            lines += [f"Status: **{first.status}**, see [reconstructions.md](reconstructions.md).", ""]
        if fault := next((info.fault for info in infos if info.fault), ""):
            lines += [f"`as_released=True` reproduces a fault of the released code: {fault}.", ""]
        lines += ["| name | input | T | parameters | GMACs | top-1, published |", "|---|---|---|---|---|---|"]
        for info in infos:
            size = " x ".join(map(str, info.input_size))
            lines.append(
                f"| `{info.name}` | {size} | {info.step} | {info.parameters:,} | {operations(info.name, info):.3f} | "
                f"{', '.join(info.published)} |"
            )
        lines.append("")
    lines += [*other_tasks(), ABSENT]
    aliases = ", ".join(f"`{name}` is `{e.alias_of}`" for name, e in REGISTERED.items() if e.alias_of)
    return "\n".join([*lines, f"BrainCog's own names: {aliases}.", ""])


def other_tasks() -> list[str]:
    """Return the lines of the section on networks that are no classifiers."""
    lines = ["## Networks for other tasks", ""]
    columns = ("name", "task", "paper", "input", "T", "parameters", "published")
    lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name, found in TASK_NETWORKS.items():
        with torch.device("meta"):
            model = timm.create_model(name)
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        cfgs = list(found.entry.variant.cfgs.values())
        size = " x ".join(map(str, cfgs[0]["input_size"]))
        paper = found.paper
        title = f"[{paper.name}](https://github.com/{paper.code})" if paper.code else paper.name
        notes = ", ".join(note for cfg in cfgs for note in cfg["notes"] or ())
        source = f"{title}, {paper.venue}, {paper.ids}"
        steps = getattr(model, "step", "none")
        lines.append(f"| `{name}` | `{found.task}` | {source} | {size} | {steps} | {count:,} | {notes} |")
    return [*lines, ""]


def families_table() -> str:
    """Return the lines of README.md's table: one row for each paper."""
    lines = ["| paper | year | variants | parameters | best published top-1 |", "|---|---|---|---|---|"]
    for family, infos in families().items():
        names = {info.name.partition(".")[0] for info in infos}
        published = [info for info in infos if info.published] or infos
        sizes = [info.parameters / 1e6 for info in published]
        best = ", ".join(_best([note for info in published for note in info.published]))
        first = infos[0]
        paper = f"[{family}]({first.code})" if first.code else family
        marked = f", [{first.status}](docs/reconstructions.md)" if first.status else ""
        lines.append(
            f"| {paper} ({first.ids}){marked} | {first.year} | {len(names)} | "
            f"{min(sizes):.1f} to {max(sizes):.1f} M | {best} |"
        )
    return "\n".join(lines)


def _best(notes: list[str]) -> list[str]:
    """Keep the best accuracy of each data set, from notes as `registry.cfg` describes them."""
    best: dict[str, float] = {}
    for note in notes:
        words = note.split(" (")[0].split()
        title, top1 = " ".join(words[:-1]), float(words[-1])
        best[title] = max(best.get(title, 0.0), top1)
    return [f"{title} {top1:g}" for title, top1 in best.items()]


def main() -> int:
    readme = ROOT / "README.md"
    head, rest = readme.read_text(encoding="utf-8").split(START)
    wanted = {
        ROOT / "docs" / "models.md": details(),
        readme: "\n".join([head + START, families_table(), END]) + rest.split(END)[1],
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run python docs/make_models.py", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
