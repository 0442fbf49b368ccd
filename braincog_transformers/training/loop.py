"""The loop: `fit` goes through the epochs, `train_one_epoch` through their batches, `evaluate` measures."""

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NonFiniteLoss, UserError
from ..files import reason
from ..tasks import Meter
from .diagnose import bad_batch, has_sound_sum, require_finite
from .distributed import Ranks, share_batch_norm
from .generators import isolated
from .journal import Journal
from .learner import Learner, Plan, Progress
from .loaders import Loaders, ToDevice
from .network import own_figures
from .saving import Checkpoints
from .state import collect
from .stopping import StopRequest
from .update import update_weights

__all__ = ["evaluate", "fit", "train_one_epoch"]


def _averages(sums: Tensor, ranks: Ranks) -> tuple[float, float, float]:
    """Return mean loss, accuracy in percent, and the number of samples, over all ranks."""
    loss, right, count = ranks.sum(sums).tolist()
    return (loss / count, 100.0 * right / count, count) if count else (float("nan"), float("nan"), 0.0)


def _ask_for_steps(network: nn.Module, wanted: bool) -> None:
    """Ask for the logits of every step or for their mean; an ordinary network has no steps."""
    if hasattr(network, "output_steps"):
        network.output_steps = wanted


@torch.no_grad()
def evaluate(
    call: Callable[[Any], Any], loader: Any, *, meter: Meter, to_device: ToDevice, ranks: Ranks,
    autocast: Callable, seed: int = 0, most: int | None = None, stop: StopRequest | None = None,
) -> dict[str, float] | None:  # fmt: skip
    """Measure a network over all ranks; the generators of training stay untouched.

    Args:
        call: the network in evaluation mode, or its compiled form.
        loader: gives this rank's share of the samples.
        meter: runs the network on each batch and measures, as `meters.ClassMeter`.
        to_device: brings a batch to the device.
        ranks: the processes of the run.
        autocast: returns the context of a forward pass.
        seed: seed of random encodings.
        most: look at so many batches only.
        stop: give up when asked to.

    Returns:
        The meter's figures; None when given up.

    Raises:
        NonFiniteLoss: for an input or a loss that is infinite or not a number, on any rank.
    """
    sound, stop = [], _own_stop(stop, ranks)
    with isolated(seed):
        for batch in islice(stop.until(loader), most):
            if stop.requested:
                return None
            x, target = to_device(*batch)
            sound.append(has_sound_sum(x))
            with autocast():
                meter.update(call, x, target)
        if stop.cut_short:
            return None
    _require_sound(sound, loader, ranks)
    return meter.compute(ranks.gather)


def _require_sound(sound: list[Tensor], loader: Any, ranks: Ranks) -> None:
    """Raise `NonFiniteLoss` where the inputs of an evaluation are not finite, which spikes would hide."""
    suspects = () if not sound else (~torch.stack(sound)).nonzero().flatten().tolist()
    found = next(filter(None, (bad_batch(loader, number) for number in suspects)), None)
    if ranks.any(found is not None):
        raise NonFiniteLoss(f"evaluation: {found or 'a batch on another rank holds values that are not finite'}.")


def _own_stop(stop: StopRequest | None, ranks: Ranks) -> StopRequest:
    """Return a process's own request to stop; one among several never stops alone, they agree after each update."""
    return stop if stop is not None and ranks.world_size == 1 else StopRequest()


def train_one_epoch(
    learner: Learner, progress: Progress, *, loaders: Loaders, plan: Plan, ranks: Ranks, journal: Journal,
    save_midway: Callable[[], object], stop: StopRequest,
) -> bool:  # fmt: skip
    """Go through the rest of an epoch's batches.

    Returns:
        Whether the epoch came to its end; not so when asked to stop, or when the limit of updates was reached before.
    """
    learner.network.train()
    _ask_for_steps(learner.network, plan.rules.step_outputs)
    total, mixer = len(loaders.train), loaders.mixer_of(progress.epoch)
    progress.sums = progress.sums.to(loaders.to_device.device)
    loaders.train.set_epoch(progress.epoch, skip_batches=progress.batch)
    journal.begin_epoch(progress.epoch, done=progress.batch, total=total)
    own = _own_stop(stop, ranks)
    batches = own.until(loaders.train if progress.batch < total else ())
    while group := list(islice(batches, plan.rules.grad_accum)):
        progress.sums += update_weights(
            learner, group, update=progress.updates, criterion=plan.criterion, to_device=loaders.to_device,
            rules=plan.rules, ranks=ranks, mixer=mixer, teacher=plan.teacher, labelled=plan.labelled,
        )  # fmt: skip
        progress.batch += len(group)
        progress.updates += 1
        if learner.scheduler is not None:
            learner.scheduler.step_update(plan.schedule_position(progress, total))
        journal.advance(len(group))
        if journal.due(progress.batch, len(group)):
            loss, top1, _ = _averages(progress.sums, ranks)
            figures = {"loss": loss, "top1": top1} if plan.labelled else {"loss": loss}
            journal.show(batch=progress.batch, total=total, **figures, lr=learner.learning_rate)
        if ranks.any(stop.requested) or (plan.full(progress) and progress.batch < total):
            return False
        if plan.recovery_interval and progress.updates % plan.recovery_interval == 0:
            save_midway()
    return not own.cut_short


