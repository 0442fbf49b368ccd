"""Convert a small vision transformer of timm by all four methods: accuracy and energy over T, as table and picture."""

import sys
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate
from tqdm import tqdm

from braincog_transformers.analysis.conversion import ConversionRow, format_comparison, steps_to_show
from braincog_transformers.analysis.energy import dense_energy, energy_over_steps
from braincog_transformers.analysis.pictures.conversion import plot_comparison
from braincog_transformers.analysis.pictures.plots import save
from braincog_transformers.conversion import METHODS, convert, prepare
from braincog_transformers.data.build import build_datasets

STEPS = 64
OPTIONS = {"sta": {"gelu_hidden": 4}}  # enough for ReLU, and much faster than the 64 that GELU gets
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/convert_vit")
digits = build_datasets("digits", "data")
x, y = default_collate(list(digits.train))
x_test, y_test = default_collate(list(digits.test))


def train(network: nn.Module, epochs: int, title: str) -> None:
    """Train with AdamW, in batches of 32, on a one-cycle schedule."""
    torch.manual_seed(0)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=epochs * -(-len(x) // 32))
    for _ in tqdm(range(epochs), desc=title, unit="epoch", leave=False):
        for chosen in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    network.eval()


def row(name: str, logits: Tensor, limit: Tensor, energy: float, step: int | None = None) -> ConversionRow:
    """Compare answers with the classes and with the limit's answers."""
    right, same = (100 * (logits.argmax(1) == other).float().mean().item() for other in (y_test, limit.argmax(1)))
    return ConversionRow(name, step, right, cross_entropy(logits, y_test).item(), same, energy)


torch.manual_seed(0)
source = timm.create_model(
    "vit_tiny_patch16_224", img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=64, depth=2, num_heads=4,
    mlp_ratio=2, act_layer="relu",
)  # fmt: skip
train(source, 30, "source")
folder.mkdir(parents=True, exist_ok=True)
torch.save(source.state_dict(), folder / "source.pth")

calibration, measured, shown = x[:512].split(128), [x_test[:16]], steps_to_show(STEPS)
found = {}
for method in METHODS:
    limit = prepare(source, method, data=calibration, **OPTIONS.get(method, {}))
    if METHODS[method].trains:
        train(limit, 10, f"{method}, limit")
    spiking = convert(limit, method, step=STEPS, data=calibration)
    with torch.no_grad():
        logits, wanted = source(x_test), limit(x_test)
        answers = torch.cat([spiking.forward_sequence(part, progress=True) for part in x_test.split(90)], dim=1)
    energies = energy_over_steps(spiking, measured, steps=shown)
    found[method] = [
        row("source", logits, wanted, dense_energy(source, measured)),
        row("limit", wanted, wanted, dense_energy(limit, measured)),
        *(
            row("spiking", answers[step - 1], wanted, done.energy, step)
            for step, done in zip(shown, energies, strict=True)
        ),
    ]
    print(f"{method}: limit {found[method][1].top1:.1f} %, T = {STEPS} {found[method][-1].top1:.1f} %", flush=True)

print(format_comparison(found))
print("wrote", save(plot_comparison(found), folder / "conversion.png"))
