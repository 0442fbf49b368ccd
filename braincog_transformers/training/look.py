"""Figures of a trained network: its mean firing rate, and what --visualize and its like ask for."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from ..analysis.audit import audit, format_audit
from ..analysis.energy import analyze, format_energy, write_energy
from ..analysis.firing import extremes, firing_rates, format_table, overall_rate
from ..analysis.look import draw_confusion, draw_features, draw_membranes, draw_rates, save_images, visualize
from ..data.build import DataBundle
from ..data.loader import make_loader
from ..options import Options
from .journal import Journal
from .learner import Place
from .plan import Feed

__all__ = ["Look", "mean_rate"]

RATE_BATCHES = 4


def _placed(batches: Any, place: Place) -> Any:
    return (place(x, target) for x, target in batches)


def mean_rate(network: nn.Module, feed: Feed, say: Callable[[str], object]) -> Callable[[], float]:
    """Return a function that measures the mean firing rate, in spikes per neuron and step, on one test batch.

    It tells which layers are silent or saturated, whenever that has changed.
    """
    batch, told = [], ""

    def measure() -> float:
        nonlocal told
        if not batch:  # kept, so that no loader has to start again for it
            batch.extend(islice(feed.test, 1))
        rows = firing_rates(network, _placed(batch, feed.place))
        found = extremes(rows)
        if found and found != told:
            say(found)
        told = found
        return overall_rate(rows)

    return measure


@dataclass(frozen=True)
class Look:
    """Draw and print what was asked for.

    Args:
        options: of the run.
        bundle: the data.
        place: brings a batch to the network.
    """

    options: Options
    bundle: DataBundle
    place: Place

    def _batches(self, most: int | None = None) -> Any:
        # its own loader: among several ranks, each test loader holds a share of the samples only
        loader = make_loader(
            self.bundle.test, batch_size=self.options.data.batch_size, train=False, drop_last=False,
            seed=self.options.run.seed, workers=0,
        )  # fmt: skip
        return _placed(islice(loader, most), self.place)

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

    def _analyze(self, network: nn.Module, folder: Path, journal: Journal) -> list[Path]:
        look = self.options.look
        analysis = analyze(
            network,
            self._batches(look.analyze_batches),
            method=look.energy_method,
            e_mac=look.energy_mac,
            e_ac=look.energy_ac,
        )
        journal.say(format_energy(analysis))
        return write_energy(analysis, folder)

    def show(self, network: nn.Module, folder: Path, journal: Journal) -> list[str]:
        """Print the firing rates, write the pictures, and return their paths."""
        if not journal.speaks:
            return []
        look, classes = self.options.look, self.bundle.classes
        rows = firing_rates(network, self._batches(None if look.spike_rate else RATE_BATCHES))
        if look.spike_rate:
            journal.say(format_table(rows))
        journal.say(f"mean firing rate {overall_rate(rows):.4f} spikes per neuron and step, {rows[0].samples} samples")
        paths: list[Path] = self._analyze(network, folder, journal) if look.analyze else []
        if look.audit:
            journal.say(format_audit(audit(network, self._batches(look.analyze_batches))))
        if look.visualize:
            paths += visualize(network, next(iter(self._batches(1))), folder, rows=rows, **self._scale())
        elif look.spike_rate:
            paths.append(draw_rates(rows, folder))
        if look.conf_mat:
            paths.append(draw_confusion(network, self._batches(), folder, classes=classes))
        if look.tsne:
            paths.append(draw_features(network, self._batches(), folder, classes=classes, seed=self.options.run.seed))
        if look.mem_dist:
            paths.append(draw_membranes(network, next(iter(self._batches(1))), folder))
        for path in paths:
            journal.say(f"wrote {path}")
        return [str(path) for path in paths]
