"""Section about a conversion: what the spiking network keeps of its source, by the number of steps."""

from .charts import Curve, colour, line_chart
from .formats import energy_unit, fixed, number, significant, text
from .markup import Markup, join, tag
from .runs import Run
from .tables import Column, amount, code, facts, figure, missing, table, word

__all__ = ["conversion_section"]

_LEVELS = {"source": 5, "limit": 2}
"""The two networks beside the spiking one, and the colours of their lines."""


def conversion_section(run: Run) -> Markup:
    """Show accuracy and energy of source, limit and spiking network at each T, as a table and as charts."""
    rows = run.conversion.get("rows")
    if not rows:
        return missing("conversion.json has no rows.")
    scale, unit = energy_unit([number(row.get("energy")) for row in rows])
    columns = [
        Column("network"), Column("T", True, "time steps"), Column("top-1, %", True), Column("loss", True),
        Column("agreement, %", True, "share of the test samples with the limit's answer"),
        Column(f"energy estimate, {unit}", True, "of one sample; of an ordinary network as multiply-accumulates"),
    ]  # fmt: skip
    body = [
        [
            word(text(row.get("network"))), figure(row.get("step"), lambda step: fixed(step, 0)),
            figure(row.get("top1"), fixed), figure(row.get("loss"), lambda loss: fixed(loss, 4)),
            figure(row.get("agreement"), fixed), _energy(number(row.get("energy")), scale),
        ]
        for row in rows
    ]  # fmt: skip
    about = [(name, run.conversion[name]) for name in ("method", "paper", "model") if run.conversion.get(name)]
    options = run.conversion.get("options")
    if isinstance(options, dict):
        about += [(code(name), code(value)) for name, value in options.items()]
    said = (
        "The limit is the ordinary network that the spiking one approaches: quantised, approximated or clipped. "
        "The spiking network was run once for the largest T, and its answer read at each T."
    )
    return join(
        tag("p", said, class_="lead"), table(columns, body, label="conversion by number of steps", sortable=False),
        _charts(run, rows, scale, unit), facts(about, "the method"),
    )  # fmt: skip


def _energy(value: float | None, scale: float) -> Markup:
    return amount(significant(None if value is None else value * scale), value)


def _charts(run: Run, rows: list[dict], scale: float, unit: str) -> Markup | None:
    figures = []
    for key, title, factor in (("top1", "top-1 accuracy, %", 1.0), ("energy", f"energy estimate, {unit}", scale)):
        read = [(text(row.get("network")), number(row.get("step")), number(row.get(key))) for row in rows]
        points = [(step, factor * value) for _, step, value in read if step and value is not None]
        if not points:
            continue
        ends = [points[0][0], points[-1][0]]
        curves = [Curve("spiking", points, 0)]
        curves += [
            Curve(name, [(end, factor * value) for end in ends], _LEVELS[name])
            for name, step, value in read
            if name in _LEVELS and step is None and value is not None
        ]
        chart = line_chart(curves, label=f"{title} by T", from_zero=key == "energy", along="T", powers=True)
        named = [tag("li", tag("i", class_=f"swatch {colour(curve.colour)}"), curve.name) for curve in curves]
        keys = tag("ul", *named, class_="legend")
        figures.append(tag("figure", tag("figcaption", title), keys, chart, class_="curve-figure"))
    return tag("div", *figures, class_="curve-grid") if figures else None
