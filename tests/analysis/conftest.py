"""A two-neuron network on BrainCog's own nodes whose spikes can be worked out by hand."""

import pytest
import torch
from braincog.base.node.node import IFNode
from torch import Tensor, nn


class SmallNet(nn.Module):
    """Fire through two integrate-and-fire nodes of threshold 0.9 and classify the mean of the steps.

    `late` is declared before `early` but runs after it, and `unused` never runs.
    """

    def __init__(self, step: int = 4, layer_by_layer: bool = True) -> None:
        super().__init__()
        self.step, self.layer_by_layer = step, layer_by_layer
        settings = {"threshold": 0.9, "step": step, "layer_by_layer": layer_by_layer}
        self.late, self.early, self.unused = (IFNode(**settings) for _ in range(3))
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Classify currents `(B, 2)`, the same at every step."""
        for node in (self.late, self.early):
            node.mem, node.spike = 0.0, 0.0
        if self.layer_by_layer:
            features = self.late(0.5 * self.early(x.repeat(self.step, 1))).unflatten(0, (self.step, -1))
        else:
            features = torch.stack([self.late(0.5 * self.early(x)) for _ in range(self.step)])
        return self.head(features.mean(0))


@pytest.fixture(scope="session")
def small_net():
    """Give the network's class."""
    return SmallNet


@pytest.fixture(scope="session")
def currents():
    """Give one sample: the first neuron fires at each step, the second at every other."""
    return torch.tensor([[1.0, 0.5]])
