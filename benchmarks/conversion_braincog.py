"""Rate coding beside BrainCog's own `Convertor`: accuracy after T steps of spiking networks made from the same source.

    python -m benchmarks.conversion_braincog

Networks of the three kinds that BrainCog's takes are trained on half of scikit-learn's digits and tested on the other
half, in some seconds each; accuracies are means over the seeds. Every side calibrates on the training half.
"""

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from braincog.base.conversion import Convertor
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from braincog_transformers.conversion import convert

from .harness import conditions, markdown

SOURCE, OURS, PAPER = "source", "ours", "ours, as Mueller et al."
BRAINCOG, BURSTS = "BrainCog", "BrainCog, bursts of up to 5"


class Residual(nn.Module):
    """Two convolutions and a shortcut.

    Args:
        inner: channels that it reads.
        outer: channels that it puts out.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()),
            *(nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.shortcut(x))


def perceptron() -> nn.Module:
    """Build a network of three linear layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def convolutions() -> nn.Module:
    """Build a network of two convolutions with max pooling, and two linear layers."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def residual() -> nn.Module:
    """Build a network of a convolution and three residual blocks, with mean pooling."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


NETWORKS = {"perceptron": perceptron, "convolutions": convolutions, "residual": residual}


def halves(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return pictures and classes to train on, and to test on."""
    digits = load_digits()
    order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(seed))
    x = torch.tensor(digits.images, dtype=torch.float32)[order, None] / 16
    y = torch.tensor(digits.target)[order]
    half = len(x) // 2
    return x[:half], y[:half], x[half:], y[half:]


def trained(build: Callable[[], nn.Module], x: Tensor, y: Tensor, epochs: int, seed: int) -> nn.Module:
    """Train a network."""
    torch.manual_seed(seed)
    network, batch = build().train(), 60
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.05)
    updates = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=updates)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            optimiser.zero_grad()
            F.cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def of_source(network: nn.Module, x: Tensor, y: Tensor, test: Tensor, step: int) -> Tensor:
    """Return the logits of the source as those after each step."""
    return network(test).expand(step, -1, -1)


def of_braincog(network: nn.Module, x: Tensor, y: Tensor, test: Tensor, step: int, gamma: int = 1) -> Tensor:
    """Return the sum of the logits after each step, `(T, B, K)`, of what BrainCog's makes; it has no call for them."""
    spiking = Convertor([(x, y)], device="cpu", gamma=gamma)(copy.deepcopy(network))
    return torch.stack([spiking(test) for _ in range(step)]).cumsum(0)


def of_ours(network: nn.Module, x: Tensor, y: Tensor, test: Tensor, step: int, **options: float) -> Tensor:
    """Return the mean logits after each step of what rate coding makes."""
    return convert(network, "rate", step=step, data=x, allow_silent=True, **options).forward_sequence(test)


SIDES = {
    SOURCE: of_source,
    OURS: of_ours,
    PAPER: partial(of_ours, percentile=0.99, start=0.0, strict=True),
    BRAINCOG: of_braincog,
    BURSTS: partial(of_braincog, gamma=5),
}


@torch.no_grad()
def accuracies(network: nn.Module, data: Sequence[Tensor], steps: Sequence[int]) -> dict[str, Tensor]:
    """Return the top-1 accuracy in percent of every side after some numbers of steps."""
    x, y, test, classes = data
    found = {}
    for name, side in SIDES.items():
        logits = side(network, x, y, test, steps[-1])
        found[name] = torch.stack([100 * (logits[t - 1].argmax(-1) == classes).double().mean() for t in steps])
    return found


def compare(build: Callable[[], nn.Module], steps: Sequence[int], seeds: int, epochs: int) -> Mapping[str, Tensor]:
    """Train networks of one kind, and return the mean accuracies of every side after some numbers of steps."""
    runs = []
    for seed in range(seeds):
        data = halves(seed)
        with torch.enable_grad():
            network = trained(build, *data[:2], epochs, seed)
        runs.append(accuracies(network, data, steps))
    return {name: torch.stack([run[name] for run in runs]).mean(0) for name in SIDES}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--step", type=int, default=64, help="steps at most; a power of 2")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args(argv)
    steps = [2**power for power in range(args.step.bit_length()) if 2**power <= args.step]
    print(", ".join(f"{key} {value}" for key, value in conditions().items()))
    for name in args.networks:
        found = compare(NETWORKS[name], steps, args.seeds, args.epochs)
        rows = [[side, *(f"{value:.1f}" for value in values)] for side, values in found.items()]
        print(f"\n**{name}**\n\n{markdown(['top-1 in percent', *(f'T={t}' for t in steps)], rows)}", flush=True)


if __name__ == "__main__":
    main()
