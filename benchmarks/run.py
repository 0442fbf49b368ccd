"""A training step and an evaluation of the same network on every side that can be had, as ratios to ours.

    pip install spikingjelly==2.0.0
    python -m benchmarks.run [--model NAME ...] [--mode training evaluation] [--dtype float32 bfloat16]

The spiking sides with our layers are compared first: same logits, same gradients. A time over ours is above 1 where
ours is faster. Memory is what the forward pass keeps for the backward pass, and the most that was alive at once.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from braincog_transformers.training.machine import keep_freed_memory

from .harness import OURS, Memory, as_plain, conditions, markdown, measure, memory, summarise
from .sides import JELLY_NEURONS, SIDES, Case, Side, Unavailable, build_side, difference

__all__ = ["compare", "main", "show"]

# Of QKFormer SpikingJelly has the networks for ImageNet, here on smaller images.
DEFAULT = {"spikformer_4_384_cifar": None, "sdt_2_512_cifar": None, "qkformer_10_384": 64}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Elsewhere:
    """A side in a process of its own, for what can't share one.

    Args:
        case: what is measured.
        name: of the side.
    """

    def __init__(self, case: Case, name: str):
        context = multiprocessing.get_context("spawn")
        self._line, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, case, name), daemon=True)
        self._process.start()
        reason, self.parameters, self.memory = self._line.recv()
        if reason is not None:
            raise Unavailable(reason)

    def __call__(self) -> None:
        self._line.send(True)
        self._line.recv()


def _serve(line: Connection, case: Case, name: str) -> None:
    """Build a side and run a step whenever asked."""
    keep_freed_memory()
    try:
        side = build_side(case, name)
    except Unavailable as error:
        line.send((str(error), 0, None))
        return
    line.send((None, side.parameters, memory_of(side)))
    while line.recv():
        side()
        if case.device == "cuda":
            torch.cuda.synchronize()
        line.send(None)


def memory_of(side: Side) -> Memory:
    """Return what a step keeps and needs."""
    side()
    training = side.case.mode == "training"
    return memory(side.forward, forget=side.forget, backward=training, device=side.x.device)


def compare(
    case: Case, names: list[str], *, rounds: int, build: Callable[[Case, str], Any] = build_side
) -> dict[str, Any]:
    """Measure one case on the named sides, ours first.

    Args:
        case: what is measured.
        names: sides.
        rounds: measured steps of each side.
        build: `build_side`, or `Elsewhere` for a process each.

    Returns:
        The case, figures by side, and the reasons of the sides that can't be had.
    """
    torch._dynamo.reset()  # after eight networks it would give up and run the ninth uncompiled, without a word
    sides, missing = {}, {}
    for name in names:
        try:
            sides[name] = build(case, name)
        except Unavailable as error:
            missing[name] = str(error)
    figures = as_plain(summarise(measure(sides, rounds=rounds)))
    for name, side in sides.items():
        used = side.memory if isinstance(side, Elsewhere) else memory_of(side)
        figures[name] |= {"kept": used.kept, "peak": used.peak, "parameters": side.parameters}
    shared = build is build_side and case.dtype == torch.float32 and JELLY_NEURONS in sides
    return {
        "model": case.model, "mode": case.mode, "dtype": str(case.dtype).removeprefix("torch."), "batch": case.batch,
        "device": case.device, "options": dict(case.options), "sides": figures, "missing": missing,
        "difference": difference(sides[OURS], sides[JELLY_NEURONS]) if shared else None,
    }  # fmt: skip


def show(found: dict[str, Any]) -> str:
    """Lay out one comparison."""
    training, batch, ours = found["mode"] == "training", found["batch"], found["sides"][OURS]
    options = "".join(f", {key}={value}" for key, value in found["options"].items())
    what = {"training": "training step", "evaluation": "evaluation"}[found["mode"]]
    title = f"**{found['model']}, {what}, {found['dtype']}**, batch {batch}{options}, {found['device']}"
    head = ["side", "ms", "this / ours", "quartiles", "peak, MiB", "parameters"]
    head[4:4] = ["kept, MiB per sample", "ours / this"] * training
    rows = []
    for name, row in found["sides"].items():
        line = [name, f"{row['ms']:.1f}", f"{row['ratio']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}"]
        if training:
            share = f"{ours['kept'] / row['kept']:.2f}" if row["kept"] else "-"
            line += [f"{row['kept'] / 2**20 / batch:.2f}", share]
        rows.append([*line, f"{row['peak'] / 2**20:.0f}", f"{row['parameters']:,}"])
    text = f"{title}\n\n{markdown(head, rows)}\n"
    if found["difference"] is not None:
        of = "gradient (over the largest norm)" if training else "logit"
        text += f"\nLargest difference of a {of} between ours and {JELLY_NEURONS}: {found['difference']:.1e}\n"
    return text + "".join(f"\nNot measured: {name}, because {reason}.\n" for name, reason in found["missing"].items())


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=list(DEFAULT))
    parser.add_argument("--mode", nargs="+", default=["training", "evaluation"], choices=["training", "evaluation"])
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--side", nargs="+", default=list(SIDES), choices=list(SIDES), help="sides beside ours")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--img-size", type=int, help="side of the images, where not the network's own")
    parser.add_argument("--rounds", type=int, default=15, help="measured steps of each side")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--processes", action="store_true", help="a process for each side")
    parser.add_argument("--json", help="file to write the figures to")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    names = [OURS, *(name for name in args.side if name != OURS)]
    result: dict[str, Any] = {"conditions": conditions(args.device), "comparisons": []}
    print(", ".join(f"{key} {value}" for key, value in result["conditions"].items()), end="\n\n")
    for model in args.model:
        side = args.img_size or DEFAULT.get(model)
        for mode in args.mode:
            for dtype in args.dtype:
                options = {"img_size": side} if side else {}
                case = Case(model, mode, DTYPES[dtype], args.batch, args.device, options)
                build = Elsewhere if args.processes else build_side
                result["comparisons"].append(compare(case, names, rounds=args.rounds, build=build))
                print(show(result["comparisons"][-1]), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
