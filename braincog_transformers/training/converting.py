"""Conversion in a run: calibration data, the network that is converted, and what its spiking form keeps over T."""

import copy
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..analysis.conversion import ConversionRow, format_conversion, steps_to_show, write_conversion
from ..analysis.energy import dense_energy, energy_over_steps
from ..analysis.pictures.conversion import draw_conversion
from ..analysis.pictures.plots import training_curves
from ..conversion import Converted, convert, prepare, save_converted
from ..data.loading.loader import make_loader
from ..errors import Interrupted, NonFiniteLoss, UserError
from .assembly import Parts, check_batch
from .diagnose import require_finite
from .folder import CONVERTED, continues, run_folder
from .generators import isolated
from .journal import Journal
from .losses import build_losses
from .method import method_of
from .results import conclude
from .train import how_to_go_on, start_from_resumed, train_in, write_options
from .visualization import RATE_BATCHES, energy_rules, evaluated

__all__ = ["build_limit", "calibration_data", "convert_limit", "convert_network", "measure_over_steps"]


def _bar(batches: Iterable, total: int, title: str, speaks: bool) -> Iterable:
    hidden = not (speaks and sys.stderr.isatty())
    return tqdm(batches, desc=title, total=total, unit="batch", disable=hidden, leave=False, dynamic_ncols=True)


def calibration_data(parts: Parts) -> list[Tensor]:
    """Read the training pictures that calibrate a network, as evaluation sees pictures, in the order of the seed.

    All ranks get the same, so that their networks are the same.
    """
    options, plain = parts.options, copy.copy(parts.bundle.train)
    plain.transform = parts.bundle.test.transform
    loader = make_loader(
        plain, batch_size=options.data.batch_size, train=True, drop_last=False, seed=options.run.seed, workers=0
    )
    loader.set_epoch(0)
    most = options.convert.calibration_batches
    batches = _bar(islice(loader, most), min(most, len(loader)), "calibration data", parts.ranks.first)
    return [parts.loaders.to_device(*batch)[0] for batch in batches]


def build_limit(parts: Parts, data: list[Tensor]) -> nn.Module:
    """Prepare the source with calibration data, and see that it can be converted; or return what the file held."""
    method, given = method_of(parts.options)
    if parts.start.limit is not None:
        return parts.start.limit
    with isolated(parts.options.run.seed):
        limit = prepare(parts.start.network, method.name, data=data, **given)
        if method.trains:
            convert(limit, method.name, step=parts.shape.step)  # before a training that would be for nothing
    return limit


def convert_limit(parts: Parts, limit: nn.Module, data: list[Tensor]) -> Converted:
    """Make the spiking network."""
    made = parts.options.convert
    with isolated(parts.options.run.seed):
        return convert(limit, made.convert, step=parts.shape.step, data=data, allow_silent=made.allow_silent)


@torch.no_grad()
def measure_over_steps(parts: Parts, limit: nn.Module, converted: Converted) -> list[ConversionRow]:
    """Measure the spiking network after 1, 2, 4, ... and T steps, in one pass over the test data of all ranks.

    Args:
        parts: of the run.
        limit: in evaluation mode; its answers are compared.
        converted: the spiking network.

    Raises:
        NonFiniteLoss: if an answer is infinite or not a number.
    """
    ranks, loaders, steps = parts.ranks, parts.loaders, steps_to_show(converted.step)
    criterion = build_losses(parts.options.train)[1]
    sums = torch.zeros(len(steps), 4, dtype=torch.float64, device=ranks.device)
    shows = ranks.first and sys.stderr.isatty()
    with isolated(parts.options.run.seed):
        for batch in _bar(loaders.test, len(loaders.test), f"T = 1 to {converted.step}", ranks.first):
            x, target = loaders.to_device(*batch)
            with parts.precision.autocast():
                wanted = limit(x).argmax(1)
            answers = converted.forward_sequence(x, progress=shows).float()
            for place, step in enumerate(steps):
                logits = answers[step - 1]
                same = [(logits.argmax(1) == other).sum().double() for other in (target, wanted)]
                loss = criterion(logits, target).double() * len(x)
                sums[place] += torch.stack([loss, *same, sums.new_tensor(len(x))])
    rows = []
    for step, (loss, right, agreeing, count) in zip(steps, ranks.sum(sums).tolist(), strict=True):
        if not math.isfinite(loss):
            raise NonFiniteLoss(f"after {step} steps the answers of the spiking network are not finite")
        rows.append(ConversionRow("spiking", step, 100 * right / count, loss / count, 100 * agreeing / count))
    return rows


