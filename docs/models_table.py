"""Write the table of models into README.md from the registry: `python docs/models_table.py`."""

from pathlib import Path

import timm
import torch

from braincog_transformers import list_models
from timm.models import get_arch_pretrained_cfgs

README = Path(__file__).resolve().parents[1] / "README.md"
START, END = "<!-- models -->", "<!-- end of models -->"


def table() -> list[str]:
    """Return the table's lines, one model each; aliases are left to the command line."""
    lines = ["| model | paper | input | T | parameters | top-1, published |", "|---|---|---|---|---|---|"]
    for name in list_models():
        with torch.device("meta"):  # sizes without memory
            model = timm.create_model(name)
        if name in ("spikformer", "spikformer_dvs"):
            continue
        parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) / 1e6
        size = " x ".join(map(str, model.default_cfg["input_size"]))
        cfgs = list(get_arch_pretrained_cfgs(name).values())
        published = ", ".join(note.replace(" (T=16)", "") for cfg in cfgs for note in cfg.notes or ())
        paper = cfgs[0].paper_ids if published else ""
        lines.append(f"| `{name}` | {paper} | {size} | {model.step} | {parameters:.2f} M | {published} |")
    return lines


def updated(text: str) -> str:
    """Return the README with the table between its two marks."""
    head, rest = text.split(START)
    return "\n".join([head + START, *table(), END]) + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
