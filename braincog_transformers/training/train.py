"""Training in the folder of a run: from the options, or from the state that --resume names, to the last checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from ..analysis.recorder import is_spiking
from ..checkpoints import load_content
from ..errors import Interrupted, UserError
from ..files import write_text
from ..recipe import ENTRIES, Options
from .assembly import Parts, build_learner
from .class_names import compare_classes, difference_of_classes
from .folder import continues
from .generators import isolated, seed_everything
from .journal import Journal, name_left_out, open_tensorboard
from .learner import Learner, Plan, Progress
from .loop import fit
from .machine import fast_in_bfloat16
from .saving import Checkpoints, find_state
from .state import difference, restore, saved_options
from .stopping import StopRequest
from .visualization import draw_first_batch, mean_rate

__all__ = ["FREE", "Trained", "how_to_go_on", "start_from_resumed", "train_in", "write_options"]

FREE = frozenset(name for name, entry in ENTRIES.items() if not entry.metadata["numbers"])
"""Options that a run may be resumed with other values of."""


@dataclass(frozen=True)
class Trained:
    """A training that has come to its end.

    Args:
        network: with the weights of the last epoch, or their moving average where epochs are ranked by that.
        rows: of all epochs.
        progress: how far it came.
        checkpoints: what was saved.
        journal: of the run.
        metric: column of the rows that ranks epochs.
    """

    network: nn.Module
    rows: list[dict[str, float]]
    progress: Progress
    checkpoints: Checkpoints
    journal: Journal
    metric: str


def start_from_resumed(parts: Parts) -> None:
    """Take the weights alone of the run that --resume names."""
    options, say = parts.options, parts.ranks.say
    path, content = find_state(options.run.resume, say)
    say(load_content(parts.network, content, path, ema=options.run.use_ema))
    compare_classes(content, path, parts.bundle.classes, options.data, refuses=False, say=say)


def _find_continued(parts: Parts) -> tuple[Path, dict[str, Any]]:
    """Return the file and the state that --resume continues, of a run with the same options and classes."""
    options = parts.options
    path, state = find_state(options.run.resume, parts.ranks.say)
    if changed := difference(saved_options(state, Options().to_dict(), path=path), options.to_dict(), free=FREE):
        raise UserError(
            f"--resume {options.run.resume}: {changed}; a run continues with its own options "
            "(-c its args.yaml), or start a new one from its weights with --no-resume-opt."
        )
    if other := difference_of_classes(state, parts.bundle.classes):
        raise UserError(f"--resume {options.run.resume}: {other}; bring the classes back to what they were")
    return path, state


def train_in(folder: Path, parts: Parts) -> Trained:
    """Train the network of a run, from its start or from where it was interrupted, and print the final figures.

    Raises:
        UserError: for a state that belongs to another run, or nothing to train.
        NonFiniteLoss: when the loss is no longer finite.
        Interrupted: when the user stopped the run, which is saved.
    """
    options, ranks, goes_on = parts.options, parts.ranks, continues(parts.options)
    path, state = _find_continued(parts) if goes_on else (None, None)
    learner, plan = build_learner(parts)
    checkpoints = Checkpoints(folder, decreasing=plan.decreasing, history=options.run.checkpoint_hist)
    progress = Progress(epoch=options.sched.start_epoch or 0)
    seed_everything(options.run.seed + ranks.rank)
    if goes_on:
        restore(state, learner, progress, ranks, path=path)
        checkpoints.continue_from(state, metric=plan.metric)
    elif progress.epoch:
        learner.scheduler.step(progress.epoch)
        learner.scheduler.step_update(plan.schedule_position(progress, len(parts.loaders.train)))
    del state
    journal = _journal(parts, folder, plan)
    _announce(parts, learner, plan, progress, journal)
    if options.run.save_images:
        with isolated(options.run.seed), journal.optional("pictures of the first batch"):
            draw_first_batch(parts, journal)
    # an ordinary network that is to be converted has no spikes yet
    spiking = not options.convert.convert and is_spiking(parts.network)
    rate = mean_rate(parts, journal.say) if spiking else None
    with StopRequest(patient=ranks.world_size > 1) as stop:
        rows = fit(
            learner, progress, loaders=parts.loaders, plan=plan, checkpoints=checkpoints, ranks=ranks, journal=journal,
            stop=stop, rate=rate,
        )  # fmt: skip
        stopped = ranks.any(stop.requested) and progress.epoch < plan.epochs
    journal.close()
    if stopped:
        raise Interrupted(f"stopped after step {progress.updates} and saved; continue with: {how_to_go_on(folder)}")
    averaged = learner.ema is not None and plan.metric.startswith("ema")
    network = learner.ema.module if averaged else parts.network
    trained = Trained(network, rows, progress, checkpoints, journal, plan.metric)
    _say_end(trained)
    return trained


def _journal(parts: Parts, folder: Path, plan: Plan) -> Journal:
    """Open the reports, and write the options beside them."""
    options, first = parts.options, parts.ranks.first
    journal = Journal(folder, epochs=plan.epochs, interval=options.run.log_interval, speaks=first)
    if first:
        write_options(options, folder)
        if options.run.tensorboard_dir:
            wanted = options.run.tensorboard_dir != type(options.run)().tensorboard_dir
            with journal.optional("TensorBoard's logs"):
                journal.tensorboard = open_tensorboard(Path(options.run.tensorboard_dir) / folder.name, wanted=wanted)
    return journal


def _announce(parts: Parts, learner: Learner, plan: Plan, progress: Progress, journal: Journal) -> None:
    """Say what is about to be trained, on what, and at which rate."""
    options, bundle, ranks = parts.options, parts.bundle, parts.ranks
    count = sum(parameter.numel() for parameter in parts.network.parameters() if parameter.requires_grad)
    shape = "x".join(map(str, bundle.input_shape))
    steps = f", T={parts.shape.step}" if parts.shape.step else ""
    classes = f", {bundle.num_classes} classes" if bundle.num_classes else ""
    journal.say(
        f"{options.model.model}: {count:,} parameters{steps} | {options.data.dataset}: "
        f"{len(bundle.train):,} training and {len(bundle.test):,} test samples of {shape}"
        f"{classes} | {ranks.device}, {ranks.world_size} process{'es' * (ranks.world_size > 1)}"
    )
    name_left_out(parts.bundle.left_out, journal)
    base = learner.scheduler.base_values[0] if learner.scheduler else learner.learning_rate
    samples, processes, accumulated = parts.batch
    batch = samples * processes * accumulated
    journal.say(
        f"effective batch {batch} ({samples} x {processes} processes x {accumulated} accumulated) | "
        f"learning rate {base:.4g} (--lr {options.sched.lr:g}"
        + (f" x {batch}/{options.sched.lr_base_size}" if options.sched.lr_base_size else "")
        + f") | {plan.epochs} epochs with cool-down"
    )
    if not options.train.amp and fast_in_bfloat16(ranks.device):
        journal.say("this device multiplies bfloat16 matrices several times as fast as float32: --amp uses that")
    if progress.updates:
        journal.say(f"resumed at epoch {progress.epoch + 1}, batch {progress.batch}, after step {progress.updates}")


def how_to_go_on(folder: Path) -> str:
    """Return the command that continues the run of a folder."""
    return f"main.py -c {folder / 'args.yaml'} --resume {folder}"


def write_options(options: Options, folder: Path) -> None:
    """Write `args.yaml`, with which a run can be repeated or continued."""
    write_text(folder / "args.yaml", yaml.safe_dump(options.to_dict(), sort_keys=False))


def _say_end(trained: Trained) -> None:
    rows, progress, journal = trained.rows, trained.progress, trained.journal
    if not rows:
        place = journal.folder
        raise UserError(f"nothing to train in {place}: --max-steps or --epochs is reached before the first step.")
    last = rows[-1]
    if "test_top1" in last:
        journal.say(f"final test accuracy {last['test_top1']:.2f} % (loss {last['test_loss']:.4f})")
    else:
        name = trained.metric.partition("_")[2]
        journal.say(f"final test {name} {last['test_' + name]:.4f}")
    if progress.best is not None:
        best, epoch = f"{progress.best:.4f}", progress.best_epoch + 1
        journal.say(f"best {trained.metric} {best} in epoch {epoch}: {trained.checkpoints.best}")
