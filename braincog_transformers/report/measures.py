"""Sections about what was measured on a trained network: energy, audit and firing rates."""

from ..analysis.audit import name_analog
from ..analysis.firing import SATURATED, SILENT
from .formats import MISSING, compact, count, energy_unit, fixed, number, percent, significant, text
from .markup import Markup, join, tag
from .runs import Run
from .tables import Column, amount, code, figure, missing, table, word

__all__ = ["audit_section", "basis", "energy_section", "rates_section", "short_basis"]

_PLACE, _LAYER = Column("#", True, "order of execution"), Column("layer")
_OPERATIONS = {
    "macs": Column("dense MACs", True, "multiply-accumulates of the dense layer, all steps"),
    "mac": Column("MACs", True, "multiply-accumulates that the method charges"),
    "ac": Column("ACs", True, "accumulates that the method charges (synaptic operations)"),
}
_KINDS = ("binary", "ternary", "integer", "real")
_HOTTEST = 50  # per cent of blue in the hottest cell, so that its text stays legible in both themes


def basis(run: Run) -> str:
    """Say by which method and constants the energy of a run was estimated."""
    method, e_mac, e_ac = _made(run)
    return f"{method} method, {e_mac} pJ for a multiply-accumulate, {e_ac} pJ for an accumulate"


def short_basis(run: Run) -> str:
    """Say the same in the space of a tile."""
    method, e_mac, e_ac = _made(run)
    return f"{method} method; MAC {e_mac} pJ, AC {e_ac} pJ"


def _made(run: Run) -> list[str]:
    return [text(run.energy.get(key)) for key in ("method", "e_mac", "e_ac")]


def _bar(label: str, value: float, largest: float, shown: str, class_: str) -> Markup:
    width = 100 * value / largest if largest else 0.0
    bar = tag("span", tag("span", class_=f"fill {class_}", style=f"width:{width:.2f}%"), class_="track")
    return tag("div", tag("span", label, class_="bar-label"), bar, tag("span", shown, class_="bar-value"), class_="bar")


def _beside_ann(spiking: float, ann: float) -> Markup:
    """Set the network's energy beside that of an ordinary one."""
    scale, unit = energy_unit([spiking, ann])
    shown = (("spiking", spiking, "blue"), ("ANN-equivalent", ann, "grey"))
    bars = [_bar(f"{name}, estimate", value, max(spiking, ann), f"{significant(value * scale)} {unit}", class_)
            for name, value, class_ in shown]  # fmt: skip
    if not spiking or not ann:
        ratio = "No ratio: one of the two is zero."
    elif ann >= spiking:
        ratio = f"By this estimate the ordinary network would need {significant(ann / spiking)} times as much."
    else:
        times = significant(spiking / ann)
        ratio = f"By this estimate the spiking network needs {times} times as much as the ordinary one."
    explained = (
        "ANN-equivalent: the same layers as an ordinary network, each dense operation once, as a multiply-accumulate."
    )
    return join(tag("div", *bars, class_="bars"), tag("p", ratio, " ", explained, class_="note"))


def _energy_row(place: int, row: dict, total: float, peak: float, scale: float) -> list[Markup]:
    energy = number(row.get("energy"))
    share = None if energy is None or not total else 100 * energy / total
    width = f"width:{100 * (energy or 0.0) / peak if peak else 0.0:.1f}%"
    return [
        *_named(place, row), word(text(row.get("type"))), _chip(row),
        figure(row.get("rate"), lambda rate: fixed(rate, 4)),
        *(figure(row.get(key), compact, title=count(row.get(key))) for key in _OPERATIONS),
        amount(significant(None if energy is None else energy * scale), energy),
        amount(tag("span", fixed(share, 1), tag("i", style=width), class_="share"), share),
        figure(row.get("parameters"), count),
    ]  # fmt: skip


def _named(place: int, row: dict, *more: object) -> list[Markup]:
    """Make the first two cells of a layer's row, its place and its name."""
    return [amount(place, place), word(code(row.get("name")), *more)]


def energy_section(run: Run) -> Markup:
    """Show the estimated energy beside the ordinary network's, and layer by layer."""
    if not run.energy.get("rows"):
        return missing("No energy was estimated; run with --analyze.")
    rows = run.energy["rows"]
    sums = {key: sum(number(row.get(key)) or 0.0 for row in rows) for key in (*_OPERATIONS, "energy", "parameters")}
    total = sums["energy"] if run.energy_mj is None else run.energy_mj
    ann = number(run.energy.get("ann_energy"))
    scale, unit = energy_unit([total])
    columns = [
        _PLACE, _LAYER, Column("type"),
        Column("input", hint="observed on the data: 0/1, -1/0/1, whole numbers or real numbers"),
        Column("input rate", True, "share of the input that is not zero"), *_OPERATIONS.values(),
        Column(f"estimate, {unit}", True), Column("share, %", True), Column("parameters", True),
    ]  # fmt: skip
    foot = [
        word(), word("all"), word(), word(), word(),
        *(figure(sums[key], compact, title=count(sums[key])) for key in _OPERATIONS),
        amount(significant(total * scale), total), amount("100", 100), figure(sums["parameters"], count),
    ]  # fmt: skip
    said = (
        f"Estimate for one sample by the {basis(run)}: operations counted at T = {text(run.energy.get('steps'))}, "
        f"mean of {count(run.energy.get('samples'))} samples. Memory and neurons are left out. "
        "This is arithmetic on 45 nm constants; no power was read from a device."
    )
    peak = max(number(row.get("energy")) or 0.0 for row in rows)
    body = [_energy_row(place, row, total, peak, scale) for place, row in enumerate(rows, start=1)]
    return join(
        tag("p", said, class_="lead"),
        _beside_ann(total, ann) if ann is not None else None,
        table(columns, body, total=foot, label="estimated energy by layer", class_="energy"),
    )


