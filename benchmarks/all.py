"""Repeat every measurement: the tables of docs/benchmarks.md, their figures as JSON, and the charts in img.

    pip install spikingjelly==2.0.0 aedat torchvision
    python -m benchmarks.all

Each benchmark runs in a process of its own. What it prints goes into the page, between the marks with its name.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from braincog_transformers.analysis.pictures.plots import save

from .charts import plot_comparisons, plot_scaling

__all__ = ["COMMANDS", "insert", "main"]

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "run", "loss_curves", "evaluation", "scaling", "compilation", "neuron", "neurons", "events", "conversion",
    "conversion_braincog",
)  # fmt: skip
WRITES_JSON = ("run", "scaling", "compilation")


def insert(page: str, name: str, text: str) -> str:
    """Return the page with `text` between the marks of a benchmark.

    Raises:
        ValueError: if the page lacks them.
    """
    pattern = rf"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)"
    if not re.search(pattern, page, re.DOTALL):
        raise ValueError(f"docs/benchmarks.md has no marks <!-- begin {name} --> and <!-- end {name} -->")
    return re.sub(pattern, lambda marks: f"{marks[1]}\n{text.strip()}\n\n{marks[2]}", page, flags=re.DOTALL)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(COMMANDS), choices=COMMANDS)
    parser.add_argument("--figures", type=Path, default=Path("runs/benchmarks"), help="folder of the JSON files")
    args = parser.parse_args(argv)
    args.figures.mkdir(parents=True, exist_ok=True)
    page = ROOT / "docs" / "benchmarks.md"
    for name in args.only:
        options = ["--json", str(args.figures.resolve() / f"{name}.json")] if name in WRITES_JSON else []
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", *options]
        print(" ".join(command), flush=True)
        printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        page.write_text(insert(page.read_text(encoding="utf-8"), name, printed), encoding="utf-8")
    for name, picture, plot in (("run", "benchmarks", plot_comparisons), ("scaling", "scaling", plot_scaling)):
        if name in args.only:
            save(plot(json.loads((args.figures / f"{name}.json").read_text())), ROOT / "img" / f"{picture}.png")


if __name__ == "__main__":
    main()