def convert_network(parts: Parts) -> dict[str, Any]:
    """Make a spiking network of an ordinary one, by way of the limit that it approaches, and measure all of them.

    Raises:
        UserError: for a network that can't be converted.
        NonFiniteLoss: for numbers that are not finite.
        Interrupted: when the user stopped a run whose training is saved.
    """
    options, ranks = parts.options, parts.ranks
    trains, goes_on = _trains(parts), continues(options)
    if trains:
        check_batch(parts)
    with run_folder(options, ranks, fresh=not goes_on, say=ranks.say) as folder:
        journal = Journal(folder, epochs=0, speaks=ranks.first)
        rows = [_measure(parts, "source", journal)] if parts.start.trained else []
        data = calibration_data(parts)
        parts, trained = parts.around(build_limit(parts, data)), None
        if trains:
            if options.run.resume and not goes_on:
                start_from_resumed(parts)
            trained = train_in(folder, parts)
            parts = parts.around(trained.network)
        with _saying_how_to_go_on(folder if trains else None):
            rows.append(_measure(parts, "limit", journal))
            limit, converted = parts.network, convert_limit(parts, parts.network, data)
            rows += measure_over_steps(parts, limit, converted)
            _write_converted(parts, converted, journal)
        figures = {f"{row.network}_top1": row.top1 for row in rows if row.step is None}
        figures |= {"test_top1": rows[-1].top1, "test_loss": rows[-1].loss, "limit_agreement": rows[-1].agreement}
        if not ranks.first:
            return figures | {"folder": str(folder)}
        rows, estimate = _with_energy(rows, parts, limit, converted)
        parts = replace(parts, network=converted, train_call=converted, test_call=converted)
        pictures = [_report(parts, rows, estimate, journal)]
        if trained is not None:
            pictures.insert(0, training_curves(trained.rows, folder / "curves.png"))
        about = {"checkpoint": CONVERTED, "kind": "conversion", "pictures": pictures}
        return figures | conclude(parts, figures, journal, **about) | {"checkpoint": str(folder / CONVERTED)}


def _trains(parts: Parts) -> bool:
    """Tell whether the limit is trained: a file of a trained one is not, unless --resume names it."""
    options, (method, _) = parts.options, method_of(parts.options)
    if not method.trains or options.convert.calibrate_only:
        return False
    if parts.start.limit is None or options.run.resume:
        return True
    parts.ranks.say("the file holds the prepared network, which is not trained (--resume it --no-resume-opt does that)")
    return False


def _measure(parts: Parts, name: str, journal: Journal) -> ConversionRow:
    """Measure the source or the limit on the test data."""
    require_finite(parts.network, parts.ranks, when=f"before the evaluation of the {name}")
    found = parts.evaluate()
    journal.say(f"{name} | " + " ".join(f"{key} {value:.4f}" for key, value in found.items()))
    return ConversionRow(name, None, found["top1"], found["loss"])


@contextmanager
def _saying_how_to_go_on(folder: Path | None) -> Iterator[None]:
    """Say how to go on where the user stops a conversion whose training is saved in a folder."""
    try:
        yield
    except KeyboardInterrupt:
        if folder is None:
            raise
        way = how_to_go_on(folder)
        raise Interrupted(f"stopped after the training, which is saved; convert with: {way}") from None


def _write_converted(parts: Parts, converted: Converted, journal: Journal) -> None:
    """Write the spiking network with what rebuilds it, and the options of the run, in the first process.

    Raises:
        UserError: in every process, if the file could not be read back or can't be written.
    """
    options, path, error = parts.options, journal.folder / CONVERTED, None
    source = {"model": options.model.model, "kwargs": parts.start.kwargs, "size": parts.shape.size}
    source |= {name: getattr(options.data, name) for name in ("dataset", "dataset_source")}
    source["classes"] = parts.bundle.classes
    if parts.ranks.first:
        try:
            save_converted(converted, path, source)
            write_options(options, journal.folder)
        except UserError as problem:
            error = str(problem)
    if (error := parts.ranks.share(error)) is not None:
        raise UserError(error)


def _with_energy(
    rows: list[ConversionRow], parts: Parts, limit: nn.Module, converted: Converted
) -> tuple[list[ConversionRow], dict[str, Any]]:
    """Add estimates of the energy, of source and limit as ordinary networks; return also how they were made."""
    asked = parts.options.analysis
    rules, most = energy_rules(asked), asked.analyze_batches or RATE_BATCHES
    steps = [row.step for row in rows if row.step]
    batches = _bar(evaluated(parts, most), min(most, len(parts.loaders.test)), "energy", parts.ranks.first)
    spiking = energy_over_steps(converted, batches, steps=steps, **asdict(rules))
    found: dict[Any, float] = dict(zip(steps, (analysis.energy for analysis in spiking), strict=True))
    for name, network in (("source", parts.start.network), ("limit", limit)):
        found[name] = dense_energy(network, evaluated(parts, most), e_mac=rules.e_mac)
    made = {"method": rules.method, "e_mac": rules.e_mac, "e_ac": rules.e_ac, "samples": spiking[0].samples}
    return [replace(row, energy=found[row.step or row.network]) for row in rows], made


def _report(parts: Parts, rows: list[ConversionRow], estimate: dict[str, Any], journal: Journal) -> Path:
    """Print the table, write it, and draw it; return the path of the picture."""
    options, converted, (method, _) = parts.options, parts.network, method_of(parts.options)
    note = (
        "energy by the {method} method, {e_mac:g} pJ a MAC and {e_ac:g} pJ an accumulate: one sample, mean of {samples}"
    )
    journal.say(format_conversion(rows, method.name, note.format(**estimate)))
    about = {
        "method": method.name, "paper": method.paper, "options": converted.settings["options"],
        "model": options.model.model, "dataset": options.data.dataset, "steps": converted.step, "energy": estimate,
    }  # fmt: skip
    picture = draw_conversion(rows, journal.folder)
    for path in (*write_conversion(rows, about, journal.folder), picture, journal.folder / CONVERTED):
        journal.say(f"wrote {path}")
    return picture
