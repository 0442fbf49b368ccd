"""Write a new attention in thirty lines. Firing rates, energy and the audit need no further code for it."""

import timm
import torch
from einops import rearrange
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from braincog_transformers import analyze
from braincog_transformers.analysis.energy import format_energy
from braincog_transformers.analysis.firing import firing_rates, overall_rate
from braincog_transformers.layers.linear import LinearBNNode
from braincog_transformers.layers.products import SpikingProduct


class AxialAttention(nn.Module):
    """Each token attends to those in its row of the image, or in its column."""

    def __init__(self, dim, num_heads, width, along, node):
        super().__init__()
        line, other = ("x", "y") if along == "row" else ("y", "x")
        self.folded, self.lines = "b (y x) (h d)", f"b h {other} {line} d"
        self.sizes = {"h": num_heads, "x": width}
        self.q, self.k, self.v = (LinearBNNode(dim, dim, node=node) for _ in range(3))
        self.product = SpikingProduct(scale=0.25)  # as a module of layers.products, its operations are counted
        self.attn_node = node()
        self.proj = LinearBNNode(dim, dim, node=node)

    def forward(self, x):
        """Map tokens `(T*B, N, C)` to spikes of the same shape."""
        q, k, v = (rearrange(p(x), f"{self.folded} -> {self.lines}", **self.sizes) for p in (self.q, self.k, self.v))
        x = rearrange(self.product(q, k, v), f"{self.lines} -> {self.folded}")
        return self.proj(self.attn_node(x))


torch.manual_seed(0)
images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
classes = torch.tensor(load_digits().target)

model = timm.create_model("spikformer_digits", step=2, threshold=0.5)
for block, along in zip(model.blocks, ("row", "column"), strict=True):
    block.attn = AxialAttention(64, 4, width=8, along=along, node=model.neurons.constructor(step=2))

for module in model.modules():
    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        module.momentum = 0.3  # averages settle within the few batches here
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
for batch in torch.randperm(1437).split(64):
    optimizer.zero_grad()
    cross_entropy(model(images[batch]), classes[batch]).backward()
    optimizer.step()

test = images[1437:]
with torch.no_grad():
    right = (model.eval()(test).argmax(1) == classes[1437:]).float().mean()
rows = firing_rates(model, test.split(120))
print(f"after one epoch: accuracy {right:.1%}, {overall_rate(rows):.3f} spikes per neuron and step")
table = format_energy(analyze(model, test.split(120))).splitlines()
print("\n".join(line for line in table if line.startswith(("energy", "layer", "blocks.0.attn", "all"))))
