"""Optimizer and schedule from timm, and the rule that scales the learning rate with the batch."""

from dataclasses import asdict
from types import SimpleNamespace

from timm.optim import create_optimizer_v2, list_optimizers, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from ..errors import UserError, unknown
from ..recipe import keywords
from ..recipe.groups import OptimOptions, SchedOptions

__all__ = ["build_optimizer", "build_schedule", "scaled_rate"]

SECOND_ORDER = ("adahessian", "bfgs", "lbfgs")


def scaled_rate(rate: float, *, batch: int, base: int) -> float:
    """Return the learning rate for an effective batch.

    Args:
        rate: the learning rate at a batch of `base` samples.
        batch: samples of one training step, over all processes and accumulated batches.
        base: the batch that `rate` is meant for; 0 leaves it as it is.
    """
    return rate * batch / base if base else rate


def check_optimizer(opt: str) -> str:
    """Return timm's name of an optimizer; raise `UserError` for an unknown one, or one that the loop can't run."""
    name, known = opt.lower(), list_optimizers()
    if name not in known and name.removeprefix("lookahead_") not in known:
        raise unknown("optimizer", opt, known)
    if any(name.endswith(kind) for kind in SECOND_ORDER):
        raise UserError(f"--opt {opt}: it needs second derivatives or a closure, which the loop lacks.")
    return name


def build_optimizer(network: nn.Module, options: OptimOptions, *, lr: float) -> Optimizer:
    """Build timm's optimizer; parameters of one dimension, and those the network names, have no weight decay.

    Raises:
        UserError: for an unknown optimizer, or one that refuses its arguments.
    """
    name = check_optimizer(options.opt)
    given = optimizer_kwargs(SimpleNamespace(**asdict(options), lr=lr)) | {"opt": name} | keywords(options.opt_kwargs)
    try:
        return create_optimizer_v2(network, **given)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"--opt {options.opt} refuses its options: {error}") from error


def build_schedule(
    optimizer: Optimizer, options: SchedOptions, *, decreasing: bool, seed: int, updates: int
) -> tuple[Scheduler, int]:
    """Build timm's schedule, by epoch or by update of the weights.

    Args:
        optimizer: whose learning rates are set, to those of epoch 0 at once.
        options: names and numbers of the schedule.
        decreasing: whether what the plateau schedule watches should fall, as a loss, or rise, as an accuracy.
        seed: seed of the noise on the rate.
        updates: updates of an epoch.

    Returns:
        The schedule, and the number of epochs with its cool-down.

    Raises:
        UserError: when the schedule refuses its numbers.
    """
    # timm's poly reads its exponent from the decay rate
    rate = options.power if options.sched == "poly" else options.decay_rate
    given = SimpleNamespace(**asdict(options) | {"decay_rate": rate}, seed=seed)
    kwargs = scheduler_kwargs(given, decreasing_metric=decreasing)
    try:
        return create_scheduler_v2(optimizer, **kwargs, updates_per_epoch=updates)
    except (TypeError, ValueError, AssertionError, ArithmeticError) as error:
        raise UserError(f"--sched {options.sched} refuses its options: {error}") from error
