"""Evaluate a checkpoint of an official repository: `evaluate_checkpoint.py FILE MODEL DATASET [DATA_DIR]`.

Without these arguments it makes its own file: it trains a small network for one epoch on digits of 8 x 8 pixels, and
saves it with the names of Spikformer's repository.
"""

import re
import sys
from pathlib import Path

import timm
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate

from braincog_transformers.checkpoints import identify
from braincog_transformers.cli import main
from braincog_transformers.data.build import build_datasets

OFFICIAL = (
    (r"^patch_embed\.stages\.0\.(conv|bn)", r"patch_embed.proj_\1"),
    (r"^patch_embed\.stages\.(\d)\.(conv|bn)", r"patch_embed.proj_\2\1"),
    (r"^patch_embed\.rpe\.(conv|bn)", r"patch_embed.rpe_\1"),
    (r"\.(q|k|v|proj)\.(linear|bn)\.", r".\1_\2."),
    (r"\.(fc1|fc2)\.(linear|bn)\.", r".\1_\2."),
    (r"^blocks\.", "block."),
)


def write_demonstration(path: Path) -> None:
    """Train `spikformer_digits` for an epoch and save it as the official script would."""
    torch.manual_seed(0)
    images, classes = default_collate(list(build_datasets("digits", "data").train))
    model = timm.create_model("spikformer_digits", threshold=0.5, step=2)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.3  # averages settle within the few batches here
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for batch in torch.randperm(len(images)).split(64):
        optimizer.zero_grad()
        cross_entropy(model(images[batch]), classes[batch]).backward()
        optimizer.step()
    state = {}
    for name, value in model.state_dict().items():
        for pattern, official in OFFICIAL:
            name = re.sub(pattern, official, name)
        if not name.endswith(("threshold", "alpha")):  # official neurons keep these in code
            state[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 0, "state_dict": state}, path)
    print(f"wrote {path}, with tensors named like {', '.join(list(state)[:2])} and {list(state)[-4]}")


if len(sys.argv) > 3:
    file, model, dataset, *data_dir = sys.argv[1:]
    arguments = ["--data-dir", *data_dir] if data_dir else []
else:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/evaluate_checkpoint")
    file, model, dataset = str(folder / "official.pth.tar"), "spikformer_digits", "digits"
    arguments = ["--threshold", "0.5", "--step", "2", "--output", str(folder)]
    write_demonstration(Path(file))

fits = [fit.name for fit in identify(file) if not fit.differences]
print("the file fits", ", ".join(fits) or "no registered network")
sys.exit(main(["--eval", "--initial-checkpoint", file, "--model", model, "--dataset", dataset, *arguments]))
