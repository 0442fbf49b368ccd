"""Two epochs of the smallest networks of every family on the embedded digits, through the command line.

    python -m benchmarks.two_epochs [NAME ...]

Prints the training loss of both epochs, the test accuracy and the time; the status is 1 unless every loss falls.
"""

import csv
import sys
import tempfile
import time
from pathlib import Path

import timm

from braincog_transformers import list_models
from braincog_transformers.cli import main as command_line

OPTIONS = {
    "--epochs": 2,
    "--cooldown-epochs": 0,
    "--warmup-epochs": 0,
    "--batch-size": 64,
    "--lr": 2e-3,
    "--lr-base-size": 0,
    "--weight-decay": 0.05,
    "--threshold": 0.5,
    "--workers": 0,
    "--log-interval": 1000,
}


def smallest() -> list[str]:
    """Return the names of the networks for the embedded digits, as pictures and as events."""
    return list_models("*digits")


def train(name: str, folder: str) -> tuple[list[float], float, float]:
    """Return the training losses of both epochs, the last test accuracy in percent and the seconds."""
    side = str(timm.get_pretrained_cfg(name).input_size[-1])
    events = name.endswith("ndigits")
    data = ["--dataset", "ndigits", "--event-size", side] if events else ["--dataset", "digits", "--img-size", side]
    options = [str(word) for pair in OPTIONS.items() for word in pair]
    places = ["--output", folder, "--experiment", name, "--tensorboard-dir", f"{folder}/runs", "--data-dir", folder]
    started = time.perf_counter()
    if status := command_line(["--model", name, *data, *options, *places]):
        raise SystemExit(status)
    seconds = time.perf_counter() - started
    with (Path(folder) / name / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [float(row["train_loss"]) for row in rows], float(rows[-1]["test_top1"]), seconds


def main() -> int:
    names = sys.argv[1:] or smallest()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            losses, top1, seconds = train(name, folder)
            rows.append((name, losses, top1, seconds))
    print(f"\n{'model':<24}{'loss, epoch 1':>14}{'epoch 2':>9}{'top-1':>8}{'seconds':>9}")
    for name, losses, top1, seconds in rows:
        print(f"{name:<24}{losses[0]:>14.3f}{losses[1]:>9.3f}{top1:>7.1f}%{seconds:>9.0f}")
    return 0 if all(losses[1] < losses[0] for _, losses, *_ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
