"""How the benchmarks measure: sides in turn, ratios round by round, memory, and the tables that show them.

A side is a function without arguments. The sides take turns, so that whatever else the machine does meets all of them;
ratios are taken within a round, and their median is shown with its quartiles. Nothing here knows a network.
"""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from braincog_transformers.analysis.memory import Memory, memory
from braincog_transformers.training.machine import keep_freed_memory, processor

__all__ = ["OURS", "Memory", "Summary", "conditions", "markdown", "measure", "memory", "summarise"]

OURS = "ours"
PACKAGES = ("torch", "timm", "braincog", "spikingjelly", "tonic", "numpy")


@dataclass(frozen=True)
class Summary:
    """What the rounds of one side say.

    Args:
        ms: median of a call, in milliseconds.
        ratio: median over rounds of this side's time over that of the side compared with.
        low: lower quartile of that ratio.
        high: upper quartile.
    """

    ms: float
    ratio: float
    low: float
    high: float


def measure(sides: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Call the sides in turn and return the milliseconds of every call.

    Args:
        sides: functions by name; each returns when its work is done, or has sent it to the CUDA device.
        rounds: measured calls of each side.
        warm_up: calls of each side before that.
    """
    keep_freed_memory()  # as main.py does; every side is faster with it
    for call in sides.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            _wait()
            started = time.perf_counter()
            call()
            _wait()
            times[name].append(1e3 * (time.perf_counter() - started))
    return times


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def summarise(times: Mapping[str, list[float]], base: str = OURS) -> dict[str, Summary]:
    """Return medians, and ratios to the side `base` (above 1 where `base` is faster), taken round by round."""
    found = {}
    for name, own in times.items():
        ratios = [a / b for a, b in zip(own, times[base], strict=True)]
        low, middle, high = (float(q) for q in np.percentile(ratios, (25, 50, 75)))
        found[name] = Summary(float(np.median(own)), middle, low, high)
    return found


def conditions(device: str = "cpu") -> dict[str, str]:
    """Say what a measurement ran on: machine, load, versions, commit."""
    cuda = torch.cuda.get_device_name() if device.startswith("cuda") else ""
    return {
        "machine": cuda or f"{processor()}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay out a table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_plain(summaries: Mapping[str, Summary]) -> dict[str, dict[str, float]]:
    """Turn summaries into what JSON takes."""
    return {name: asdict(summary) for name, summary in summaries.items()}
