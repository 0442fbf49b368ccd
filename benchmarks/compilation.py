"""How often a network is compiled: graphs, graph breaks and recompilations over batches of different sizes.

    python -m benchmarks.compilation [--model NAME ...] [--backend inductor]

Six batches pass, the last but one and the last smaller, as a loop meets at the end of an epoch. The goal is one graph
for the size of most batches and one for all others, in training and in evaluation.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch._dynamo import lookup_backend
from torch._dynamo.utils import counters

from braincog_transformers.training.distributed import compile_for_batches

from .harness import conditions, markdown
from .scaling import STEPPED

__all__ = ["Compiled", "count", "main"]

NETWORKS = ("spikformer_digits", *(name for name in STEPPED if name.endswith("digits")))
SIZES = (32, 32, 32, 32, 24, 20)


class Compiled(NamedTuple):
    """What compiling took.

    Args:
        graphs: compiled after each batch, added up; 1 for equal batches and 2 with others is the goal.
        breaks: reasons of graph breaks.
    """

    graphs: list[int]
    breaks: list[str]


def count(network: nn.Module, sizes: Sequence[int] = SIZES, *, training: bool, backend: str = "aot_eager") -> Compiled:
    """Run batches through the network as `--compile` does and count.

    Args:
        network: one of ours.
        sizes: samples of each batch.
        training: forward and backward, else the forward pass without gradients.
        backend: "inductor" generates code, "aot_eager" only traces and differentiates, which counts the same.
    """
    torch._dynamo.reset()
    counters.clear()
    made, chosen = [], lookup_backend(backend)

    def counted(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        made.append(graph)  # not PyTorch's own count, which has the kernels of `ops` in it
        return chosen(graph, inputs)

    call = compile_for_batches(network.train(training), backend=counted)
    steps = (network.step,) if network.in_chans == 2 or network.img_size[0] == 1 else ()
    graphs = []
    for size in sizes:
        x = torch.rand(size, *steps, network.in_chans, *network.img_size)
        with torch.set_grad_enabled(training):
            logits = call(x)
        if training:
            logits.sum().backward()
        graphs.append(len(made))
    return Compiled(graphs, list(counters["graph_break"]))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=NETWORKS)
    parser.add_argument("--backend", default="aot_eager", choices=["aot_eager", "inductor"])
    parser.add_argument("--json", help="file to write the figures to")
    args = parser.parse_args(argv)
    rows, figures = [], {}
    for name in args.model:
        for training in (True, False):
            mode = "training" if training else "evaluation"
            found = count(timm.create_model(name), training=training, backend=args.backend)
            rows.append([name, mode, " ".join(map(str, found.graphs)), "; ".join(found.breaks) or "none"])
            figures[f"{name}, {mode}"] = found._asdict()
    print(f"Batches of {', '.join(map(str, SIZES))} samples.\n")
    print(markdown(["network", "mode", "graphs after each batch", "graph breaks"], rows))
    if args.json:
        Path(args.json).write_text(json.dumps({"conditions": conditions(), "compiled": figures}, indent=1))


if __name__ == "__main__":
    main()
