"""Figures of a trained network: its mean firing rate, and what --visualize and its like ask for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..analysis.audit import format_audit, judge, write_audit
from ..analysis.energy import EnergyRules, charge, count_by, format_energy, write_energy
from ..analysis.firing import (
    Row,
    extremes,
    firing_rates,
    format_table,
    overall_rate,
    rating,
    real_outputs,
    write_rates,
    write_silent,
)
from ..analysis.operations import Operations, counting
from ..analysis.pictures import visualize as pictures
from ..analysis.recorder import is_spiking, outputs
from ..data.loading.loader import Loader, make_loader
from ..data.loading.streams import StreamLoader
from ..errors import listed
from ..recipe.groups import AnalysisOptions
from .assembly import Parts
from .journal import Journal
from .loaders import ToDevice

__all__ = ["RATE_BATCHES", "draw_first_batch", "energy_rules", "mean_rate", "evaluated", "visualize_run"]

RATE_BATCHES = 4


def _placed(batches: Any, to_device: ToDevice) -> Iterator[tuple[Any, Any]]:
    return (to_device(x, target) for x, target in batches)


def mean_rate(parts: Parts, say: Callable[[str], object]) -> Callable[[], float]:
    """Return a function that measures the mean firing rate, in spikes per neuron and step, on one test batch.

    It prints which layers are silent or saturated, whenever that has changed.
    """
    batch, reported = [], ""

    def measure() -> float:
        nonlocal reported
        if not batch:  # kept, so that no loader has to start again for it
            batch.extend(islice(_watched(parts) if parts.bundle.watched else parts.loaders.test, 1))
        rows = firing_rates(parts.network, _placed(batch, parts.loaders.to_device))
        found = extremes(rows)
        if found and found != reported:
            say(found)
        reported = found
        return overall_rate(rows)

    return measure


def _watched(parts: Parts) -> Loader | StreamLoader:
    """Return a loader of the samples that an analysis sees: among several ranks, each test loader holds a share."""
    options, bundle = parts.options, parts.bundle
    return make_loader(
        bundle.test if bundle.watched is None else bundle.watched, batch_size=options.data.batch_size, train=False,
        drop_last=False, seed=options.run.seed, workers=0,
    )  # fmt: skip


def evaluated(parts: Parts, most: int | None = None) -> Iterator[tuple[Any, Any]]:
    """Yield batches of test samples, or of what stands for them in an analysis, on the device."""
    return _placed(islice(_watched(parts), most), parts.loaders.to_device)


def _scale(parts: Parts) -> dict[str, Any]:
    """Return what turns normalised images back into pictures."""
    data, info = parts.options.data, parts.bundle.info
    return {"mean": data.mean or info.mean or None, "std": data.std or info.std or None}


def draw_first_batch(parts: Parts, journal: Journal) -> None:
    """Write a picture of the first training batch, augmented but not mixed."""
    if not journal.speaks:
        return
    options, bundle = parts.options, parts.bundle
    loader = make_loader(bundle.train, batch_size=options.data.batch_size, train=True, seed=options.run.seed, workers=0)
    loader.set_epoch(0)
    classes, batch = bundle.classes or None, next(iter(loader))
    path = pictures.save_images(batch, journal.folder, name="first_batch", classes=classes, **_scale(parts))
    journal.say(f"wrote {path}")


def _count(parts: Parts, asked: AnalysisOptions) -> tuple[list[Row], Operations | None]:
    """Run test samples through the network once; return firing rates and, where they are needed, operations."""
    with ExitStack() as raters, ExitStack() as counters:
        rates, counted, lasts = list, None, {}
        if is_spiking(parts.network):
            rates = raters.enter_context(rating(parts.network))
            lasts[raters] = None if asked.spike_rate else RATE_BATCHES
        if asked.audit or (asked.analyze and asked.energy_method != "sdt"):  # that method counts the network fused
            counted = counters.enter_context(counting(parts.network))
            lasts[counters] = asked.analyze_batches
        batches = evaluated(parts, None if None in lasts.values() else max(lasts.values(), default=0))
        for number, _ in enumerate(outputs(parts.network, batches), start=1):
            for watchers, last in lasts.items():
                if number == last:  # what is watched is slower
                    watchers.close()
    return rates(), counted and counted()


def energy_rules(asked: AnalysisOptions) -> EnergyRules:
    """Return how operations are charged."""
    return EnergyRules(
        method=asked.energy_method, e_mac=asked.energy_mac, e_ac=asked.energy_ac,
        whole_as_spikes=asked.energy_whole_as_spikes, pre_pool=asked.energy_pre_pool,
        count_head=asked.energy_count_head, first_layer_times_steps=not asked.energy_first_once,
    )  # fmt: skip


def _report_energy(parts: Parts, asked: AnalysisOptions, counted: Operations | None, journal: Journal) -> list[Path]:
    """Print what the operations cost and what they are made of, and draw the energy."""
    written, folder = [], journal.folder
    if asked.analyze:
        rules = energy_rules(asked)
        fused = rules.method == "sdt"
        charged = count_by("sdt", parts.network, evaluated(parts, asked.analyze_batches)) if fused else counted
        analysis = charge(charged, rules)
        journal.say(format_energy(analysis))
        written += [*write_energy(analysis, folder), pictures.draw_energy(analysis, folder)]
    if asked.audit:
        found = judge(counted)
        journal.say(format_audit(found))
        written.append(write_audit(found, folder))
    return written


def _draw(parts: Parts, asked: AnalysisOptions, rows: list[Row], folder: Path) -> Iterator[Path]:
    """Draw what was asked for, picture by picture."""
    network, classes, scale = parts.network, parts.bundle.classes, _scale(parts)
    batch = next(iter(evaluated(parts, 1))) if asked.visualize or asked.mem_dist else None
    if asked.visualize:
        yield from pictures.visualize(network, batch, folder, rows=rows, **scale)
        attention = pictures.draw_attention(network, batch, folder, **scale)
        yield from [attention] if attention else []
    elif asked.spike_rate:
        yield pictures.draw_rates(rows, folder)
    if asked.conf_mat:
        yield pictures.draw_confusion(network, evaluated(parts), folder, classes=classes)
    if asked.tsne:
        yield pictures.draw_features(network, evaluated(parts), folder, classes=classes, seed=parts.options.run.seed)
    if asked.mem_dist:
        yield pictures.draw_membranes(network, batch, folder)


def _asked(parts: Parts) -> AnalysisOptions:
    """Return what is asked for: by --report all that there is for the task and the network."""
    asked = parts.options.analysis
    if asked.report:
        names = ["analyze", "audit"]
        names += ["visualize", "spike_rate", "mem_dist"] if is_spiking(parts.network) else []
        names += ["conf_mat", "tsne"] if parts.task is None else []
        return replace(asked, **dict.fromkeys(names, True))
    given = [name for name in ("visualize", "spike_rate", "mem_dist") if getattr(asked, name)]
    if given and not is_spiking(parts.network):
        parts.ranks.say(f"--{given[0].replace('_', '-')}: {parts.options.model.model} has no spiking neurons to show")
        return replace(asked, **dict.fromkeys(given, False))
    return asked


def visualize_run(parts: Parts, journal: Journal) -> tuple[float | None, list[Path]]:
    """Print and write what was asked for, and of a task its predictions.

    Returns:
        The mean firing rate, in spikes per neuron and step, None of a network that doesn't spike, and the paths of the
        pictures.
    """
    asked, folder = _asked(parts), journal.folder
    rows, counted = _count(parts, asked)
    rate, written = overall_rate(rows) if rows else None, []
    if asked.spike_rate:
        journal.say(format_table(rows))
        written += [*write_rates(rows, folder), *write_silent(rows, folder)]
    if rows:
        journal.say(f"mean firing rate {rate:.4f} spikes per neuron and step, {rows[0].samples} samples")
    if names := real_outputs(rows):
        journal.say(f"{listed(names)} put out real numbers, not spikes: their rate is their mean")
    if parts.task is not None:
        with torch.no_grad(), parts.precision.autocast():
            parts.network.eval()
            written += parts.task.draw(parts.test_call, parts.bundle, folder, parts.loaders.to_device)
    written += [*_report_energy(parts, asked, counted, journal), *_draw(parts, asked, rows, folder)]
    for path in written:
        journal.say(f"wrote {path}")
    return rate, [path for path in written if path.suffix == ".png"]
