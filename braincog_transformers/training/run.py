"""Assemble a run from its options, train or evaluate, and tell what came of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..analysis.doctor import diagnose, format_checkup
from ..analysis.pictures.plots import training_curves
from ..checkpoints import load_content
from ..errors import Interrupted, UserError
from ..files import write_text
from ..recipe import ENTRIES, Options
from ..report import write_report
from .assembly import Parts, build_learner, build_parts, ranking_metric
from .class_names import compare_classes, difference_of_classes
from .diagnose import require_finite
from .distributed import device_of, set_up
from .failures import explain
from .folder import run_folder
from .generators import isolated, seed_everything
from .journal import Journal, open_tensorboard
from .learner import Learner, Progress
from .loop import fit
from .losses import build_losses
from .machine import fast_in_bfloat16, keep_freed_memory
from .network import check_batch, evaluates
from .plan import Plan
from .results import training_record, write_results
from .saving import Checkpoints, find_state, load_weights
from .state import difference, restore, saved_options
from .stopping import StopRequest
from .visualization import Visualization, mean_rate

__all__ = ["run"]

_TOLD = 10
"""Damaged recordings that are named one by one."""
FREE = frozenset(name for name, entry in ENTRIES.items() if not entry.metadata["numbers"])
"""Options that a run may be resumed with other values of."""


def run(options: Options) -> dict[str, Any]:
    """Train, or evaluate, as the options say.

    Args:
        options: every option of the run.

    Returns:
        The final figures (`test_top1`, `test_loss`, `best`, ...), `folder`, and the paths of what was written.

    Raises:
        UserError: for a mistake of the user's making.
        FileNotFoundError: for missing data.
        NonFiniteLoss: when the loss is no longer finite.
        Interrupted: when the user stopped the run, which is saved.
    """
    ranks = set_up(
        device_of(options.run.device), backend=options.train.dist_backend or None, local_rank=options.run.local_rank
    )
    if ranks.device.type == "cpu":
        keep_freed_memory()
    try:
        parts = build_parts(options, ranks)
        if evaluates(options):
            return _evaluate(parts)
        check_batch(options, parts.bundle, parts.network, parts.loaders.to_device, ranks)
        return _check_up(parts) if options.analysis.doctor else _train(parts)
    except (OSError, RuntimeError, MemoryError, EOFError) as error:
        if isinstance(error, FileNotFoundError) or (line := explain(error)) is None:
            raise
        raise UserError(line) from error
    finally:
        ranks.close()


def _check_up(parts: Parts) -> dict[str, Any]:
    """Look at one training step, and tell."""
    options, loaders = parts.options, parts.loaders
    batch = loaders.to_device(*next(iter(loaders.train)))
    parts.network.output_steps = options.train.tet_loss
    with parts.precision.autocast():
        found = diagnose(parts.network, batch, build_losses(options.train)[0])
    epochs = options.sched.epochs + options.sched.cooldown_epochs
    parts.say(format_checkup(found, samples=epochs * len(loaders.train) * options.data.batch_size))
    return {"loss": found.loss, "advice": found.advice}


def _evaluate(parts: Parts) -> dict[str, Any]:
    with run_folder(parts.options, parts.ranks, fresh=False, say=parts.say) as folder:
        return _evaluate_in(folder, parts)


def _evaluate_in(folder: Path, parts: Parts) -> dict[str, Any]:
    options, ranks = parts.options, parts.ranks
    path = options.run.eval_checkpoint or options.run.resume
    earlier = training_record(folder)
    if earlier is not None and earlier["model"]["name"] != options.model.model:
        raise UserError(
            f"--experiment: {str(folder)!r} holds a training of {earlier['model']['name']}; name another folder"
        )
    journal = Journal(folder, epochs=0, speaks=ranks.first)
    if path:
        path, content = load_weights(parts.network, path, journal.say, ema=options.run.use_ema)
        compare_classes(content, path, parts.bundle.classes, options.data, refuses=True, say=journal.say)
        del content
    elif (options.analysis.analyze or options.analysis.audit) and not (
        options.model.initial_checkpoint or options.model.pretrained
    ):
        journal.say("the weights are random, and so are the rates; --eval_checkpoint names trained ones")
    require_finite(parts.network, ranks, when="before the evaluation")
    _tell_left_out(parts, journal)
    found = {f"test_{name}": value for name, value in parts.evaluate().items()}
    journal.say("evaluation | " + " ".join(f"{name[5:]} {value:.4f}" for name, value in found.items()))
    if not ranks.first:
        return found | {"folder": str(folder)}
    weights = path or options.model.initial_checkpoint or ("pretrained" if options.model.pretrained else None)
    return found | _conclude(parts, found, journal, checkpoint=weights)


def _conclude(
    parts: Parts, figures: dict[str, float], journal: Journal, *, checkpoint: str | None,
    trained: bool = False, drawn: Sequence[Path] = (),
) -> dict[str, Any]:  # fmt: skip
    """Look at the network, and write down what came of the run; on the first rank only."""
    options, folder = parts.options, journal.folder
    with isolated(options.run.seed):
        shown = Visualization(options, parts.bundle, parts.loaders.to_device)
        rate, pictures = shown.show(parts.network, folder, journal)
    pictures = [str(path) for path in (*drawn, *pictures)]
    write_results(
        folder, options=options, network=parts.network, bundle=parts.bundle, device=parts.ranks.device,
        results=figures | {"firing_rate": rate}, checkpoint=checkpoint, trained=trained, pictures=pictures,
    )  # fmt: skip
    if options.analysis.report:
        journal.say(f"report {write_report([folder])}")
    return {"folder": str(folder), "pictures": pictures}


def _train(parts: Parts) -> dict[str, Any]:
    options = parts.options
    continues = options.run.resume and not options.run.no_resume_opt
    if options.run.resume and not continues:
        start, content = find_state(options.run.resume, parts.say)
        parts.say(load_content(parts.network, content, start, ema=options.run.use_ema))
        compare_classes(content, start, parts.bundle.classes, options.data, refuses=False, say=parts.say)
        del content
    with run_folder(options, parts.ranks, fresh=not continues, say=parts.say) as folder:
        path, state = _found_state(parts) if continues else (None, None)
        return _train_in(folder, parts, path, state)


def _found_state(parts: Parts) -> tuple[Path, dict[str, Any]]:
    """Return the state that --resume continues, of a run with the same options and classes, and its file."""
    options = parts.options
    path, state = find_state(options.run.resume, parts.say)
    if changed := difference(saved_options(state, Options().to_dict(), path=path), options.to_dict(), free=FREE):
        raise UserError(
            f"--resume {options.run.resume}: {changed}; a run continues with its own options "
            "(-c its args.yaml), or start a new one from its weights with --no-resume-opt."
        )
    if other := difference_of_classes(state, parts.bundle.classes):
        raise UserError(f"--resume {options.run.resume}: {other}; bring the classes back to what they were")
    return path, state


def _train_in(folder: Path, parts: Parts, path: Path | None, state: dict[str, Any] | None) -> dict[str, Any]:
    options, ranks = parts.options, parts.ranks
    metric = ranking_metric(options, parts.bundle)
    learner, plan = build_learner(parts, metric)
    checkpoints = Checkpoints(folder, decreasing=metric.endswith("loss"), history=options.run.checkpoint_hist)
    progress = Progress(epoch=options.sched.start_epoch or 0)
    seed_everything(options.run.seed + ranks.rank)
    if state is not None:
        restore(state, learner, progress, ranks, path=path)
        checkpoints.continue_from(state, metric=metric)
    elif progress.epoch:
        learner.scheduler.step(progress.epoch)
        learner.scheduler.step_update(plan.schedule_position(progress, len(parts.loaders.train)))
    del state
    journal = _journal(parts, folder, plan)
    _announce(parts, learner, plan, progress, journal)
    if options.run.save_images:
        with isolated(options.run.seed), journal.optional("pictures of the first batch"):
            Visualization(options, parts.bundle, parts.loaders.to_device).show_first_batch(folder, journal)
    rate = mean_rate(parts.network, parts.loaders, journal.say)
    with StopRequest(patient=ranks.world_size > 1) as stop:
        rows = fit(
            learner, progress, loaders=parts.loaders, plan=plan, checkpoints=checkpoints, ranks=ranks, journal=journal,
            stop=stop, rate=rate,
        )  # fmt: skip
        stopped = ranks.any(stop.requested) and progress.epoch < plan.epochs
    journal.close()
    if stopped:
        raise Interrupted(
            f"stopped after step {progress.step} and saved; continue with: "
            f"main.py -c {folder / 'args.yaml'} --resume {folder}"
        )
    return _report(parts, rows, progress, checkpoints, journal, metric)


def _journal(parts: Parts, folder: Path, plan: Plan) -> Journal:
    """Open the reports, and write the options beside them."""
    options, first = parts.options, parts.ranks.first
    journal = Journal(folder, epochs=plan.epochs, interval=options.run.log_interval, speaks=first)
    if first:
        write_text(folder / "args.yaml", yaml.safe_dump(options.to_dict(), sort_keys=False))
        if options.run.tensorboard_dir:
            wanted = options.run.tensorboard_dir != type(options.run)().tensorboard_dir
            with journal.optional("TensorBoard's logs"):
                journal.tensorboard = open_tensorboard(Path(options.run.tensorboard_dir) / folder.name, wanted=wanted)
    return journal


def _tell_left_out(parts: Parts, journal: Journal) -> None:
    """Name the first recordings that --skip-bad left out, and write all of them into the folder."""
    texts = parts.bundle.left_out
    if not texts or not parts.ranks.first:
        return
    path = journal.folder / "left_out.txt"
    with journal.optional(f"the lines of {path}"):
        write_text(path, "".join(f"{text}\n" for text in texts))
    journal.say(f"left out {len(texts)} recordings that can't be read (--skip-bad), all named in {path}:")
    for text in texts[:_TOLD]:
        journal.say(f"  {text}")


def _announce(parts: Parts, learner: Learner, plan: Plan, progress: Progress, journal: Journal) -> None:
    """Say what is about to be trained, on what, and at which rate."""
    options, bundle, ranks = parts.options, parts.bundle, parts.ranks
    count = sum(parameter.numel() for parameter in parts.network.parameters() if parameter.requires_grad)
    shape = "x".join(map(str, bundle.input_shape))
    journal.say(
        f"{options.model.model}: {count:,} parameters, T={parts.shape.step} | {options.data.dataset}: "
        f"{len(bundle.train):,} training and {len(bundle.test):,} test samples of {shape}, "
        f"{bundle.num_classes} classes | {ranks.device}, {ranks.world_size} process{'es' * (ranks.world_size > 1)}"
    )
    _tell_left_out(parts, journal)
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
    if progress.step:
        journal.say(f"resumed at epoch {progress.epoch + 1}, batch {progress.batch}, after step {progress.step}")


def _report(
    parts: Parts, rows: list[dict[str, float]], progress: Progress, checkpoints: Checkpoints, journal: Journal,
    metric: str,
) -> dict[str, Any]:  # fmt: skip
    """Tell the final figures, draw what was asked for, and return figures and paths."""
    folder = journal.folder
    if not rows:
        raise UserError(f"nothing to train in {folder}: --max-steps or --epochs is reached before the first step.")
    last = rows[-1]
    result: dict[str, Any] = {**last, "folder": str(folder), "steps": progress.step, "best": progress.best}
    if not parts.ranks.first:
        return result
    journal.say(f"final test accuracy {last['test_top1']:.2f} % (loss {last['test_loss']:.4f})")
    if progress.best is not None:
        journal.say(f"best {metric} {progress.best:.4f} in epoch {progress.best_epoch + 1}: {checkpoints.best}")
        result["best_checkpoint"] = str(checkpoints.best)
    figures = {name: last[name] for name in last if name.startswith(("test_", "ema_"))} | {"epochs": len(rows)}
    if progress.best is not None:
        figures |= {"best": progress.best, "best_epoch": progress.best_epoch + 1}
    result["checkpoint"] = str(checkpoints.last)
    told = f"checkpoint {checkpoints.last}"
    with journal.optional("pictures and results of the run"):
        curves = training_curves(rows, folder / "curves.png")
        found = _conclude(parts, figures, journal, checkpoint=checkpoints.last.name, trained=True, drawn=[curves])
        result |= found | {"curves": str(curves)}
        told += f" | training curves {curves}"
    journal.say(told)
    return result
