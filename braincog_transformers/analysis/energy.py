"""Theoretical energy of a spiking network on 45 nm hardware, by two published methods.

Both charge 4.6 pJ for a multiply-accumulate and 0.9 pJ for an accumulate, take normalisation as folded into the layer
in front of it, and leave out neurons, pooling, residual additions and memory.

`spikingformer`: the tool of C. Zhou et al. (arXiv 2304.11954). A layer whose input is binary costs its dense operations
times the rate of its input, as accumulates, biases included; any other layer, the classifier too, costs multiply-
accumulates. Attention costs `T h N d^2 (min(r_k, r_v) + r_q)` accumulates.

`sdt`: the tables of Yao et al. (arXiv 2307.01694, 2404.03663). The first layer costs multiply-accumulates, for events
in proportion to the pixels that are not zero; every other layer accumulates, its dense operations times the mean of its
input. Layers without a neuron in between count as the one layer that they are; biases and the classifier don't count.

A transform without weights is in neither. It is charged as any layer: one that multiplies reads real numbers.

In both, a layer or product that reads real numbers costs multiply-accumulates, and the first layer counts T times for a
repeated image, as there, although its result is the same.

Spikes of -1 and 1 cost what binary ones cost: a subtraction is an accumulate, and both count in the rate, as You et al.
have it (SpikeZIP-TF, arXiv 2406.03470). A first layer that the input of a converted network enters once counts once.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from ..conversion.converted import Converted
from ..errors import UserError, unknown
from .operations import Operation, Operations, count_operations
from .output import align_table, write_csv, write_json, writing
from .recorder import unwrap

__all__ = ["METHODS", "Analysis", "EnergyRow", "EnergyRules", "analyze", "charge", "count_by", "dense_energy"]
__all__ += ["energy_over_steps", "format_energy", "write_energy"]

METHODS = ("spikingformer", "sdt")


@dataclass(frozen=True, kw_only=True)
class EnergyRules:
    """How operations are charged.

    Args:
        method: one of `METHODS`, see the module.
        e_mac: energy of a multiply-accumulate, pJ.
        e_ac: energy of an accumulate, pJ.
        whole_as_spikes: `spikingformer` only: an input of whole numbers costs accumulates, a 2 as two spikes; otherwise
            it makes the layer dense, as the tool has it.
        pre_pool: `sdt` only: the rate of the map in front of a pooling, as the papers have it, instead of the pooled
            one that the layer reads.
        count_head: `sdt` only: count the classifier.
        first_layer_times_steps: count a repeated image's first layer T times, as published.

    Raises:
        UserError: for an unknown method, or an option that the method does not have.
    """

    method: Literal["spikingformer", "sdt"] = "spikingformer"
    e_mac: float = 4.6
    e_ac: float = 0.9
    whole_as_spikes: bool = False
    pre_pool: bool = False
    count_head: bool = False
    first_layer_times_steps: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown("energy method", self.method, METHODS)
        owners = {"whole_as_spikes": "spikingformer", "pre_pool": "sdt", "count_head": "sdt"}
        if wrong := [name for name, owner in owners.items() if getattr(self, name) and owner != self.method]:
            raise UserError(f"analyze: method {self.method} has no {' and no '.join(wrong)}")


@dataclass(frozen=True)
class EnergyRow:
    """One layer or product; operations are those of one sample and all T steps.

    Args:
        name: in `model.named_modules()`.
        type: "conv", "linear", "product", "matmul", "sum" or "transform".
        inputs: what was observed to come in: "binary", "ternary", "integer" or "real".
        rate: share of the input that is not zero, in the mean over the planes.
        macs: multiply-accumulates of the dense layer, in all planes.
        mac: multiply-accumulates that the method charges.
        ac: accumulates that it charges (synaptic operations).
        energy: mJ.
        parameters: weights and biases.
        planes: how many binary planes a step is read in: D or more in spiking inference, else 1.
    """

    name: str
    type: str
    inputs: str
    rate: float
    macs: float
    mac: float
    ac: float
    energy: float
    parameters: int
    planes: int = 1


@dataclass(frozen=True)
class Analysis:
    """What a network costs.

    Args:
        method: see the module.
        rows: in the order of execution.
        samples: measured samples.
        steps: T.
        e_mac, e_ac: pJ for one multiply-accumulate, one accumulate.
        ann_energy: mJ of the same layers in an ordinary network: each dense operation once, as multiply-accumulate.
    """

    method: str
    rows: list[EnergyRow]
    samples: int
    steps: int
    e_mac: float
    e_ac: float
    ann_energy: float

    @property
    def mac(self) -> float:
        """Multiply-accumulates of one sample."""
        return sum(row.mac for row in self.rows)

    @property
    def ac(self) -> float:
        """Accumulates of one sample."""
        return sum(row.ac for row in self.rows)

    @property
    def energy(self) -> float:
        """Energy of one sample in mJ."""
        return sum(row.energy for row in self.rows)

    @property
    def times_as_much(self) -> str:
        """What the ordinary network's energy is of this one's, in words; "" where this one's is 0."""
        return f", {self.ann_energy / self.energy:.1f} times as much" if self.energy else ""