def _measure(
    learner: Learner, progress: Progress, *, loaders: Loaders, plan: Plan, ranks: Ranks,
    stop: StopRequest | None, rate: Callable[[], float] | None, most: int | None = None,
) -> dict[str, float] | None:  # fmt: skip
    """Evaluate the network and its average; return the row of this epoch, or None when asked to stop."""
    _ask_for_steps(learner.network, False)
    if plan.rules.random_steps:
        learner.network.set_attr("step", plan.rules.random_steps)
    share_batch_norm(learner.network, ranks, mode=plan.bn_mode)
    learner.network.eval()
    train_loss, train_top1, _ = _averages(progress.sums, ranks)
    row = {"epoch": progress.epoch, "train_loss": train_loss}
    row |= {"train_top1": train_top1} if plan.labelled else {}
    row["lr"] = learner.learning_rate
    calls = {"test": learner.test_call}
    if learner.ema is not None and plan.metric.startswith("ema"):
        calls["ema"] = learner.ema.module
    for name, call in calls.items():
        found = evaluate(
            call, loaders.test, meter=plan.meter(), to_device=loaders.to_device, ranks=ranks,
            autocast=learner.precision.autocast, seed=plan.seed, most=most, stop=stop,
        )  # fmt: skip
        if found is None:
            return None
        row |= {f"{name}_{key}": value for key, value in found.items()}
    row |= own_figures(learner.network)
    if rate is not None:
        with isolated(plan.seed):
            row["firing_rate"] = ranks.share(rate())
    return row


def _finish_epoch(learner: Learner, progress: Progress, row: dict[str, float], *, plan: Plan, better: Callable) -> None:
    progress.rows.append(row)
    if progress.best is None or math.isnan(progress.best) or better(row[plan.metric], progress.best):
        progress.best, progress.best_epoch = row[plan.metric], progress.epoch
    if learner.scheduler is not None:
        learner.scheduler.step(progress.epoch + 1, row[plan.metric])
    progress.next_epoch()


def _write(write: Callable[[], object], folder: Path, ranks: Ranks) -> None:
    """Have the first process write a checkpoint, and all of them stop where it can't."""
    error = None
    if ranks.first:
        try:
            write()
        except OSError as problem:
            way_out = (
                f"what was saved before is sound: make room and go on with --resume {folder}."
                if folder.is_dir()
                else "the folder was removed while the run wrote to it."
            )
            error = f"no checkpoint can be written to {str(folder)!r} ({reason(problem)}); {way_out}"
    if (error := ranks.share(error)) is not None:
        raise UserError(error)


def fit(
    learner: Learner, progress: Progress, *, loaders: Loaders, plan: Plan, checkpoints: Checkpoints, ranks: Ranks,
    journal: Journal, stop: StopRequest, rate: Callable[[], float] | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Train for the rest of the epochs; evaluate and save after each.

    Args:
        learner: what learns.
        progress: where the run stands; moved along.
        loaders: training and test samples.
        plan: what is run, for how long, and how it is judged.
        checkpoints: where states are saved.
        ranks: the processes of the run.
        journal: prints and writes how the run goes.
        stop: asked between two updates; `progress` then stands there, saved, and fit returns.
        rate: measures a mean firing rate for each epoch's row.

    Returns:
        The rows of all epochs; the last one covers a part of its epoch when the limit of updates ended it.

    Raises:
        NonFiniteLoss: when a loss, a gradient, a weight or an input is no longer finite.
        UserError: when no checkpoint can be written.
    """

    def save(write: Callable[[dict], object]) -> None:
        require_finite(learner.network, ranks, when=f"after step {progress.updates}")
        state = collect(learner, progress, ranks, about=plan.about)
        _write(lambda: write(state), checkpoints.folder, ranks)

    around = {"loaders": loaders, "plan": plan, "ranks": ranks, "stop": stop}
    require_finite(learner.network, ranks, when="before the first step")
    if progress.updates == 0:  # a fault in evaluation shows before the first epoch, not after it
        _measure(learner, progress, **around, rate=None, most=2)
    while progress.epoch < plan.epochs and not plan.full(progress):
        ended = train_one_epoch(
            learner, progress, **around, journal=journal, save_midway=lambda: save(checkpoints.save_midway)
        )
        *_, seen = _averages(progress.sums, ranks)
        speed = journal.end_epoch(batches=progress.batch, samples_per_batch=seen / max(progress.batch, 1))
        row = None if ranks.any(stop.requested) else _measure(learner, progress, **around, rate=rate)
        if row is None or not ended:
            save(checkpoints.save_midway)
        if row is None:
            break
        if not ended:
            save(checkpoints.save_last)
            journal.write_row([*progress.rows, row], speed=speed)
            return [*progress.rows, row]
        _finish_epoch(learner, progress, row, plan=plan, better=checkpoints.cmp)
        journal.write_row(progress.rows, speed=speed)
        save(lambda state: checkpoints.save_epoch(state, metric=plan.metric))
    return progress.rows
