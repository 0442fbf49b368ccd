"""What a run wrote to its folder; every value is checked before it is used."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..files import reason
from .formats import number

__all__ = ["CAPTIONS", "Run", "read_run", "read_runs"]

_MARKS = ("results.json", "args.yaml", "summary.csv", "energy.json", "audit.json", "rates.json", "conversion.json")
CAPTIONS = {
    "curves": "Loss, accuracy or the metric of the task, firing rate and learning rate over the epochs.",
    "spike_raster": "Which neurons of each layer fire at which time step, for one test sample: a row is a neuron, a "
    "dark mark a spike. Of large layers, up to 96 neurons at equal distances are shown.",
    "spike_maps": "What one test sample looks like at each step (top), and where each layer fires, averaged over its "
    "channels: the brighter, the more spikes.",
    "attention": "Where attention points, over the input. Spiking attention has no softmax; each panel says "
    "what it shows.",
    "firing_rates": "Firing rate of each layer, the network's mean in red (left), and at each time step (right).",
    "membranes": "Membrane potentials of each layer after the reset, counts on a logarithmic scale; red is the "
    "threshold.",
    "confusion": "Predicted class against true class over the test samples; a darker cell is a larger share of "
    "its row.",
    "features": "What the classifier sees of each test sample, brought into the plane by PCA and by t-SNE, one colour "
    "per class. In t-SNE only neighbourhoods carry meaning, not distances between groups.",
    "conversion": "Accuracy and energy of the spiking network over T, beside its source and its limit.",
    "energy": "Estimated energy of each layer, from counted operations; the table above has the numbers and the "
    "constants.",
    "tracks": "Tracked objects on test frames: the predicted box beside the true one.",
    "success": "Share of the frames whose predicted box overlaps the true one by more than a threshold, and whose "
    "centre is closer than a distance.",
    "depth": "Predicted depth of test frames beside the true one.",
    "poses": "Predicted and true poses of test samples.",
    "detections": "Objects found in test pictures, and the true ones.",
    "segments": "Predicted classes of the pixels of test pictures beside the true ones.",
    "first_batch": "The first training batch, as the network gets it.",
}
"""What each picture shows, in the order in which the report shows them."""
_PNG = b"\x89PNG\r\n\x1a\n"
_DAMAGED = (OSError, ValueError, RecursionError, csv.Error, yaml.YAMLError)


@dataclass(frozen=True)
class Run:
    """One run folder; what is not there is empty.

    Args:
        folder: as given.
        name: of the experiment, or of the folder.
        results: `results.json`.
        epochs: `summary.csv`, numbers only; epochs are counted from 1, as in the log, and not from 0 as in the file.
        energy, audit, rates, conversion: the files of those names.
        options: all options, of `results.json` or `args.yaml`.
        pictures: PNG files by stem, in the order to show them.
        lost: pictures that `results.json` names and that are not there, or are not PNG.
    """

    folder: Path
    name: str
    results: dict[str, Any]
    epochs: list[dict[str, float]]
    energy: dict[str, Any]
    audit: dict[str, Any]
    rates: dict[str, Any]
    conversion: dict[str, Any]
    options: dict[str, Any]
    pictures: dict[str, Path]
    lost: list[str]

    def part(self, key: str) -> dict[str, Any]:
        """Return a mapping of `results.json`, empty if it is not there."""
        found = self.results.get(key)
        return found if isinstance(found, dict) else {}

    def model(self, key: str) -> Any:
        """Return a fact of the model, its name falling back to the option."""
        return self.part("model").get(key, self.options.get("model") if key == "name" else None)

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.results.get("dataset") or self.options.get("dataset") or "unknown data set")

    @property
    def steps(self) -> float | None:
        """T."""
        given = (self.model("step"), self.energy.get("steps"), self.rates.get("steps"))
        return next((read for read in map(number, given) if read is not None), None)

    def result(self, key: str) -> float | None:
        """Return a number of `results.json`, or else of the last epoch in which it was measured."""
        found = number(self.part("results").get(key))
        if found is None:
            found = next((row[key] for row in reversed(self.epochs) if key in row), None)
        return found

    @property
    def task(self) -> str:
        """Name of the task; "" for classification."""
        return str(self.part("task").get("name") or "")

    @property
    def metric(self) -> str:
        """The figure that ranks the epochs of a task, as in `test_miou` without what is in front; "" for others."""
        return str(self.part("task").get("metric") or "")

    @property
    def decreasing(self) -> bool:
        """Whether a smaller metric is a better one."""
        return self.part("task").get("decreasing") is True

    @property
    def energy_mj(self) -> float | None:
        """Estimated energy of one sample, mJ."""
        total = self.energy.get("total")
        return number(total.get("energy_mj")) if isinstance(total, dict) else None

    @property
    def spike_driven(self) -> bool:
        """The audit's verdict."""
        return self.audit.get("spike_driven") is True

    @property
    def inner_inputs(self) -> list[Any]:
        """What the audit found to enter the layers and products between the first layer and the classifier."""
        return [finding.get("inputs") for finding in self.audit.get("findings", []) if finding.get("role") == "inner"]

    @property
    def firing_rate(self) -> float | None:
        """Mean spikes per neuron and step."""
        measured = number(self.rates.get("overall"))
        return self.result("firing_rate") if measured is None else measured


