"""Firing rates: spikes per neuron and time step, by layer; and the neurons that never or always fire.

An integer neuron's step counts as D steps, the binary planes that its whole number stands for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError, listed
from ..nodes import IFNode, LIFNode, PLIFNode, ValuedNode
from .output import align_table, write_csv, write_json, writing
from .recorder import is_spiking, outputs, refuse_streaming, watch

__all__ = ["SATURATED", "SILENT", "Row", "extremes", "firing_rates", "format_table", "overall_rate", "rating"]
__all__ += ["real_outputs", "write_rates", "write_silent"]

WIDEST_STEPS = 8
_BINARY = (IFNode, LIFNode, PLIFNode)
SILENT, SATURATED = 0.005, 0.9
"""Mean rates, in spikes per neuron and step, below and above which a layer is called silent or saturated."""


@dataclass(frozen=True)
class Row:
    """The activity of one node over all samples that were measured.

    Attributes:
        name: the node's name in `model.named_modules()`.
        rate: spikes per neuron and step, or plane, averaged over samples, neurons and steps.
        per_step: the same for each step by itself.
        neurons: neurons per sample.
        silent: share of the neurons that fired for no sample at no step, in [0, 1].
        samples: how many samples were measured.
        saturated: share of the neurons that fired for every sample at every step, in [0, 1].
        masks: which neurons are "silent" and which "saturated", boolean, in the shape of one sample's neurons.
        real: whether it put out other numbers than 0, 1, 2, ...; its rate is then its mean output.
        planes: binary planes of a step, 1 but for integer neurons.
    """

    name: str
    rate: float
    per_step: tuple[float, ...]
    neurons: int
    silent: float
    samples: int
    saturated: float = 0.0
    masks: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    real: bool = False
    planes: int = 1


@dataclass
class _Tally:
    """Running sums of one node: spikes of each call, and which neurons fired at all and which always."""

    neurons: int
    planes: int
    batch_counts: list[list[float]] = field(default_factory=list)
    fired: Tensor | None = None
    always: Tensor | None = None
    real: bool = False

    def add(self, spikes: Tensor, binary: bool) -> None:
        """Count the spikes `(T, B, ...)` of one call, known to be 0 or 1 or not."""
        self.real = self.real or not (binary or ((spikes >= 0) & (spikes == spikes.round())).all())
        # summed per sample: a float32 sum is exact below 2**24 spikes
        self.batch_counts[-1] += spikes.float().flatten(2).sum(2).double().sum(1).tolist()
        least, most = torch.aminmax(spikes.flatten(0, 1), dim=0)
        fired, always = (least != 0) | (most != 0), least >= self.planes if self.planes > 1 else least > 0
        self.fired = fired if self.fired is None else self.fired | fired
        self.always = always if self.always is None else self.always & always


@contextmanager
def rating(model: nn.Module) -> Iterator[Callable[[], list[Row]]]:
    """Measure firing rates of what a network does while the context lasts.

    The sum counts a node's output by its value, so that an integer output of 2 is two spikes.

    Args:
        model: any network made of BrainCog nodes, layer by layer or step by step.

    Yields:
        A function that returns a row per node that was called, in the order of execution; none of a network without
        nodes.

    Raises:
        UserError: by that function, if no batch came, or no node was called; the model is streaming.
        ValueError: samples differ in size or steps.
    """
    tallies: dict[str, _Tally] = {}
    seen_now: set[str] = set()
    samples = 0

    def begin(_model: nn.Module, inputs: tuple) -> None:
        nonlocal samples
        refuse_streaming("firing_rates", model)
        seen_now.clear()
        samples += len(inputs[0])

    def count(name: str, node: nn.Module, spikes: Tensor) -> None:
        neurons = spikes[0, 0].numel()
        planes = 1
        if isinstance(node, ValuedNode):
            planes, spikes = node.levels, node.counts(spikes).abs()
        tally = tallies.setdefault(name, _Tally(neurons, planes))
        if tally.neurons != neurons:
            raise ValueError(f"firing_rates: samples must have one size; {name} saw {tally.neurons}, then {neurons}.")
        if name not in seen_now:
            seen_now.add(name)
            tally.batch_counts.append([])
        tally.add(spikes, binary=type(node) in _BINARY)

    def rows() -> list[Row]:
        if not samples:
            raise UserError("firing_rates: needs at least one batch of data; got none (an empty split?)")
        if not tallies and is_spiking(model):
            raise UserError(
                f"firing_rates: no node of {type(model).__name__} was called; run the network as a whole, and not step "
                "by step"
            )
        return [_row(name, tally, samples) for name, tally in tallies.items()]

    with watch(model, count):
        handle = model.register_forward_pre_hook(begin)
        try:
            yield rows
        finally:
            handle.remove()


def firing_rates(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]]) -> list[Row]:
    """Measure the firing rate of each node over data, in evaluation mode; see `rating`.

    Args:
        model: any network made of BrainCog nodes.
        batches: inputs, or `(input, target, ...)` as a loader gives them; moved to the model's device.
    """
    with rating(model) as rows:
        for _ in outputs(model, batches):
            pass
    return rows()


def _row(name: str, tally: _Tally, samples: int) -> Row:
    """Turn sums into means."""
    if len(lengths := {len(counts) for counts in tally.batch_counts}) > 1:
        found = " and ".join(map(str, sorted(lengths)))
        raise ValueError(f"firing_rates: samples must have one number of steps; {name} saw {found}.")
    counts = [sum(step) for step in zip(*tally.batch_counts, strict=True)]
    per_step = tuple(count / (tally.neurons * tally.planes * samples) for count in counts)
    masks = {"silent": ~tally.fired.cpu().numpy(), "saturated": tally.always.cpu().numpy()}
    silent, saturated = (float(mask.mean()) for mask in masks.values())
    rate, real = sum(per_step) / len(per_step), tally.real
    return Row(name, rate, per_step, tally.neurons, silent, samples, saturated, masks, real, tally.planes)


def overall_rate(rows: Sequence[Row]) -> float:
    """Return the spikes per neuron and step of the whole network: rates weighted by neurons, steps and planes."""
    spikes = sum(sum(row.per_step) * row.neurons * row.planes for row in rows)
    return spikes / sum(len(row.per_step) * row.neurons * row.planes for row in rows)


def extremes(rows: Sequence[Row], most: int = 4) -> str:
    """Name the layers that are silent, those that fire nearly always, and those that put out no spikes, in a line; ""
    if there are none."""
    found = {
        f"silent (below {SILENT:g})": [row.name for row in rows if row.rate < SILENT],
        f"saturated (above {SATURATED:g})": [row.name for row in rows if row.rate > SATURATED and not row.real],
        "with real numbers for spikes (the rate is their mean)": real_outputs(rows),
    }
    parts = [
        f"{len(names)} {kind}: {', '.join(names[:most])}{', ...' if len(names) > most else ''}"
        for kind, names in found.items()
        if names
    ]
    return f"of {len(rows)} neuron layers " + "; ".join(parts) if parts else ""


def real_outputs(rows: Sequence[Row]) -> list[str]:
    """Name the layers that put out real numbers, whose rate is no rate of spikes."""
    return [row.name for row in rows if row.real]


def format_table(rows: Sequence[Row]) -> str:
    """Lay the rows out for a terminal, columns aligned; steps are shown one by one up to eight of them."""
    steps = max(len(row.per_step) for row in rows)
    shown = range(steps) if steps <= WIDEST_STEPS else []
    header = ["layer", "neurons", "rate", "silent", "saturated", *(f"t={step + 1}" for step in shown)]
    body = [
        [row.name, f"{row.neurons:,}", f"{row.rate:.4f}", f"{row.silent:.1%}", f"{row.saturated:.1%}",
         *(f"{rate:.4f}" for rate in row.per_step[: len(shown)])]
        for row in rows
    ]  # fmt: skip
    total = ["all", f"{sum(row.neurons for row in rows):,}", f"{overall_rate(rows):.4f}"]
    caption = f"firing rates: spikes per neuron and step over {rows[0].samples:,} samples, {steps} steps"
    if (planes := max(row.planes for row in rows)) > 1:
        caption += f", each of an integer neuron {planes} binary planes, whose mean is shown"
    if names := real_outputs(rows):
        caption += f"; of real numbers, not spikes, the mean: {listed(names)}"
    return f"{caption}\n{align_table(header, body, total)}"


def write_rates(rows: Sequence[Row], folder: str | Path) -> list[Path]:
    """Write `rates.json` and, a row for each layer, `rates.csv`; return both paths.

    Raises:
        UserError: the folder can't be written into.
    """
    steps = max(len(row.per_step) for row in rows)
    names = ("name", "rate", "per_step", "neurons", "silent", "saturated", "real", "planes")
    layers = [{name: getattr(row, name) for name in names} for row in rows]
    whole = {"samples": rows[0].samples, "steps": steps, "overall": overall_rate(rows), "rows": layers}
    with writing(folder) as folder:
        data, table = folder / "rates.json", folder / "rates.csv"
        write_json(data, whole)
        columns = ["name", "rate", "neurons", "silent", "saturated"]
        cells = ([*(layer[name] for name in columns), *layer["per_step"]] for layer in layers)
        write_csv(table, [*columns, *(f"t{t + 1}" for t in range(steps))], cells)
    return [data, table]


def write_silent(rows: Sequence[Row], folder: str | Path) -> list[Path]:
    """Write which neurons are silent or saturated; return both paths.

    `silent.csv` has a row for each channel all of whose neurons are the one or all the other: layer, channel, number of
    neurons, state. The channel is the first axis of a map `(C, h, w)` and the last of tokens `(N, C)`, from 0.
    `neurons.npz` has the exact boolean masks `<layer>/silent` and `<layer>/saturated`, in the shape of the layer's
    neurons.

    Args:
        rows: from `firing_rates`.

    Raises:
        UserError: the folder can't be written into.
    """
    masks = {f"{row.name}/{state}": mask for row in rows for state, mask in row.masks.items()}
    with writing(folder) as folder:
        table, data = folder / "silent.csv", folder / "neurons.npz"
        states = [(row.name, state, _by_channel(mask)) for row in rows for state, mask in row.masks.items()]
        channels = ([name, channel, by_channel.shape[1], state] for name, state, by_channel in states
                    for channel in np.flatnonzero(by_channel.all(1)))  # fmt: skip
        write_csv(table, ["layer", "channel", "neurons", "state"], channels)
        np.savez_compressed(data, **masks)
    return [table, data]


def _by_channel(mask: np.ndarray) -> np.ndarray:
    """Return a mask as `(C, neurons of the channel)`."""
    channels_first = mask if mask.ndim == 3 else np.moveaxis(mask, -1, 0)
    return channels_first.reshape(len(channels_first), -1)
