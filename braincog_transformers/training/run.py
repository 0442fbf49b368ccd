"""Assemble a run from its options, train or evaluate, and report what came of it."""

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
from .assembly import Parts, build_learner, build_parts, check_batch
from .class_names import compare_classes, difference_of_classes
from .diagnose import require_finite
from .distributed import device_of, set_up
from .folder import run_folder
from .generators import isolated, seed_everything
from .journal import Journal, open_tensorboard
from .learner import Learner, Plan, Progress
from .loop import fit
from .losses import build_losses
from .machine import explain, fast_in_bfloat16, keep_freed_memory
from .network import evaluates, own_figures
from .results import training_record, write_results
from .saving import Checkpoints, find_state, load_weights
from .state import difference, restore, saved_options
from .stopping import StopRequest
from .visualization import draw_first_batch, mean_rate, visualize_run

__all__ = ["run"]

_NAMED = 10
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
        check_batch(parts)
        return _check_up(parts) if options.analysis.doctor else _train(parts)
    except (OSError, RuntimeError, MemoryError, EOFError) as error:
        if isinstance(error, FileNotFoundError) or (line := explain(error)) is None:
            raise
        raise UserError(line) from error
    finally:
        ranks.close()


def _check_up(parts: Parts) -> dict[str, Any]:
    """Examine the network in one training step, and print what was found."""
    options, loaders = parts.options, parts.loaders
    batch = loaders.to_device(*next(iter(loaders.train)))
    parts.network.output_steps = options.train.tet_loss
    with parts.precision.autocast():
        found = diagnose(parts.network, batch, build_losses(options.train)[0])
    epochs = options.sched.epochs + options.sched.cooldown_epochs
    parts.ranks.say(format_checkup(found, samples=epochs * len(loaders.train) * options.data.batch_size))
    return {"loss": found.loss, "advice": found.advice}


def _evaluate(parts: Parts) -> dict[str, Any]:
    options, ranks = parts.options, parts.ranks
    with run_folder(options, ranks, fresh=False, say=ranks.say) as folder:
        earlier = training_record(folder)
        if earlier is not None and earlier["model"]["name"] != options.model.model:
            raise UserError(
                f"--experiment: {str(folder)!r} holds a training of {earlier['model']['name']}; name another folder"
            )
        journal = Journal(folder, epochs=0, speaks=ranks.first)
        weights = _load_weights(parts, journal)
        require_finite(parts.network, ranks, when="before the evaluation")
        _name_left_out(parts, journal)
        if options.run.spiking_inference:
            parts.network.eval().set_spiking_inference()
        measured, own = parts.evaluate(), own_figures(parts.network)
        journal.say("evaluation | " + " ".join(f"{name} {value:.4f}" for name, value in (measured | own).items()))
        found = {f"test_{name}": value for name, value in measured.items()} | own
        if not ranks.first:
            return found | {"folder": str(folder)}
        return found | _conclude(parts, found, journal, checkpoint=weights)


def _load_weights(parts: Parts, journal: Journal) -> str | None:
    """Load the checkpoint to evaluate, if one is named, and say where the network's weights are from."""
    options, model = parts.options, parts.options.model
    if path := options.run.eval_checkpoint or options.run.resume:
        path, content = load_weights(parts.network, path, journal.say, ema=options.run.use_ema)
        compare_classes(content, path, parts.bundle.classes, options.data, refuses=True, say=journal.say)
        return path
    weights = model.initial_checkpoint or ("pretrained" if model.pretrained else None)
    if weights is None and (options.analysis.analyze or options.analysis.audit):
        journal.say("the weights are random, and so are the rates; --eval_checkpoint names trained ones")
    return weights


