"""Sections about a run itself: headline, results, curves, pictures, settings, environment, command."""

import base64
import struct
from collections.abc import Iterator, Sequence
from functools import partial

from .charts import Curve, colour, line_chart
from .conversion import conversion_section
from .formats import MISSING, compact, count, date, energy_unit, fixed, number, percent, significant, text
from .markup import Markup, join, tag
from .measures import audit_section, energy_section, rates_section, short_basis
from .runs import CAPTIONS, Run
from .tables import code, copyable, facts, missing

__all__ = ["charts", "command", "curve_figure", "headline", "metric_title", "sections", "subtitle"]

_LOSS, _TOP1 = ("loss", "_loss"), ("top-1 accuracy, %", "_top1")
_RATE = ("firing rate, per neuron and step", "firing_rate")
_METRICS = {
    "auc": "success AUC, %",
    "abs_rel": "absolute relative error",
    "pa_mpjpe": "PA-MPJPE, mm",
    "map": "mAP, %",
    "miou": "mean IoU, %",
}
_COLOURS = {"test": 0, "train": 5, "ema": 2}
_RESULTS = {
    "test_top1": ("test top-1", percent),
    "test_top5": ("test top-5", percent),
    "test_loss": ("test loss", lambda value: fixed(value, 4)),
    "source_top1": ("top-1 of the source", percent),
    "limit_top1": ("top-1 of the limit", percent),
    "limit_agreement": ("the same answer as the limit", percent),
    "best": ("best over the epochs", fixed),
    "best_epoch": ("best epoch", count),
    "firing_rate": ("firing rate, spikes per neuron and step", lambda value: fixed(value, 4)),
    "time_steps": ("time steps at which a layer emits spikes, mean over the layers", fixed),
    "epochs": ("epochs", count),
}
_FACTS = {
    "name": "network",
    "family": "family",
    "status": "status",
    "paper": "paper",
    "ids": "paper's number",
    "published": "published top-1",
    "step": "time steps T",
    "input_shape": "input shape",
    "num_classes": "classes",
    "parameters": "parameters",
}


def metric_title(run: Run) -> str:
    """Name the metric of a task with its unit."""
    return _METRICS.get(run.metric, run.metric.replace("_", " "))


