"""Count operations and energy layer by layer, by both published methods, on a briefly trained network."""

import timm
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from braincog_transformers import analyze
from braincog_transformers.analysis.audit import audit, format_audit
from braincog_transformers.analysis.energy import METHODS, format_energy

torch.manual_seed(0)
images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
classes = torch.tensor(load_digits().target)
train, test = images[:1437], images[1437:]

model = timm.create_model("spikformer_digits", step=2, threshold=0.5)
for module in model.modules():
    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        module.momentum = 0.3  # averages settle within the few batches here
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
for batch in torch.randperm(len(train)).split(64):  # rates of an untrained network would mean nothing
    optimizer.zero_grad()
    cross_entropy(model(train[batch]), classes[batch]).backward()
    optimizer.step()

energy = {method: analyze(model, test.split(120), method=method) for method in METHODS}
print(format_energy(energy["spikingformer"]))

print("\nthe same network and data, in mJ:")
for method, found in energy.items():
    print(f"  {method:14} {found.energy:.6f}, as an ordinary network {found.ann_energy:.6f}")
print("they differ in what they leave out: biases, the classifier, and how whole numbers are charged\n")

print(format_audit(audit(model, test.split(120))).splitlines()[-1])
