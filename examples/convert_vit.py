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

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/convert_vit")
STEPS = 64
SOURCE_EPOCHS, LIMIT_EPOCHS = 30, 10

data = build_datasets("digits", "data")
x, y = default_collate(list(data.train))
x_test, y_test = default_collate(list(data.test))


def train(network: nn.Module, epochs: int, title: str) -> None:
    """Train with AdamW and a one-cycle schedule."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=epochs * -(-len(x) // 32))
    for _ in tqdm(range(epochs), desc=title, unit="epoch", leave=False):
        for chosen in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    network.eval()
