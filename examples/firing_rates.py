"""Train briefly, measure the firing rate of each layer, record the spikes of one sample, and draw them."""

import sys
from pathlib import Path

import timm
import torch
from sklearn.datasets import load_digits

import braincog_transformers  # noqa: F401 - registers the models with timm
from braincog_transformers.analysis.firing import firing_rates, format_table
from braincog_transformers.analysis.pictures.visualize import visualize
from braincog_transformers.analysis.recorder import record

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/firing_rates")
images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
classes = torch.tensor(load_digits().target)

torch.manual_seed(0)
model = timm.create_model("spikformer_digits")  # or any other network with BrainCog nodes
for module in model.modules():
    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        module.momentum = 0.3  # averages settle within the few batches here
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for batch in torch.randperm(1437).split(64):
    loss = torch.nn.functional.cross_entropy(model(images[batch]), classes[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

model.eval()
test = images[1437:]
print(format_table(firing_rates(model, test.split(64))))

with torch.no_grad(), record(model) as records:
    model(test[:1])
name, first = next(iter(records.items()))
print(f"{name} recorded: {tuple(first.spikes.shape)} (steps, samples, channels, height, width)")

for path in visualize(model, test[:64], folder):
    print("wrote", path)
