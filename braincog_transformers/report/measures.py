"""Sections about what was measured on a trained network: energy, audit and firing rates."""

from ..analysis.firing import SATURATED, SILENT
from .formats import MISSING, compact, count, energy_unit, fixed, number, percent, significant, text
from .markup import Markup, join, tag
from .runs import Run
from .tables import Column, amount, table, word

__all__ = ["audit_section", "basis", "energy_section", "rates_section", "short_basis"]

_ENERGY_COLUMNS = (
    Column("#", True, "order of execution"),
    Column("layer"),
    Column("type"),
    Column("input", hint="observed on the data: 0/1, whole numbers or real numbers"),
    Column("input rate", True, "share of the input that is not zero"),
    Column("dense MACs", True, "multiply-accumulates of the dense layer, all steps"),
    Column("MACs", True, "multiply-accumulates that the method charges"),
    Column("ACs", True, "accumulates that the method charges (synaptic operations)"),
)
_HOTTEST = 50  # per cent of blue in the hottest cell, so that its text stays legible in both themes


def basis(run: Run) -> str:
    """Say by which method and constants the energy of a run was estimated."""
    energy = run.energy or {}
    constants = (
        f"{text(energy.get('e_mac'))} pJ for a multiply-accumulate, {text(energy.get('e_ac'))} pJ for an accumulate"
    )
    return f"{text(energy.get('method'))} method, {constants}"


def short_basis(run: Run) -> str:
    """Say the same in the space of a tile."""
    energy = run.energy or {}
    return f"{text(energy.get('method'))} method; MAC {text(energy.get('e_mac'))} pJ, AC {text(energy.get('e_ac'))} pJ"


def _bar(label: str, value: float, largest: float, shown: str, class_: str) -> Markup:
    width = 100 * value / largest if largest else 0.0
    bar = tag("span", tag("span", class_=f"fill {class_}", style=f"width:{width:.2f}%"), class_="track")
    return tag("div", tag("span", label, class_="bar-label"), bar, tag("span", shown, class_="bar-value"), class_="bar")


def _beside_ann(spiking: float, ann: float) -> Markup:
    """Set the network's energy beside that of an ordinary one."""
    scale, unit = energy_unit([spiking, ann])
    bars = [
        _bar("spiking, estimate", spiking, max(spiking, ann), f"{significant(spiking * scale)} {unit}", "blue"),
        _bar("ANN-equivalent, estimate", ann, max(spiking, ann), f"{significant(ann * scale)} {unit}", "grey"),
    ]
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
    bar = tag(
        "span",
        fixed(share, 1),
        tag("i", style=f"width:{100 * (energy or 0.0) / peak if peak else 0.0:.1f}%"),
        class_="share",
    )
    return [
        amount(place, place),
        word(tag("code", text(row.get("name")))),
        word(text(row.get("type"))),
        _chip(row),
        amount(fixed(row.get("rate"), 4), number(row.get("rate"))),
        *(
            amount(compact(row.get(key)), number(row.get(key)), title=count(row.get(key)))
            for key in ("macs", "mac", "ac")
        ),
        amount(significant(None if energy is None else energy * scale), energy),
        amount(bar, share),
        amount(count(row.get("parameters")), number(row.get("parameters"))),
    ]


def _sum(rows: list[dict], key: str) -> float:
    return sum(number(row.get(key)) or 0.0 for row in rows)


def energy_section(run: Run) -> Markup:
    """Show the estimated energy beside the ordinary network's, and layer by layer."""
    if run.energy is None or not run.energy.get("rows"):
        return tag("p", "No energy was estimated; run with --analyze.", class_="missing")
    rows = run.energy["rows"]
    total = _sum(rows, "energy") if run.energy_mj is None else run.energy_mj
    ann = number(run.energy.get("ann_energy"))
    scale, unit = energy_unit([total])
    columns = [
        *_ENERGY_COLUMNS,
        Column(f"estimate, {unit}", True),
        Column("share, %", True),
        Column("parameters", True),
    ]
    operations = [_sum(rows, key) for key in ("macs", "mac", "ac")]
    sums = [word(), word("all"), word(), word(), word(),
            *(amount(compact(value), value, title=count(value)) for value in operations),
            amount(significant(total * scale), total), amount("100", 100),
            amount(count(_sum(rows, "parameters")), _sum(rows, "parameters"))]  # fmt: skip
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
        table(columns, body, total=sums, label="estimated energy by layer", class_="energy"),
    )