def charts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return the title of each chart over the epochs, and the ending of the columns that it shows."""
    judged = [(metric_title(run), f"_{run.metric}") if run.metric else _TOP1 for run in runs]
    return [_LOSS, *dict.fromkeys(judged), _RATE]


def _tile(name: str, value: str, note: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value, class_="value"), tag("dd", note, class_="note"), class_="tile")


def headline(run: Run) -> Markup:
    """Show what matters most as a row of tiles."""
    energy, best = run.energy_mj, run.result("best")
    scale, unit = energy_unit([energy])
    epoch = run.result("best_epoch")
    accuracy, loss = run.result("test_top1"), run.result("test_loss")
    labelled = not run.metric and (accuracy is not None or loss is None)  # masked pre-training has no labels
    note = f"--task {run.task}" if run.metric else "top-1" if labelled else "of hidden patches"
    shown = (lambda value: significant(value, 4)) if run.metric else fixed if labelled else partial(fixed, digits=4)
    note += "" if best is None else f"; best {shown(best)}"
    if best is not None and epoch is not None:
        note += f" in epoch {count(epoch)}"
    tiles = [
        _tile(f"Test {metric_title(run)}", shown(run.result(f"test_{run.metric}")), note) if run.metric
        else _tile("Test accuracy", percent(accuracy), note) if labelled else _tile("Test loss", fixed(loss, 4), note),
        _tile("Energy estimate", MISSING, "not estimated; run with --analyze") if energy is None
        else _tile("Energy estimate", f"{significant(energy * scale)} {unit}", f"per sample; {short_basis(run)}"),
        _tile("Time steps T", count(run.steps), ""),
        _tile("Parameters", compact(run.model("parameters")), ""),
        _tile("Firing rate", fixed(run.firing_rate, 3), "spikes per neuron and step"),
    ]  # fmt: skip
    if run.audit:
        inner = run.inner_inputs
        spikes = sum(inner.count(kind) for kind in ("binary", "ternary"))
        values = "-1, 0 and 1" if "ternary" in inner else "0 and 1"
        binary = f"{spikes} of {len(inner)} inner layers read only {values}"
        tiles.append(_tile("Spike-driven", "yes" if run.spike_driven else "no", binary))
    return tag("dl", *tiles, class_="tiles")


def subtitle(run: Run) -> str:
    """Name network and data set in a line."""
    return f"{text(run.model('name'))} on {run.dataset}"


def curve_figure(title: str, curves: list[Curve], *, legend: bool = True) -> Markup:
    """Put one chart over the epochs under its title, with its legend."""
    chart = line_chart(curves, label=f"{title} by epoch", from_zero=title.startswith("firing"))
    named = [tag("li", tag("i", class_=f"swatch {colour(curve.colour)}"), curve.name) for curve in curves]
    keys = tag("ul", *named, class_="legend") if legend and len(curves) > 1 else None
    return tag("figure", tag("figcaption", title), keys, chart, class_="curve-figure")


def _curves(run: Run) -> Markup:
    figures = []
    for title, ending in charts([run]):
        columns = [key for key in dict.fromkeys(key for row in run.epochs for key in row) if key.endswith(ending)]
        curves = []
        for place, key in enumerate(sorted(columns, key=lambda key: not key.startswith("test"))):
            points = [(row["epoch"], row[key]) for row in run.epochs if key in row]
            name = key.removesuffix(ending) or key.replace("_", " ")
            curves.append(Curve(name, points, _COLOURS.get(name, 0 if key == ending else 1 + place % 4)))
        if curves:
            figures.append(curve_figure(title, curves))
    if not figures:
        return missing("No training curves: the folder has no summary.csv with epochs in it.")
    return tag("div", *figures, class_="curve-grid")


def _fact(value: object) -> str:
    """Write a fact of a network: counts with separators of thousands, shapes with multiplication signs."""
    if isinstance(value, list):
        return (", " if any(isinstance(part, str) for part in value) else " × ").join(map(text, value))
    return text(value) if number(value) is None or isinstance(value, str) else count(value)


def _evaluation(later: dict) -> Markup:
    """Show what a later evaluation wrote into the folder of a training."""
    results = later.get("results") if isinstance(later.get("results"), dict) else {}
    written = ((*_RESULTS.get(key, (key, significant)), value) for key, value in results.items())
    pairs = [("evaluated again", date(later.get("date"))), *((name, write(value)) for name, write, value in written),
             ("weights", code(later.get("checkpoint")))]  # fmt: skip
    return facts(pairs, "a later evaluation")


def _results(run: Run) -> Markup:
    found = run.part("results")
    first = {f"test_{run.metric}": (f"test {metric_title(run)}", partial(significant, digits=4))} if run.metric else {}
    best = {"best": ("best over the epochs", partial(significant, digits=4))} if run.metric else {}
    known = first | _RESULTS | best
    pairs = [(name, write(run.result(key))) for key, (name, write) in known.items() if run.result(key) is not None]
    others = {key: significant(value, 4) for key, value in found.items() if key not in known}
    pairs += [(key.replace("_", " ") if run.metric else key, value) for key, value in others.items()]
    model, samples = run.part("model"), run.part("samples")
    pairs += [(f"{part} samples", count(value)) for part, value in samples.items()]
    if run.results.get("checkpoint"):
        pairs.append(("checkpoint", code(run.results["checkpoint"])))
    about = [(name, _fact(model[key])) for key, name in _FACTS.items() if model.get(key)]
    if not pairs and not about:
        return missing("No results were recorded: neither results.json nor summary.csv has any.")
    tables = [facts(rows, label) for rows, label in ((pairs, "results"), (about, "network")) if rows]
    if later := run.part("evaluation"):
        tables.append(_evaluation(later))
    return tag("div", *tables, class_="pair")


def _pictures(run: Run) -> Markup:
    drawn = any(key.endswith("_loss") for row in run.epochs for key in row)
    known = {"curves": drawn, "conversion": run.conversion}  # charts show these already
    shown = {stem: path for stem, path in run.pictures.items() if not known.get(stem)}
    figures = []
    for stem, path in shown.items():
        caption = CAPTIONS.get(stem, stem.replace("_", " "))
        data = path.read_bytes()
        width, height = struct.unpack(">II", data[16:24].rjust(8, b"\0"))  # of the header chunk
        source = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
        image = tag("img", src=source, alt=caption, width=width or None, height=height or None)
        button = tag("button", image, type="button", class_="enlarge", aria_label=f"enlarge: {stem.replace('_', ' ')}")
        class_ = "picture wide" if width > 1.45 * height else "picture"
        figures.append(tag("figure", button, tag("figcaption", caption), class_=class_))
    lost = [missing(f"{name} is named in results.json, but is not there as a PNG picture.") for name in run.lost]
    if not figures:
        lost.append(missing("No pictures were drawn; run with --visualize --conf-mat --tsne --mem-dist."))
    return join(tag("div", *figures, class_="pictures") if figures else None, *lost)


def _option_table(options: dict, label: str) -> Markup:
    return facts([(code(key), code(value)) for key, value in options.items()], label)


def _settings(run: Run) -> Markup:
    if not run.options:
        return missing("No settings were recorded: neither results.json nor args.yaml has them.")
    if changed := run.part("changed"):
        first = _option_table(changed, "settings that differ from the defaults")
    elif isinstance(run.results.get("changed"), dict):
        first = missing("All settings are at their defaults.")
    else:
        first = missing("Which settings differ from the defaults was not recorded.")
    summary = tag("summary", f"All {len(run.options)} settings")
    return join(first, tag("details", summary, _option_table(run.options, "all settings")))


def _environment(run: Run) -> Markup:
    if not (environment := run.part("environment")):
        return missing("The environment was not recorded: there is no results.json that has it.")
    return facts([(key, text(value)) for key, value in environment.items()], "environment")


def command(run: Run) -> Markup:
    """Show the command that repeats a run, with a button that copies it."""
    given = run.results.get("command")
    if not given:
        way = "main.py -c args.yaml repeats the settings" if run.options else "no settings were recorded either"
        return missing(f"The command was not recorded; {way}.")
    return copyable(text(given))


def sections(run: Run) -> Iterator[tuple[str, str, Markup]]:
    """Yield key, title and content of each section of a run, in the order in which a reader asks."""
    yield "results", "Results", _results(run)
    if run.conversion:
        yield "conversion", "Conversion", conversion_section(run)
    yield "curves", "Training", _curves(run)
    yield "energy", "Energy estimate", energy_section(run)
    yield "audit", "Is it spike-driven?", audit_section(run)
    yield "rates", "Firing rates", rates_section(run)
    yield "pictures", "Pictures", _pictures(run)
    yield "command", "Repeat it", command(run)
    yield "settings", "Settings", _settings(run)
    yield "environment", "Environment", _environment(run)