def audit_section(run: Run) -> Markup:
    """Show whether the network is spike-driven, what stays analog, and what enters each layer."""
    if not run.audit:
        return missing("What enters each layer was not looked at; run with --audit.")
    findings, driven, inner = run.audit.get("findings", []), run.spike_driven, run.inner_inputs
    counts = ", ".join(f"{inner.count(kind)} {kind}" for kind in _KINDS if kind != "ternary" or kind in inner)
    said_driven = "spike-driven" if driven else "not spike-driven"
    verdict = tag("span", said_driven, class_=f"badge {'good' if driven else 'bad'}")
    said = (
        f" Of {len(inner)} layers and products between the first layer and the classifier, {counts}, "
        f"observed on {count(run.audit.get('samples'))} samples."
    )
    analog = run.audit.get("analog")
    operators = [row for row in analog if isinstance(row, dict)] if isinstance(analog, list) else []
    named = name_analog((text(row.get("meaning")), text(row.get("path"))) for row in operators)
    columns = [_PLACE, _LAYER, Column("type"), Column("input"), Column("largest", True), Column("role"),
               Column("meaning")]  # fmt: skip
    rows = [
        [*_named(place, row), word(text(row.get("type"))), _chip(row), figure(row.get("largest"), _at_most_4_digits),
         word(text(row.get("role"))), word(text(row.get("meaning")))]
        for place, row in enumerate(findings, start=1)
    ]  # fmt: skip
    return join(
        tag("p", verdict, said, class_="lead"),
        tag("p", f"Stays analog: {named}.") if named else None,
        table(columns, rows, label="what enters each layer"),
    )


def _chip(row: dict) -> Markup:
    """Make the cell that says what comes in."""
    kind = row.get("inputs")
    return word(tag("span", text(kind), class_=f"chip {kind if kind in _KINDS else ''}"))


def _at_most_4_digits(value: object) -> str:
    """Write a number, a whole one without decimals."""
    return MISSING if number(value) is None else f"{number(value):.4g}"


def _heat(rate: object, largest: float) -> Markup:
    """Make a cell whose colour shows the rate."""
    value = number(rate)
    share = 0.0 if value is None or not largest else _HOTTEST * max(value, 0.0) / largest
    return amount(fixed(value, 4), value, style=f"--heat:{share:.0f}%", data_heat=True)


def _health(rate: float | None, real: bool) -> Markup | None:
    """Mark a layer that hardly fires, or nearly always, or whose rate is no rate of spikes."""
    if real:
        return tag("span", "mean of real numbers", class_="chip real")
    if rate is None or SILENT <= rate <= SATURATED:
        return None
    return tag("span", "silent" if rate < SILENT else "saturated", class_="chip real")


def rates_section(run: Run) -> Markup:
    """Show the firing rate of each layer, in all and at each step."""
    if not run.rates.get("rows"):
        return missing("No firing rates by layer were measured; run with --spike-rate.")
    rows = run.rates["rows"]
    by_step = [row["per_step"] if isinstance(row.get("per_step"), list) else [] for row in rows]
    steps = max(map(len, by_step))
    every = [read for rates in by_step for read in map(number, rates) if read is not None]
    largest = max(every, default=0.0)
    columns = [_PLACE, _LAYER, Column("neurons", True), Column("rate", True),
               *(Column(f"t = {step}", True) for step in range(1, steps + 1)),
               Column("never fire", True, "neurons that fired for no sample at no step"),
               Column("always fire", True, "neurons that fired for every sample at every step")]  # fmt: skip
    body = []
    for place, (row, rates) in enumerate(zip(rows, by_step, strict=True), start=1):
        shares = [None if (read := number(row.get(key))) is None else 100 * read for key in ("silent", "saturated")]
        rate = number(row.get("rate"))
        health = _health(rate, row.get("real") is True)
        body.append([
            *_named(place, row, " ", health), figure(row.get("neurons"), count), amount(fixed(rate, 4), rate),
            *(_heat(value, largest) for value in [*rates, *[None] * (steps - len(rates))]),
            *(amount(percent(share, 1), share) for share in shares),
        ])  # fmt: skip
    said = (
        f"{fixed(run.rates.get('overall'), 4)} spikes per neuron and step in the whole network, over "
        f"{count(run.rates.get('samples'))} samples. The stronger the colour, the more often a layer fires at a step."
    )
    return join(
        tag("p", said, class_="lead"), table(columns, body, label="firing rate by layer and step", class_="heat")
    )
