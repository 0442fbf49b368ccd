"""What a run is given: where samples come from, and what is done with them for how long."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from .learner import Place, Progress
from .step import Mixer, StepRules

__all__ = ["Feed", "Plan", "updates_per_epoch"]


def updates_per_epoch(batches: int, grad_accum: int) -> int:
    """Return the optimizer steps that so many batches make; the last may have fewer batches than the others."""
    return -(-batches // grad_accum)


@dataclass(frozen=True)
class Feed:
    """Where samples come from and how they are prepared.

    Args:
        train: loader with `set_epoch(epoch, skip_batches=)` and a length.
        test: loader that gives this rank's share of the test samples.
        place: brings a batch to the device.
        mixer: mixes training samples; None for none.
        mixing_ends: epoch from which nothing is mixed; 0 for never.
    """

    train: Any
    test: Any
    place: Place
    mixer: Mixer | None = None
    mixing_ends: int = 0

    def mixer_of(self, epoch: int) -> Mixer | None:
        """Return the mixer of an epoch; without it the criterion smooths the labels as the mixer did."""
        return None if self.mixing_ends and epoch >= self.mixing_ends else self.mixer


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
    rules: StepRules
    criterion: nn.Module
    test_criterion: nn.Module
    metric: str = "test_top1"
    max_steps: int | None = None
    recovery_interval: int = 0
    bn_mode: str = ""
    seed: int = 0
    about: dict[str, Any] | None = None
    teacher: nn.Module | None = None

    def updates(self, progress: Progress, batches: int) -> int:
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
