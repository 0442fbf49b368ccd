"""Write README.md's table of data sets from their entries: `python docs/make_data_sets.py`.

With `--check` nothing is written, and the status is 1 if the table is stale.
"""

import sys
from pathlib import Path

from braincog_transformers.data import DATASETS, DatasetInfo
from braincog_transformers.data.registry import TaskSet

README = Path(__file__).resolve().parents[1] / "README.md"
START, END = "<!-- data sets -->", "<!-- end of data sets -->"
KINDS = {"image": "pictures", "event": "events", "sequence": "sequences"}


def _row(info: DatasetInfo) -> str:
    train, test = info.samples or (0, 0)
    samples = f"{train:,} + {test:,}" if test else f"{train:,}, no official split" if train else "any number"
    files = f"`{info.tree.strip(',')}`" if info.folders else info.tree
    fetched = "yes" if info.downloadable else "no" if info.folders else "not needed"
    what = f"`--task {info.task}`" if isinstance(info, TaskSet) else KINDS[info.kind]
    what += f", {info.num_classes} classes" if info.num_classes else ""
    return f"| `{info.name}` | {what} | {samples} | {files} | {fetched} | {info.note} |"


def table() -> str:
    """Return the lines of the table: one row for each set."""
    head = "| `--dataset` | holds | samples for training and test | files below `--data-dir` | `--download` | note |"
    return "\n".join([head, "|---|---|---|---|---|---|", *map(_row, DATASETS.values())])


def main() -> int:
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(START)
    wanted = "\n".join([head + START, table(), END]) + rest.split(END)[1]
    if wanted == text:
        return 0
    if "--check" in sys.argv:
        print("README.md's table of data sets is stale: run python docs/make_data_sets.py", file=sys.stderr)
        return 1
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