def _load(path: Path, read: Callable[[str], Any]) -> Any:
    """Read a text file; None if it is not there."""
    if not path.exists():
        return None
    try:
        return read(path.read_text(encoding="utf-8"))
    except _DAMAGED as error:
        raise UserError(f"report: {path} is damaged ({reason(error, 160)}); delete it or write it again") from None


def _mapping(path: Path, read: Callable[[str], Any] = json.loads) -> dict[str, Any]:
    """Read a file that holds a mapping, and whose rows or findings, where it has them, are mappings."""
    found = _load(path, read)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError(f"report: {path} is damaged (it holds no mapping); delete it or write it again")
    for key in ("rows", "findings"):
        rows = found.get(key, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(
                f"report: {path} is damaged ({key} must be a list of mappings); delete it or write it again"
            )
    return found


def _epochs(path: Path) -> list[dict[str, float]]:
    """Read the summary, epochs counted from 1; one that has no number gets its place."""
    rows = _load(path, lambda written: list(csv.DictReader(written.splitlines()))) or []
    read = [{key: number(value) for key, value in row.items() if key} for row in rows]
    clean = [{key: value for key, value in row.items() if value is not None} for row in read]
    return [{**row, "epoch": row.get("epoch", place) + 1} for place, row in enumerate(clean)]


def _is_png(path: Path) -> bool:
    """Say whether a file can be read and starts as a PNG does."""
    try:
        with path.open("rb") as file:
            return file.read(len(_PNG)) == _PNG
    except OSError:
        return False


def _pictures(folder: Path, listed: object) -> tuple[dict[str, Path], list[str]]:
    """Find the pictures that the results name, or the usual ones, and say which of them are missing.

    Raises:
        UserError: for a name that leads out of the folder.
    """
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    inside, found, lost = folder.resolve(), {}, []
    for name in names or [f"{stem}.png" for stem in CAPTIONS if (folder / f"{stem}.png").exists()]:
        path = folder / name.replace("\0", "")
        if path.suffix == ".svg":  # each picture has both forms
            path = path.with_suffix(".png")
        if not path.resolve().is_relative_to(inside):
            raise UserError(
                f"report: {folder / 'results.json'} names a picture outside of its folder, {name!r}; "
                "pictures must be in the run's folder"
            )
        if path.suffix != ".png":  # a table that was written with the pictures
            continue
        if _is_png(path):
            found[path.stem] = path
        else:
            lost.append(name)
    order = {stem: place for place, stem in enumerate(CAPTIONS)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order)))), lost


def read_run(given: str | Path) -> Run:
    """Read a run folder, or the folder of a file of a run.

    Raises:
        UserError: no such folder, no run in it, a file in it that is damaged, or a picture that is elsewhere.
    """
    folder = Path(given)
    if folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"report: no folder {str(given)!r}; give the output folder of a run")
    if not any((folder / mark).exists() for mark in _MARKS):
        raise UserError(
            f"report: no run in {str(given)!r} (none of {', '.join(_MARKS[:4])}); give a run's output folder"
        )
    results = _mapping(folder / "results.json")
    options = results.get("options")
    if not isinstance(options, dict):
        options = _mapping(folder / "args.yaml", yaml.safe_load)
    pictures, lost = _pictures(folder, results.get("pictures"))
    return Run(
        folder, str(results.get("experiment") or folder.resolve().name), results, _epochs(folder / "summary.csv"),
        *(_mapping(folder / f"{name}.json") for name in ("energy", "audit", "rates", "conversion")),
        options, pictures, lost,
    )  # fmt: skip


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several run folders; runs of one name get their folders as part of it.

    Raises:
        UserError: none was given, one was given twice, or one cannot be read.
    """
    if not folders:
        raise UserError("report: no run was given; give one output folder or more")
    runs = [read_run(folder) for folder in folders]
    seen: set[Path] = set()
    for given, run in zip(folders, runs, strict=True):
        if run.folder.resolve() in seen:
            raise UserError(f"report: {str(given)!r} was given twice; give each run once")
        seen.add(run.folder.resolve())
    names = [run.name for run in runs]
    return [replace(run, name=f"{run.name} ({run.folder})") if names.count(run.name) > 1 else run for run in runs]
