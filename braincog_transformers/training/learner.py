"""What learns: the network with its optimizer, schedule, average, precision and own generators."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from .precision import Precision

__all__ = ["Learner", "Progress", "seeded"]


def seeded(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a new generator on the device."""
    return torch.Generator(device=device).manual_seed(seed)


@dataclass
class Learner:
    """What an optimizer step changes, and what computes it.

    Args:
        network: the plain network, whose weights are saved.
        optimizer: updates the network's parameters.
        precision: number formats of forward and backward.
        seed: seed of the generators below.
        noise_device: device of the gradients.
        scheduler: timm schedule of the learning rate by epoch.
        ema: moving average of the weights.
        train_call: the network as training calls it (compiled, exchanging gradients); the plain one by default.
        test_call: the network as evaluation calls it; the plain one by default.
    """

    network: nn.Module
    optimizer: Optimizer
    precision: Precision
    seed: int = 0
    rank: int = 0
    noise_device: str = "cpu"
    scheduler: Scheduler | None = None
    ema: ModelEmaV3 | None = None
    train_call: Callable[[Tensor], Tensor] | None = None
    test_call: Callable[[Tensor], Tensor] | None = None
    generators: dict[str, torch.Generator] = field(init=False)

    def __post_init__(self) -> None:
        self.train_call = self.network if self.train_call is None else self.train_call
        self.test_call = self.network if self.test_call is None else self.test_call
        self.generators = {
            # every rank draws the same steps and noise, else the weights of the ranks would part
            "steps": seeded(self.seed),
            "noise": seeded(self.seed + 1, self.noise_device),
            "mixing": seeded(self.seed + 2 + self.rank),
        }

    @property
    def learning_rate(self) -> float:
        """Return the greatest rate among the parameter groups."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    @contextmanager
    def step_outputs(self, wanted: bool) -> Iterator[None]:
        """Let the network return the logits of every step for a while."""
        if wanted:
            self.network.output_steps = True
        try:
            yield
        finally:
            if wanted:
                self.network.output_steps = False


@dataclass
class Progress:
    """How far a run has come; everything here is saved.

    Args:
        epoch: the epoch that is under way, from 0.
        batch: batches of it that are done.
        step: optimizer steps done since the start.
        sums: of this epoch so far, on this rank: loss x samples, right answers, samples.
        rows: what was measured in each finished epoch.
        best: best value of the metric so far, and its epoch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    rows: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None

    def next_epoch(self) -> None:
        """Move to the first batch of the next epoch."""
        self.epoch += 1
        self.batch = 0
        self.sums = torch.zeros_like(self.sums)
