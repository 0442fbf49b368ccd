"""Show that the installed package works: import, one training step on embedded data, one test vector.

A script, for CI: `python tests/smoke.py FOLDER_OF_VECTORS`, run where the checkout is not on the path.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.datasets import load_digits

import braincog_transformers
from braincog_transformers.checkpoints import load_checkpoint


def train_one_step() -> tuple[float, float]:
    """Return the loss on 64 digits before and after one step of a small Spikformer."""
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.images[:64], dtype=torch.float32).unsqueeze(1) / 16
    y = torch.tensor(digits.target[:64])
    model = timm.create_model("spikformer_digits")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[1]


def reproduce(vector: Path) -> float:
    """Return the largest difference from the official network's outputs, both in float64."""
    with safe_open(vector, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
        kwargs = json.loads(file.metadata()["kwargs"])
    model = timm.create_model(
        "spikformer_4_384_cifar", img_size=kwargs["img_size_h"], embed_dim=kwargs["embed_dims"],
        depth=kwargs["depths"], num_heads=kwargs["num_heads"], step=kwargs["T"],
    )  # fmt: skip
    official = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "official.safetensors"
        save_file(official, path)
        load_checkpoint(model, path)
    with torch.no_grad():
        logits = model.double().eval()(tensors["input"].double())
    return (logits - tensors["logits_eval"]).abs().max().item()


def main() -> None:
    """Run the three checks and say what came of each."""
    version, place = braincog_transformers.__version__, Path(braincog_transformers.__file__).parent
    print(f"Python {sys.version.split()[0]}: braincog_transformers {version} imported from {place.name}")
    before, after = train_one_step()
    assert after < before, f"a training step must lower the loss; got {before} -> {after}"
    print(f"one training step: loss {before:.4f} -> {after:.4f}")
    difference = reproduce(Path(sys.argv[1]) / "spikformer_cifar.safetensors")
    assert difference < 1e-9, f"the official network's outputs must be met to 1e-9; they differ by {difference}"
    print(f"one test vector: within {difference:.1e} of the official network")


if __name__ == "__main__":
    main()