def _spikingformer(row: Operation, whole_as_spikes: bool) -> tuple[float, float]:
    """Return multiply-accumulates and accumulates of all calls of a row."""
    macs = row.total("macs")
    if row.kind == "real":
        return macs + row.total("biases"), 0.0
    spikes = "mean" if whole_as_spikes else "rate"
    if row.type == "product":
        q, k, v = (row.average(spikes, operand) for operand in range(3))
        query_macs = row.total("query_macs")
        return 0.0, (macs - query_macs) * min(k, v) + query_macs * q
    if row.type == "sum":
        return 0.0, macs * row.average(spikes)
    dense = macs + row.total("biases")
    if row.kind in ("binary", "ternary") or (whole_as_spikes and row.kind == "integer"):
        # where a bias enters at the first step alone, later steps without spikes must not make it cheaper
        biased = replace(row, calls=[call for call in row.calls if call.biases] or row.calls)
        return 0.0, macs * row.average("mean") + row.total("biases") * biased.average("mean")
    return dense, 0.0


def _sdt(row: Operation, first: bool, events: bool, pre_pool: bool) -> tuple[float, float]:
    macs = row.total("macs")
    if first:
        return macs * (row.average("rate") if events else 1.0), 0.0
    if row.kind == "real":
        return macs, 0.0
    if row.type == "product":
        query_macs = row.total("query_macs")
        return 0.0, (macs - query_macs) * row.average("mean", 1) + query_macs * row.average("mean")
    return 0.0, macs * (row.average_before_pooling() if pre_pool else row.average("mean"))


def _charge(counted: Operations, row: Operation, rules: EnergyRules) -> tuple[float, float]:
    """Return multiply-accumulates and accumulates of a row, for one sample.

    A row is charged as a whole, by what it read over all data: charged call by call, a batch of zeros would be binary
    in a layer that reads whole numbers, and the figure would depend on the batches.
    """
    first = row is counted.first
    if rules.method == "sdt" and (row.folded or (row.name in counted.classifier and not rules.count_head)):
        return 0.0, 0.0
    if rules.method == "spikingformer":
        mac, ac = _spikingformer(row, rules.whole_as_spikes)
    else:
        mac, ac = _sdt(row, first, counted.events, rules.pre_pool)
    times = _first_times(counted, row, counted.steps if rules.first_layer_times_steps else 1)
    return mac * times / counted.samples, ac * times / counted.samples


def _first_times(counted: Operations, row: Operation, steps: int) -> float:
    """Return how often the operations of a row count, so that the first layer on a repeated image counts `steps`
    times however often it was computed."""
    return steps / counted.first_calls if row is counted.first and counted.first_calls else 1


def analyze(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], **rules) -> Analysis:
    """Measure operations and energy of a network on data, layer by layer.

    Args:
        model: any network whose neurons are BrainCog's, see `operations` for what is counted. It is left as it was.
        batches: inputs, or `(input, target, ...)` as a loader gives them.
        **rules: fields of `EnergyRules`: `method="sdt"`, `e_mac=3.7`, ...

    Raises:
        UserError: for rules that do not hold, a network without neurons or weights, or data without a batch.
    """
    rules = EnergyRules(**rules)
    return charge(count_by(rules.method, model, batches), rules)


def count_by(method: str, model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]]) -> Operations:
    """Count a network's operations as a method sees it: `sdt` takes layers without a neuron in between for one."""
    inner = unwrap(model)
    if method == "sdt" and hasattr(inner, "fuse"):
        inner = copy.deepcopy(inner).eval().fuse()
    return count_operations(inner, batches, fold=method == "sdt")


def charge(counted: Operations, rules: EnergyRules) -> Analysis:
    """Turn counted operations into energy."""
    rows = []
    for row in counted.rows:
        mac, ac = _charge(counted, row, rules)
        macs = 0.0 if row.folded else row.total("macs") / counted.samples
        macs *= _first_times(counted, row, counted.steps)
        energy = (rules.e_mac * mac + rules.e_ac * ac) / 1e9
        rate = row.average("rate")
        figures = (rate / row.planes, macs * row.planes, mac, ac, energy, row.parameters, row.planes)
        rows.append(EnergyRow(row.name, row.type, row.kind, *figures))
    ann_energy = sum(_once(counted, row) for row in counted.rows if not row.folded) / counted.samples
    ann_energy *= rules.e_mac / 1e9
    return Analysis(rules.method, rows, counted.samples, counted.steps, rules.e_mac, rules.e_ac, ann_energy)


