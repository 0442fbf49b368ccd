"""The network with all that trains it, the progress of a run, and its plan."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from ..tasks import Meter
from .precision import Precision

__all__ = ["Learner", "Plan", "Progress", "UpdateRules"]


@dataclass
class Learner:
    """What a training step changes, and what computes it.

    Args:
        network: the network itself, whose weights are saved.
        optimizer: updates the network's parameters.
        precision: number formats of forward and backward.
        seed: seed of the generators below.
        rank: number of this process.
        scheduler: timm schedule of the learning rate by epoch.
        ema: moving average of the weights.
        train_call: the network as training calls it (compiled, exchanging gradients); the network itself by default.
        test_call: the network as evaluation calls it; the network itself by default.
    """

    network: nn.Module
    optimizer: Optimizer
    precision: Precision
    seed: int = 0
    rank: int = 0
    scheduler: Scheduler | None = None
    ema: ModelEmaV3 | None = None
    train_call: Callable[[Tensor], Tensor] | None = None
    test_call: Callable[[Tensor], Tensor] | None = None
    generators: dict[str, torch.Generator] = field(init=False)

    def __post_init__(self) -> None:
        self.train_call = self.network if self.train_call is None else self.train_call
        self.test_call = self.network if self.test_call is None else self.test_call
        device = next(self.network.parameters()).device
        self.generators = {
            # every rank draws the same steps and noise, else the weights of the ranks would part
            "steps": torch.Generator().manual_seed(self.seed),
            "noise": torch.Generator(device).manual_seed(self.seed + 1),
            "mixing": torch.Generator().manual_seed(self.seed + 2 + self.rank),
        }

    @property
    def learning_rate(self) -> float:
        """Return the greatest rate among the parameter groups."""
        return max(group["lr"] for group in self.optimizer.param_groups)


@dataclass
class Progress:
    """How far a run has come; everything here is saved.

    Args:
        epoch: the epoch that is under way, from 0.
        batch: batches of it that are done.
        updates: updates of the weights since the start.
        sums: of this epoch so far, on this rank: loss x samples, right answers, samples.
        rows: what was measured in each finished epoch.
        best: best value of the metric so far, and its epoch.
    """

    epoch: int = 0
    batch: int = 0
    updates: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    rows: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None

    def next_epoch(self) -> None:
        """Move to the first batch of the next epoch."""
        self.epoch += 1
        self.batch = 0
        self.sums = torch.zeros_like(self.sums)


@dataclass(frozen=True)
class UpdateRules:
    """What a training step does beside the descent along the gradient.

    Args:
        grad_accum: batches whose gradients make one update of the weights.
        clip_grad: largest norm of the gradient; None for no limit.
        noisy_grad: standard deviation of Gaussian noise added to each gradient.
        random_steps: greatest number of time steps T to draw from for each batch; 0 to leave T alone.
        step_outputs: ask the network for the logits of every time step.
        gives_target: call the network with the target too.
    """

    grad_accum: int = 1
    clip_grad: float | None = None
    noisy_grad: float = 0.0
    random_steps: int = 0
    step_outputs: bool = False
    gives_target: bool = False

    def updates_of(self, batches: int) -> int:
        """Return the updates that so many batches of an epoch make; the last may have fewer batches than the others."""
        return math.ceil(batches / self.grad_accum)


@dataclass(frozen=True)
class Plan:
    """What is run, for how long, and how it is judged.

    Args:
        epochs: number of epochs, cool-down included.
        rules: what a training step does.
        criterion: loss of training; takes the teacher's logits too where there is one.
        meter: makes what measures the network in an evaluation.
        metric: column of the rows that ranks epochs: `test_top1`, `ema_loss` and so on.
        decreasing: whether a smaller metric is a better one.
        max_steps: stop after so many updates of the weights; None for no limit.
        recovery_interval: updates between two recovery states; 0 for none.
        bn_mode: how ranks agree on running statistics.
        seed: seed of evaluation.
        about: numbers and texts that are saved with every state.
        teacher: what the network learns from beside the labels; None for labels alone.
        labelled: whether the network puts out logits of classes, whose accuracy is shown.
    """

    epochs: int
    rules: UpdateRules
    criterion: nn.Module
    meter: Callable[[], Meter]
    metric: str = "test_top1"
    decreasing: bool = False
    max_steps: int | None = None
    recovery_interval: int = 0
    bn_mode: str = ""
    seed: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    teacher: nn.Module | None = None
    labelled: bool = True

    def schedule_position(self, progress: Progress, batches: int) -> int:
        """Return the place on a schedule by update: those of the epochs before, and of this one so far.

        Args:
            progress: how far the run has come.
            batches: batches of an epoch.
        """
        return progress.epoch * self.rules.updates_of(batches) + self.rules.updates_of(progress.batch)

    def full(self, progress: Progress) -> bool:
        """Return whether the limit of updates is reached."""
        return self.max_steps is not None and progress.updates >= self.max_steps
