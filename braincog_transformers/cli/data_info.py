"""Describe a data set: what it is, its files, how recipes process it, and what a folder holds (`--data-info`).

Only counting the samples in a folder needs torch.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from ..data.registry import DATASETS, DatasetInfo, TaskSet, lookup
from ..errors import UserError
from ..recipe import ENTRIES, arguments, published, read_recipe
from ..recipe.options import convert_all

__all__ = ["aligned", "data_info", "data_table"]

# options of the groups below that change numbers, but not how a sample is processed
_NOT_MADE = {"dataset", "skip_bad", "num_classes", "batch_size", "validation_batch_size_multiplier"}
_MOST_CLASSES = 20


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, its columns as wide as their longest text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def data_table() -> list[str]:
    """Return one line for each data set of the catalogue."""
    rows = [("name", "kind", "classes", "training + test", "size", "--download")]
    for info in DATASETS.values():
        fetched = "yes" if info.downloadable else "no" if info.folders else "not needed"
        classes = str(info.num_classes or "none")
        rows.append((info.name, _kind(info), classes, _samples(info, "+"), _size(info), fetched))
    return aligned(rows)


def data_info(name: str, data_dir: str | None = None, *, load: Callable[[], object] = lambda: None) -> list[str]:
    """Return the lines that describe a data set.

    Args:
        name: of the set.
        data_dir: folder whose samples are counted; None to read no files.
        load: imports torch; called before samples are counted.

    Raises:
        UserError: for an unknown name.
    """
    info = lookup(name)
    rows = list(_described(info))
    if data_dir is not None and info.folders:
        if isinstance(info, TaskSet):
            rows.append(("found", f"not looked at; main.py --task {info.task} --dataset {info.name} reads the files"))
        else:
            load()
            rows += _found(info, data_dir)
    return aligned(rows)


def _kind(info: DatasetInfo) -> str:
    return f"task {info.task}" if isinstance(info, TaskSet) else info.kind


def _described(info: DatasetInfo) -> Iterator[tuple[str, str]]:
    yield info.name, f"data for --task {info.task}" if isinstance(info, TaskSet) else f"{info.kind} data"
    yield "classes", f"{info.num_classes}: {_classes(info)}" if info.num_classes else "none"
    yield "samples", _samples(info, "for training and", " for the test")
    yield "size", _size(info)
    if info.colours:
        mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (info.mean, info.std))
        yield "colours", f"mean {mean}, std {std}: {info.colours.origin}"
    elif not isinstance(info, TaskSet):
        yield "values", "counts of spikes or events, not normalised"
    own = "the set's own" + (", or its validation samples with --split valid" if info.validation else "")
    yield "split", f"--split {', '.join(info.splits)} (the first by default)" if info.splits else own
    yield "files", info.tree + (" below --data-dir" if info.folders else "")
    if len(info.folders) > 1:
        yield "searched", "--data-dir, and in it " + ", ".join(name for name in info.folders if name != ".")
    if info.folders:
        fetches = "fetches it" if info.downloadable else "can't fetch it"
        yield "to get it", f"{info.source}; --download {fetches}"
    yield "licence", info.licence
    yield "citation", info.citation
    yield from _published(info)


def _classes(info: DatasetInfo) -> str:
    if not info.classes:
        return "the folders or files name them"
    shown = ", ".join(info.classes[:_MOST_CLASSES])
    return shown + (", ..." if info.num_classes > _MOST_CLASSES else "")


def _samples(info: DatasetInfo, between: str, end: str = "") -> str:
    train, test = info.samples or (0, 0)
    if not train:
        return "any number"
    return f"{train:,} {between} {test:,}{end}" if test else f"{train:,} in all"


def _size(info: DatasetInfo) -> str:
    if info.kind == "sequence":
        return f"{info.length or 'T'} steps of {info.size[1]} channel{'s' * (info.size[1] > 1)}"
    height, width = info.size
    if isinstance(info, TaskSet):
        return f"{height} x {width}"
    return f"{info.in_chans} x {height} x {width}" if info.kind == "image" else f"T x 2 x {height} x {width}"


def _published(info: DatasetInfo) -> Iterator[tuple[str, str]]:
    """Yield how each published recipe processes the data."""
    groups = ("data", "aug", "mix")
    chosen = [
        name
        for name, entry in ENTRIES.items()
        if name == "step" or (entry.group in groups and entry.metadata["numbers"] and name not in _NOT_MADE)
    ]
    title = "recipes"
    for path in published().values():
        recipe, _ = convert_all(read_recipe(path))
        if recipe.get("dataset") == info.name:
            made = arguments({name: recipe[name] for name in chosen if name in recipe})
            yield title, f"{path.name}: {' '.join(made) or 'the defaults'}"
            title = ""


def _found(info: DatasetInfo, data_dir: str) -> list[tuple[str, str]]:
    """Count the samples of each class as training would read them."""
    from ..data.build import build_datasets

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            bundle = build_datasets(info.name, data_dir, step=info.given_steps or 1, use_cache=False, needs_train=False)
    except UserError as error:
        return [("missing", str(error))]
    train, test = (Counter(side.targets) for side in (bundle.train, bundle.test))
    lines = [("found", f"{train.total():,} training and {test.total():,} test samples in {data_dir}")]
    if bundle.num_classes <= _MOST_CLASSES:
        lines += [("", f"{name}: {train[label]:,} + {test[label]:,}") for label, name in enumerate(bundle.classes)]
    else:
        lines.append(("", f"each class: {_range(train, bundle.num_classes)} + {_range(test, bundle.num_classes)}"))
    return lines + [("incomplete", str(warning.message)) for warning in caught if info.name in str(warning.message)]


def _range(counts: Counter, num_classes: int) -> str:
    least, *_, most = sorted(counts[label] for label in range(num_classes))
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