def audit_section(run: Run) -> Markup:
    """Show whether the network is spike-driven, and what enters each layer."""
    if run.audit is None:
        return tag("p", "What enters each layer was not looked at; run with --audit.", class_="missing")
    findings = run.audit.get("findings", [])
    driven = run.audit.get("spike_driven") is True
    inner = [finding.get("inputs") for finding in findings if finding.get("role") == "inner"]
    counts = ", ".join(f"{inner.count(kind)} {kind}" for kind in ("binary", "integer", "real"))
    verdict = tag(
        "span", "spike-driven" if driven else "not spike-driven", class_=f"badge {'good' if driven else 'bad'}"
    )
    said = (
        f" Of {len(inner)} layers and products between the first layer and the classifier, {counts}, "
        f"observed on {count(run.audit.get('samples'))} samples."
    )
    columns = [Column("#", True, "order of execution"), Column("layer"), Column("type"), Column("input"),
               Column("largest", True), Column("role"), Column("meaning")]  # fmt: skip
    rows = [
        [amount(place, place), word(tag("code", text(row.get("name")))), word(text(row.get("type"))),
         _chip(row), amount(_largest(row), number(row.get("largest"))),
         word(text(row.get("role"))), word(text(row.get("meaning")))]
        for place, row in enumerate(findings, start=1)
    ]  # fmt: skip
    return join(tag("p", verdict, said, class_="lead"), table(columns, rows, label="what enters each layer"))


def _chip(row: dict) -> Markup:
    """Make the cell that tells what comes in."""
    kind = row.get("inputs")
    return word(tag("span", text(kind), class_=f"chip {kind if kind in ('binary', 'integer', 'real') else ''}"))


def _largest(row: dict) -> str:
    """Write the largest entry that came in, a whole number without decimals."""
    read = number(row.get("largest"))
    return MISSING if read is None else f"{read:.4g}"


def _heat(rate: object, largest: float) -> Markup:
    """Make a cell whose colour tells the rate."""
    value = number(rate)
    share = 0.0 if value is None or not largest else _HOTTEST * max(value, 0.0) / largest
    return amount(fixed(value, 4), value, style=f"--heat:{share:.0f}%", data_heat=True)


def _health(rate: float | None) -> Markup | None:
    """Mark a layer that hardly fires, or nearly always."""
    if rate is None or SILENT <= rate <= SATURATED:
        return None
    return tag("span", "silent" if rate < SILENT else "saturated", class_="chip real")


def rates_section(run: Run) -> Markup:
    """Show the firing rate of each layer, in all and at each step."""
    if run.rates is None or not run.rates.get("rows"):
        return tag("p", "No firing rates by layer were measured; run with --spike-rate.", class_="missing")
    rows = run.rates["rows"]
    by_step = [row["per_step"] if isinstance(row.get("per_step"), list) else [] for row in rows]
    steps = max(map(len, by_step))
    every = [read for rates in by_step for read in map(number, rates) if read is not None]
    largest = max(every, default=0.0)
    columns = [Column("#", True, "order of execution"), Column("layer"), Column("neurons", True), Column("rate", True),
               *(Column(f"t = {step}", True) for step in range(1, steps + 1)),
               Column("never fire", True, "neurons that fired for no sample at no step"),
               Column("always fire", True, "neurons that fired for every sample at every step")]  # fmt: skip
    body = []
    for place, (row, rates) in enumerate(zip(rows, by_step, strict=True), start=1):
        shares = [None if (read := number(row.get(key))) is None else 100 * read for key in ("silent", "saturated")]
        rate = number(row.get("rate"))
        body.append([
            amount(place, place), word(tag("code", text(row.get("name"))), " ", _health(rate)),
            amount(count(row.get("neurons")), number(row.get("neurons"))), amount(fixed(rate, 4), rate),
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
