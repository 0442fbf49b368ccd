"""Speed up a network of BrainCog's own nodes without changing one spike."""

import time

import torch

from braincog_transformers import accelerate  # isort: skip - before braincog, which it makes importable
from braincog.base.node.node import LIFNode
from braincog.model_zoo.resnet import resnet18


def seconds_a_step(model: torch.nn.Module, x: torch.Tensor) -> float:
    """Return the shortest of three training steps, after one to warm up."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        model(x).sum().backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])


torch.manual_seed(0)
model = resnet18(
    num_classes=10, step=4, node_type=LIFNode, layer_by_layer=True, encode_type="direct", dataset="cifar10"
)
x = torch.rand(2, 3, 32, 32)

slow = seconds_a_step(model, x)
with torch.no_grad():
    before = model.eval()(x)

accelerate(model)
with torch.no_grad():
    after = model.eval()(x)
fast = seconds_a_step(model.train(), x)

print("outputs equal:", torch.equal(before, after))
print(f"a training step on the CPU: {slow * 1000:.0f} ms before, {fast * 1000:.0f} ms after")
