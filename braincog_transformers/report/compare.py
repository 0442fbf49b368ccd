"""Several runs side by side: accuracy against energy, the best of each column, curves, and what was set differently."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .charts import Curve, Point, colour, scatter_chart, series
from .formats import MISSING, compact, count, energy_unit, fixed, number, significant, text
from .markup import Markup, join, tag
from .measures import basis
from .runs import Run
from .sections import charts, curve_figure, headline, metric_title, sections, subtitle
from .tables import Column, amount, code, copyable, missing, table, to_csv, to_latex, to_markdown, word

__all__ = ["comparison"]

_NAMES_OF_A_RUN = {"output", "experiment", "suffix"}


@dataclass(frozen=True)
class _Measure:
    """A column of the table of runs.

    Args:
        title: of the column.
        read: its number of a run.
        write: a number for the reader.
        best: `max`, `min`, or None where neither is better, or where the runs cannot be compared.
    """

    title: str
    read: Callable[[Run], float | None]
    write: Callable[[object], str]
    best: Callable[..., float] | None = None

    def winners(self, runs: Sequence[Run]) -> list[bool]:
        """Say which runs are the best; none is without another that it beats."""
        values = [self.read(run) for run in runs]
        known = {value for value in values if value is not None}
        if self.best is None or len(known) < 2:
            return [False] * len(values)
        return [value == self.best(known) for value in values]


def _ann(run: Run) -> float | None:
    return number(run.energy.get("ann_energy"))


def _measures(runs: Sequence[Run]) -> list[_Measure]:
    """Choose the columns, and leave out what is best where the runs cannot be compared."""
    same_data = len({run.dataset for run in runs}) == 1
    same_energy = same_data and len(_bases(runs)) <= 1
    high, low = (max, min) if same_data else (None, None)
    scale, unit = energy_unit([run.energy_mj for run in runs] + [_ann(run) for run in runs])

    def energy(value: object) -> str:
        return significant(None if value is None else value * scale)

    classified = any(not run.metric for run in runs)
    tasks = {run.metric: run for run in runs if run.metric}
    return [
        *(_judged("top-1, %", "test_top1", high, max, fixed) if classified else ()),
        *(one for metric, run in tasks.items()
          for one in _judged(metric_title(run), f"test_{metric}", low if run.decreasing else high,
                             min if run.decreasing else max, lambda value: significant(value, 4))),
        _Measure("test loss", lambda run: run.result("test_loss"), lambda value: fixed(value, 4), low),
        _Measure(f"energy estimate, {unit}", lambda run: run.energy_mj, energy, min if same_energy else None),
        _Measure(f"ANN estimate, {unit}", _ann, energy),
        _Measure("parameters", lambda run: number(run.model("parameters")), lambda value: compact(value, 4), min),
        _Measure("T", lambda run: run.steps, count),
        _Measure("firing rate", lambda run: run.firing_rate, lambda value: fixed(value, 4)),
    ]  # fmt: skip


def _judged(
    title: str, key: str, best: Callable[..., float] | None, better: Callable[..., float], write: Callable
) -> tuple[_Measure, _Measure]:
    """Return the columns of a figure of the recorded result, and of the best epoch."""
    return (
        _Measure(title, lambda run: run.result(key), write, best),
        _Measure(f"best {title}", lambda run: better((row[key] for row in run.epochs if key in row), default=None),
                 write, best),
    )  # fmt: skip


def _bases(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group the runs with an energy by how it was estimated."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.energy_mj is not None:
            groups.setdefault(basis(run), []).append(run)
    return groups


def _warnings(runs: Sequence[Run]) -> Markup:
    """Say in a sentence each what keeps the runs from being compared."""
    said = []
    if len({run.dataset for run in runs}) > 1:
        named = "; ".join(f"{run.name}: {run.dataset}" for run in runs)
        said.append(f"The runs use different data sets, so accuracy, loss and energy are not compared ({named}).")
    groups = _bases(runs)
    if len(groups) > 1:
        named = "; ".join(f"{', '.join(run.name for run in members)}: {how}" for how, members in groups.items())
        said.append(f"The energies were estimated by different methods or constants and are not compared ({named}).")
    return join(*(tag("p", sentence, class_="warning", role="note") for sentence in said))


def _scatter(runs: Sequence[Run], mixed: bool) -> Markup:
    """Draw accuracy, or the metric that all runs have, against energy: for a wide window and for a narrow one."""
    metric = runs[0].metric if len({run.metric for run in runs}) == 1 else ""
    key, judged = (f"test_{metric}", metric_title(runs[0])) if metric else ("test_top1", "top-1, %")
    known = [(place, run) for place, run in enumerate(runs)
             if run.energy_mj is not None and run.result(key) is not None]  # fmt: skip
    if not known:
        named = f"a test {judged}" if metric else "an accuracy"
        return missing(f"No run has both {named} and an energy estimate; run with --analyze.")

    def write(run: Run) -> str:
        return f"{judged} {significant(run.result(key), 4)}" if metric else f"{fixed(run.result(key))} %"

    scale, unit = energy_unit([run.energy_mj for _, run in known])
    points = [
        Point(run.energy_mj * scale, run.result(key), run.name,
              f"{run.name}: {write(run)}, {significant(run.energy_mj * scale)} {unit} a sample "
              f"(estimate, {basis(run)})", place)
        for place, run in known
    ]  # fmt: skip
    titles = (f"energy estimate, {unit} per sample", f"test {judged}")
    hint = "" if mixed else "↙ better" if runs[0].decreasing else "↖ better"
    wide = scatter_chart(points, size=(760, 400), titles=titles, hint=hint, class_="scatter wide")
    narrow = scatter_chart(points, size=(340, 330), titles=titles, hint=hint, class_="scatter narrow")
    left_out = [run.name for run in runs if run not in [other for _, other in known]]
    also = f" Left out, as one of the two is missing: {', '.join(left_out)}." if left_out else ""
    how = "; ".join(_bases(runs))
    note = f"Energy is an estimate ({how}), not a reading of a device. Point at a dot for its numbers.{also}"
    return join(wide, narrow, tag("p", note, class_="note"))


def _label(run: Run) -> list[str]:
    return [run.name, text(run.model("name")), run.dataset]


def _run_table(runs: Sequence[Run]) -> Markup:
    """Build the table of runs, and its text to paste."""
    measures = _measures(runs)
    wins = [measure.winners(runs) for measure in measures]
    columns = [Column("run"), Column("model"), Column("data set"), *(Column(one.title, True) for one in measures)]
    rows, written, exact, best = [], [], [], []
    for place, run in enumerate(runs):
        cells = [(one.read(run), won[place], one.write) for one, won in zip(measures, wins, strict=True)]
        name = tag("td", _swatch(place), tag("a", run.name, href=f"#run-{place + 1}"), class_="name")
        numbers = [amount(tag("b", write(value)) if won else write(value), value) for value, won, write in cells]
        rows.append([name, *(word(part) for part in _label(run)[1:]), *numbers])
        written.append([*_label(run), *(write(value) for value, _, write in cells)])
        exact.append([*_label(run), *("" if value is None else f"{value:.10g}" for value, _, _ in cells)])
        best.append([False] * 3 + [won for _, won, _ in cells])
    header = [column.title for column in columns]
    raw = [f"{title.split(',')[0]}, mJ" if "estimate" in title else title for title in header]
    texts = {"LaTeX": to_latex(header, written, best), "Markdown": to_markdown(header, written, best),
             "CSV": to_csv(raw, exact)}  # fmt: skip
    copies = [tag("details", tag("summary", f"Copy as {name}"), copyable(content)) for name, content in texts.items()]
    note = (
        "Bold is the best of its column: the highest accuracy, the lowest loss, energy estimate and number of "
        "parameters. Top-1, or the metric of a task, is that of the recorded result; the best one is picked on the "
        "test samples themselves."
    )
    return join(table(columns, rows, label="runs"), tag("p", note, class_="note"), tag("div", *copies, class_="copies"))


def _curves(runs: Sequence[Run]) -> Markup:
    """Overlay the test curves of all runs."""
    figures = []
    for title, ending in charts(runs):
        key = ending.removeprefix("_") if ending == "firing_rate" else f"test{ending}"
        curves = []
        for place, run in enumerate(runs):
            points = [(row["epoch"], row[key]) for row in run.epochs if key in row]
            if points:
                curves.append(Curve(run.name, points, place))
        if curves:
            figures.append(curve_figure(title if key == ending else f"test {title}", curves, legend=False))
    if not figures:
        return missing("No run has a summary.csv with epochs in it.")
    named = [tag("li", _swatch(place, dashed=True), run.name) for place, run in enumerate(runs) if run.epochs]
    return join(tag("ul", *named, class_="legend"), tag("div", *figures, class_="curve-grid"))


def _swatch(place: int, *, dashed: bool = False) -> Markup:
    """Show the colour of a series, of a line with its dashes."""
    return tag("i", class_=f"swatch {series(place) if dashed else colour(place)}")


def _differences(runs: Sequence[Run]) -> Markup:
    """Show the settings in which the runs differ."""
    known = [run for run in runs if run.options]
    if len(known) < 2:
        return missing("Fewer than two runs recorded their settings.")
    rows = []
    for key in dict.fromkeys(key for run in known for key in run.options if key not in _NAMES_OF_A_RUN):
        values = [text(run.options[key]) if key in run.options else MISSING for run in known]
        if len(set(values)) > 1:
            rows.append([word(code(value)) for value in (key, *values)])
    if not rows:
        return tag("p", "All settings are the same.")
    columns = [Column("setting"), *(Column(run.name) for run in known)]
    return table(columns, rows, label="settings that differ", sortable=False)


def _details(place: int, run: Run) -> Markup:
    """Fold a run's own report."""
    title = tag("summary", _swatch(place), tag("b", run.name), " ", subtitle(run))
    parts = [tag("section", tag("h3", name), content) for _, name, content in sections(run)]
    return tag("details", title, headline(run), *parts, class_="card run", id=f"run-{place + 1}")


def comparison(runs: Sequence[Run]) -> list[tuple[str, str, Markup]]:
    """Return key, title and content of each section of a comparison."""
    mixed = len({run.dataset for run in runs}) > 1 or len(_bases(runs)) > 1
    return [
        ("tradeoff", "Accuracy against energy", join(_warnings(runs), _scatter(runs, mixed))),
        ("runs", "The runs", _run_table(runs)),
        ("curves", "Training", _curves(runs)),
        ("differences", "Settings that differ", _differences(runs)),
        ("details", "Each run", join(*(_details(place, run) for place, run in enumerate(runs)))),
    ]
