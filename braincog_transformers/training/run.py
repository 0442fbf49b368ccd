"""Assemble a run from its options, train or evaluate, and report what came of it."""

from dataclasses import replace
from typing import Any

from ..analysis.doctor import diagnose, format_checkup
from ..analysis.pictures.plots import training_curves
from ..conversion import Converted
from ..errors import UserError
from ..recipe import Options
from ..tasks import Meter
from .assembly import Parts, build_parts, check_batch
from .class_names import compare_classes
from .converted_file import converted_file
from .converting import convert_network
from .diagnose import require_finite
from .distributed import device_of, set_up
from .folder import continues, run_folder
from .journal import Journal, name_left_out
from .losses import build_losses
from .machine import explain, keep_freed_memory
from .network import evaluates, own_figures
from .results import conclude, run_record
from .saving import load_weights
from .train import Trained, start_from_resumed, train_in

__all__ = ["run"]


def run(options: Options) -> dict[str, Any]:
    """Train, evaluate or convert, as the options say.

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
        if options.convert.convert:
            return convert_network(parts)
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
        earlier = run_record(folder)
        if earlier is not None and earlier["model"]["name"] != options.model.model:
            raise UserError(
                f"--experiment: {str(folder)!r} holds a {earlier['kind']} of {earlier['model']['name']}; name another "
                "folder"
            )
        journal = Journal(folder, epochs=0, speaks=ranks.first)
        weights = _load_weights(parts, journal)
        require_finite(parts.network, ranks, when="before the evaluation")
        name_left_out(parts.bundle.left_out, journal)
        if options.run.spiking_inference:
            parts.network.eval().set_spiking_inference()
        meter = parts.meter()
        measured, own = parts.evaluate(meter), own_figures(parts.network)
        journal.say("evaluation | " + " ".join(f"{name} {value:.4f}" for name, value in (measured | own).items()))
        found = {f"test_{name}": value for name, value in measured.items()} | own
        if not ranks.first:
            return found | {"folder": str(folder)}
        _write_predictions(meter, journal)
        return found | conclude(parts, found, journal, checkpoint=weights)


def _write_predictions(meter: Meter, journal: Journal) -> None:
    for path in meter.write(journal.folder):
        journal.say(f"wrote {path}")


def _load_weights(parts: Parts, journal: Journal) -> str | None:
    """Load the checkpoint to evaluate, if one is named, and say where the network's weights are from."""
    options, model, network = parts.options, parts.options.model, parts.network
    if isinstance(network, Converted):
        journal.say(f"{model.model}, converted by {network.method}, T={network.step}, from {converted_file(options)}")
        return str(converted_file(options))
    if path := options.run.eval_checkpoint or options.run.resume:
        path, content = load_weights(parts.network, path, journal.say, ema=options.run.use_ema)
        compare_classes(content, path, parts.bundle.classes, options.data, refuses=True, say=journal.say)
        return path
    weights = model.initial_checkpoint or ("pretrained" if model.pretrained else None)
    if weights is None and (options.analysis.analyze or options.analysis.audit):
        journal.say("the weights are random, and so are the rates; --eval_checkpoint names trained ones")
    return weights


def _train(parts: Parts) -> dict[str, Any]:
    goes_on = continues(parts.options)
    if parts.options.run.resume and not goes_on:
        start_from_resumed(parts)
    with run_folder(parts.options, parts.ranks, fresh=not goes_on, say=parts.ranks.say) as folder:
        trained = train_in(folder, parts)
        if parts.task is not None:  # predictions are those of the network that the run ends with
            parts, meter = replace(parts, network=trained.network, test_call=trained.network), parts.meter()
            parts.evaluate(meter)
            if parts.ranks.first:
                _write_predictions(meter, trained.journal)
        return _report(parts, trained)


def _report(parts: Parts, trained: Trained) -> dict[str, Any]:
    """Draw what was asked for, and return figures and paths."""
    rows, progress, checkpoints, journal = trained.rows, trained.progress, trained.checkpoints, trained.journal
    folder, last = journal.folder, rows[-1]
    result: dict[str, Any] = {**last, "folder": str(folder), "steps": progress.updates, "best": progress.best}
    if not parts.ranks.first:
        return result
    figures = {name: last[name] for name in last if name.startswith(("test_", "ema_"))}
    figures |= own_figures(parts.network) | {"epochs": len(rows)}
    if progress.best is not None:
        result["best_checkpoint"] = str(checkpoints.best)
        figures |= {"best": progress.best, "best_epoch": progress.best_epoch + 1}
    result["checkpoint"] = str(checkpoints.last)
    line = f"checkpoint {checkpoints.last}"
    with journal.optional("pictures and results of the run"):
        judged = {} if (task := parts.task) is None else {"metric": task.metric, "decreasing": task.decreasing}
        curves = training_curves(rows, folder / "curves.png", **judged)
        about = {"checkpoint": checkpoints.last.name, "kind": "training", "pictures": [curves]}
        result |= conclude(parts, figures, journal, **about) | {"curves": str(curves)}
        line += f" | training curves {curves}"
    journal.say(line)
    return result
