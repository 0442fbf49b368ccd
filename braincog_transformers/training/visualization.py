"""Figures of a trained network: its mean firing rate, and what --visualize and its like ask for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from ..analysis.audit import format_audit, judge, write_audit
from ..analysis.energy import EnergyRules, charge, count_by, format_energy, write_energy
from ..analysis.firing import Row, extremes, firing_rates, format_table, overall_rate, rating, write_rates, write_silent
from ..analysis.operations import Operations, counting
from ..analysis.pictures.visualize import (
    draw_attention,
    draw_confusion,
    draw_energy,
    draw_features,
    draw_membranes,
    draw_rates,
    save_images,
    visualize,
)
from ..analysis.recorder import outputs
from ..data.build import DataBundle
from ..data.loading.loader import make_loader
from ..recipe import Options
from ..recipe.groups import AnalysisOptions
from .journal import Journal
from .loaders import Loaders, ToDevice

__all__ = ["Visualization", "mean_rate"]

RATE_BATCHES = 4


def _placed(batches: Any, to_device: ToDevice) -> Any:
    return (to_device(x, target) for x, target in batches)


def mean_rate(network: nn.Module, loaders: Loaders, say: Callable[[str], object]) -> Callable[[], float]:
    """Return a function that measures the mean firing rate, in spikes per neuron and step, on one test batch.

    It tells which layers are silent or saturated, whenever that has changed.
    """
    batch, reported = [], ""

    def measure() -> float:
        nonlocal reported
        if not batch:  # kept, so that no loader has to start again for it
            batch.extend(islice(loaders.test, 1))
        rows = firing_rates(network, _placed(batch, loaders.to_device))
        found = extremes(rows)
        if found and found != reported:
            say(found)
        reported = found
        return overall_rate(rows)

    return measure


@dataclass(frozen=True)
class Visualization:
    """Draw and print what was asked for.

    Args:
        options: of the run.
        bundle: the data.
        to_device: brings a batch to the network.
    """

    options: Options
    bundle: DataBundle
    to_device: ToDevice

    def _batches(self, most: int | None = None) -> Any:
        # its own loader: among several ranks, each test loader holds a share of the samples only
        loader = make_loader(
            self.bundle.test, batch_size=self.options.data.batch_size, train=False, drop_last=False,
            seed=self.options.run.seed, workers=0,
        )  # fmt: skip
        return _placed(islice(loader, most), self.to_device)

    def _scale(self) -> dict[str, Any]:
        """Return what turns normalised images back into pictures."""
        data, info = self.options.data, self.bundle.info
        return {"mean": data.mean or info.mean or None, "std": data.std or info.std or None}

    def show_first_batch(self, folder: Path, journal: Journal) -> None:
        """Write a picture of the first training batch, augmented but not mixed."""
        if not journal.speaks:
            return
        options = self.options
        loader = make_loader(
            self.bundle.train, batch_size=options.data.batch_size, train=True, seed=options.run.seed, workers=0
        )
        loader.set_epoch(0)
        classes = self.bundle.classes or None
        path = save_images(next(iter(loader)), folder, name="first_batch", classes=classes, **self._scale())
        journal.say(f"wrote {path}")

    def _rules(self, asked: AnalysisOptions) -> EnergyRules:
        return EnergyRules(
            method=asked.energy_method, e_mac=asked.energy_mac, e_ac=asked.energy_ac,
            whole_as_spikes=asked.energy_whole_as_spikes, pre_pool=asked.energy_pre_pool,
            count_head=asked.energy_count_head,
            first_layer_times_steps=not asked.energy_first_once,
        )  # fmt: skip

    def _pass(self, network: nn.Module, asked: AnalysisOptions, *, count: bool) -> tuple[list[Row], Operations | None]:
        """Run test samples through the network once; return firing rates and, with `count`, operations."""
        with ExitStack() as raters, ExitStack() as counters:
            rates = raters.enter_context(rating(network))
            lasts = {raters: None if asked.spike_rate else RATE_BATCHES}
            if count:
                counted = counters.enter_context(counting(network))
                lasts[counters] = asked.analyze_batches
            batches = self._batches(None if None in lasts.values() else max(lasts.values()))
            for number, _ in enumerate(outputs(network, batches), start=1):
                for watchers, last in lasts.items():
                    if number == last:  # what is watched is slower
                        watchers.close()
        return rates(), counted() if count else None

    def _tell(
        self, network: nn.Module, asked: AnalysisOptions, plain: Operations | None, folder: Path, journal: Journal
    ) -> list[Path]:
        """Tell what the operations cost and what they are made of, and draw the energy.

        Args:
            plain: operations of the network as it is; the `sdt` method counts it fused.
        """
        written = []
        if asked.analyze:
            rules = self._rules(asked)
            counted = plain if rules.method != "sdt" else count_by("sdt", network, self._batches(asked.analyze_batches))
            analysis = charge(counted, rules)
            journal.say(format_energy(analysis))
            written += [*write_energy(analysis, folder), draw_energy(analysis, folder)]
        if asked.audit:
            found = judge(plain)
            journal.say(format_audit(found))
            written.append(write_audit(found, folder))
        return written

    def _draw(self, network: nn.Module, asked: AnalysisOptions, rows: list[Row], folder: Path) -> Iterator[Path]:
        """Draw what was asked for, picture by picture."""
        classes = self.bundle.classes
        batch = next(iter(self._batches(1))) if asked.visualize or asked.mem_dist else None
        if asked.visualize:
            yield from visualize(network, batch, folder, rows=rows, **self._scale())
            attention = draw_attention(network, batch, folder, **self._scale())
            yield from [attention] if attention else []
        elif asked.spike_rate:
            yield draw_rates(rows, folder)
        if asked.conf_mat:
            yield draw_confusion(network, self._batches(), folder, classes=classes)
        if asked.tsne:
            yield draw_features(network, self._batches(), folder, classes=classes, seed=self.options.run.seed)
        if asked.mem_dist:
            yield draw_membranes(network, batch, folder)

    def show(self, network: nn.Module, folder: Path, journal: Journal) -> tuple[float, list[Path]]:
        """Print and write what was asked for.

        Returns:
            The mean firing rate, in spikes per neuron and step, and the paths of the pictures.
        """
        asked = self.options.analysis
        if asked.report:
            names = ("analyze", "audit", "visualize", "spike_rate", "conf_mat", "tsne", "mem_dist")
            asked = replace(asked, **dict.fromkeys(names, True))
        count = asked.audit or (asked.analyze and asked.energy_method != "sdt")
        rows, plain = self._pass(network, asked, count=count)
        rate, written = overall_rate(rows), []
        if asked.spike_rate:
            journal.say(format_table(rows))
            written += [*write_rates(rows, folder), *write_silent(rows, folder)]
        journal.say(f"mean firing rate {rate:.4f} spikes per neuron and step, {rows[0].samples} samples")
        written += [*self._tell(network, asked, plain, folder, journal), *self._draw(network, asked, rows, folder)]
        for path in written:
            journal.say(f"wrote {path}")
        return rate, [path for path in written if path.suffix == ".png"]