def _conclude(
    parts: Parts, figures: dict[str, float], journal: Journal, *, checkpoint: str | None, curves: Path | None = None
) -> dict[str, Any]:
    """Draw and print what was asked for, and write down what came of the run; on the first rank only.

    Args:
        curves: picture of a training's curves; None for an evaluation.
    """
    with isolated(parts.options.run.seed):
        rate, pictures = visualize_run(parts, journal)
    pictures = [str(path) for path in (curves, *pictures) if path]
    write_results(
        journal.folder, parts, results=figures | {"firing_rate": rate}, checkpoint=checkpoint,
        trained=curves is not None, pictures=pictures,
    )  # fmt: skip
    if parts.options.analysis.report:
        journal.say(f"report {write_report([journal.folder])}")
    return {"folder": str(journal.folder), "pictures": pictures}


def _train(parts: Parts) -> dict[str, Any]:
    given, ranks = parts.options.run, parts.ranks
    if given.resume and given.no_resume_opt:
        _start_from_resumed(parts)
    continues = bool(given.resume and not given.no_resume_opt)
    with run_folder(parts.options, ranks, fresh=not continues, say=ranks.say) as folder:
        return _train_in(folder, parts, continues=continues)


def _start_from_resumed(parts: Parts) -> None:
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


def _train_in(folder: Path, parts: Parts, *, continues: bool) -> dict[str, Any]:
    options, ranks = parts.options, parts.ranks
    path, state = _find_continued(parts) if continues else (None, None)
    learner, plan = build_learner(parts)
    checkpoints = Checkpoints(folder, decreasing=plan.metric.endswith("loss"), history=options.run.checkpoint_hist)
    progress = Progress(epoch=options.sched.start_epoch or 0)
    seed_everything(options.run.seed + ranks.rank)
    if continues:
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
            f"stopped after step {progress.updates} and saved; continue with: "
            f"main.py -c {folder / 'args.yaml'} --resume {folder}"
        )
    return _report(parts, rows, progress, checkpoints, journal, plan.metric)


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


def _name_left_out(parts: Parts, journal: Journal) -> None:
    """Name the first recordings that --skip-bad left out, and write all of them into the folder."""
    texts = parts.bundle.left_out
    if not texts or not parts.ranks.first:
        return
    path = journal.folder / "left_out.txt"
    with journal.optional(f"the lines of {path}"):
        write_text(path, "".join(f"{text}\n" for text in texts))
    journal.say(f"left out {len(texts)} recordings that can't be read (--skip-bad), all named in {path}:")
    for text in texts[:_NAMED]:
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
    _name_left_out(parts, journal)
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


def _report(
    parts: Parts, rows: list[dict[str, float]], progress: Progress, checkpoints: Checkpoints, journal: Journal,
    metric: str,
) -> dict[str, Any]:  # fmt: skip
    """Print the final figures, draw what was asked for, and return figures and paths."""
    folder = journal.folder
    if not rows:
        raise UserError(f"nothing to train in {folder}: --max-steps or --epochs is reached before the first step.")
    last = rows[-1]
    result: dict[str, Any] = {**last, "folder": str(folder), "steps": progress.updates, "best": progress.best}
    if not parts.ranks.first:
        return result
    figures = {name: last[name] for name in last if name.startswith(("test_", "ema_"))}
    figures |= own_figures(parts.network) | {"epochs": len(rows)}
    if "test_top1" in last:
        journal.say(f"final test accuracy {last['test_top1']:.2f} % (loss {last['test_loss']:.4f})")
    else:
        journal.say(f"final test loss {last['test_loss']:.4f}")
    if progress.best is not None:
        journal.say(f"best {metric} {progress.best:.4f} in epoch {progress.best_epoch + 1}: {checkpoints.best}")
        result["best_checkpoint"] = str(checkpoints.best)
        figures |= {"best": progress.best, "best_epoch": progress.best_epoch + 1}
    result["checkpoint"] = str(checkpoints.last)
    line = f"checkpoint {checkpoints.last}"
    with journal.optional("pictures and results of the run"):
        curves = training_curves(rows, folder / "curves.png")
        found = _conclude(parts, figures, journal, checkpoint=checkpoints.last.name, curves=curves)
        result |= found | {"curves": str(curves)}
        line += f" | training curves {curves}"
    journal.say(line)
    return result
