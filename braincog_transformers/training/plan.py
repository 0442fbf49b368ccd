"""What is done with the batches of a run, and for how long."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from .learner import Progress

__all__ = ["Plan", "UpdateRules", "updates_per_epoch"]


def updates_per_epoch(batches: int, grad_accum: int) -> int:
    """Return the optimizer steps that so many batches make; the last may have fewer batches than the others."""
    return -(-batches // grad_accum)


@dataclass(frozen=True)
class UpdateRules:
    """What a step does beside the plain descent.

    Args:
        grad_accum: batches whose gradients make one step.
        clip_grad: largest norm of the gradient; None for no limit.
        noisy_grad: standard deviation of Gaussian noise added to each gradient.
        random_steps: greatest number of time steps T to draw from for each batch; 0 to leave T alone.
        step_outputs: ask the network for the logits of every step.
    """

    grad_accum: int = 1
    clip_grad: float | None = None
    noisy_grad: float = 0.0
    random_steps: int = 0
    step_outputs: bool = False


@dataclass(frozen=True)
class Plan:
    """What is run, for how long, and how it is judged.

    Args:
        epochs: number of epochs, cool-down included.
        rules: what an optimizer step does.
        criterion: loss of training; takes the teacher's logits too where there is one.
        test_criterion: loss of evaluation, on class indices.
        metric: column of the rows that ranks epochs: `test_top1`, `ema_loss` and so on.
        max_steps: stop after so many optimizer steps; None for no limit.
        recovery_interval: optimizer steps between two recovery states; 0 for none.
        bn_mode: how ranks agree on running statistics.
        seed: seed of evaluation.
        about: plain values that are saved with every state.
        teacher: what the network learns from beside the labels; None for labels alone.
    """

    epochs: int
    rules: UpdateRules
    criterion: nn.Module
    test_criterion: nn.Module
    metric: str = "test_top1"
    max_steps: int | None = None
    recovery_interval: int = 0
    bn_mode: str = ""
    seed: int = 0
    about: dict[str, Any] | None = None
    teacher: nn.Module | None = None

    def schedule_position(self, progress: Progress, batches: int) -> int:
        """Return the place on a schedule by optimizer step: those of the epochs before, and of this one so far.

        Args:
            progress: how far the run has come.
            batches: batches of an epoch.
        """
        before = progress.epoch * updates_per_epoch(batches, self.rules.grad_accum)
        return before + updates_per_epoch(progress.batch, self.rules.grad_accum)

    def full(self, progress: Progress) -> bool:
        """Return whether the limit of steps is reached."""
        return self.max_steps is not None and progress.step >= self.max_steps
