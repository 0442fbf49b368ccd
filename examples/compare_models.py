"""Train two small networks from the command line, and compare their runs in one HTML page."""

import csv
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from braincog_transformers.cli import main
from braincog_transformers.report import write_report

MODELS = ("spikformer_digits", "qkformer_digits")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/compare_models")
recipe = Path(__file__).parent / "recipes" / "spikformer_digits.yaml"
folder.mkdir(parents=True, exist_ok=True)

runs = []
for name in MODELS:
    common = ["-c", str(recipe), "--output", str(folder), "--experiment", name, "--model", name, "--step", "2"]
    train = ["--epochs", "1", "--warmup-epochs", "0", "--bn-momentum", "0.3", "--no-spike-rate"]
    analyze = ["--analyze", "--eval_checkpoint", str(folder / name / "last.pth.tar")]
    for command in (train, analyze):
        with (folder / f"{name}.log").open("a") as log, redirect_stdout(log):
            status = main([*common, *command])
        if status:
            sys.exit(status)
    runs.append(folder / name)
    last = list(csv.DictReader((runs[-1] / "summary.csv").open()))[-1]
    total = json.loads((runs[-1] / "energy.json").read_text())["total"]
    print(f"{name}: after one epoch {float(last['test_top1']):.1f} % right, {total['energy_mj']:.4f} mJ a digit")

page = write_report(runs, folder / "comparison.html")
print(f"wrote {page}, {page.stat().st_size / 2**10:.0f} KiB in one file: accuracy against energy, settings, curves")