def _once(counted: Operations, row: Operation) -> float:
    """Return the multiply-accumulates of a row in an ordinary network."""
    if counted.by_steps:  # its first step computes each product once, running sums being empty
        return sum(call.macs for call in row.calls if not call.step)
    if row.name in counted.apart and row.total("rows") / counted.samples > counted.steps:
        return row.total("macs")
    # a row computed T steps of a sample, or 1 where all share what it saw; further calls belong to the same steps
    return row.total("macs") / min(row.total("rows") / counted.samples, counted.steps)


def energy_over_steps(
    model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], *, steps: Iterable[int] | None = None, **rules
) -> list[Analysis]:
    """Measure what a converted network has done after so many steps, from one pass over the data.

    Args:
        model: a converted network.
        batches: as in `analyze`.
        steps: numbers of steps t to look at, each at most T; None for 1, 2, ..., T.
        **rules: as in `analyze`.

    Returns:
        For each t the analysis of the first t steps, and of what computes the answer; the one at T is that of
        `analyze`.

    Raises:
        UserError: see `analyze`; for a network that isn't converted, or a t that it does not take.
    """
    inner = unwrap(model)
    if not isinstance(inner, Converted):
        raise UserError(f"energy_over_steps: needs a converted network; {type(inner).__name__} takes all steps at once")
    chosen = range(1, inner.step + 1) if steps is None else list(steps)
    if wrong := [t for t in chosen if not 1 <= t <= inner.step]:
        raise UserError(f"energy_over_steps: steps are from 1 to T={inner.step}; got {wrong[0]}")
    rules = EnergyRules(**rules)
    counted = count_by(rules.method, inner, batches)
    return [charge(counted.until(t), rules) for t in chosen]


def dense_energy(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], *, e_mac: float = 4.6) -> float:
    """Return the energy of one sample in an ordinary network, in mJ: what its products multiply, biases not counted.

    Args:
        model: any network, the source of a conversion for example; it is left as it was.
        batches: as in `analyze`.
        e_mac: energy of a multiply-accumulate, pJ.
    """
    counted = count_operations(model, batches)
    return sum(row.total("macs") for row in counted.rows) / counted.samples * e_mac / 1e9


def format_energy(analysis: Analysis) -> str:
    """Lay the analysis out for a terminal."""
    header = ["layer", "type", "input", "rate", "dense MMACs", "MMACs", "MSOPs", "mJ", "parameters"]

    def figures(*rows: EnergyRow) -> list[str]:
        millions = (sum(getattr(row, name) for row in rows) / 1e6 for name in ("macs", "mac", "ac"))
        energy, parameters = sum(row.energy for row in rows), sum(row.parameters for row in rows)
        return [*(f"{number:.3f}" for number in millions), f"{energy:.6f}", f"{parameters:,}"]

    inputs = [f"{row.inputs} x {row.planes}" if row.planes > 1 else row.inputs for row in analysis.rows]
    body = [
        [row.name, row.type, kind, f"{row.rate:.4f}", *figures(row)]
        for row, kind in zip(analysis.rows, inputs, strict=True)
    ]
    total = ["all", "", "", "", *figures(*analysis.rows)]
    caption = (
        f"energy by the {analysis.method} method, {analysis.e_mac:g} pJ a MAC and {analysis.e_ac:g} pJ an accumulate: "
        f"one sample, {analysis.steps} steps, mean of {analysis.samples:,} samples"
    )
    ann = f"the same layers as an ordinary network, once and dense: {analysis.ann_energy:.6f} mJ"
    return "\n".join([caption, align_table(header, body, total), ann + analysis.times_as_much])


def write_energy(analysis: Analysis, folder: str | Path) -> list[Path]:
    """Write `energy.csv`, a row for each layer, and `energy.json`, with the totals too; return both paths.

    Raises:
        UserError: the folder can't be written into.
    """
    rows = [asdict(row) for row in analysis.rows]
    totals = {"mac": analysis.mac, "ac": analysis.ac, "energy_mj": analysis.energy}
    with writing(folder) as folder:
        table, data = folder / "energy.csv", folder / "energy.json"
        write_csv(table, list(rows[0]), [list(row.values()) for row in rows])
        write_json(data, {**asdict(analysis), "total": totals})
    return [table, data]
