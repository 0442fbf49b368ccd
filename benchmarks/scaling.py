"""How cost grows: attention with four times the tokens, a training step with twice the steps, and what starting costs.

    python -m benchmarks.scaling

Attention is taken out of a network of its family, alone, with what it receives there, and run forward and backward: at
N tokens and, from the network on images of twice the side, at 4N. TIM is left out: its temporal interaction needs as
many tokens as a head is wide. Commands and imports start fresh processes. The two sides of every row take turns.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

from .harness import Summary, as_plain, conditions, markdown, measure, summarise
from .sides import Case, build_side

__all__ = ["ATTENTIONS", "STEPPED", "AttentionCase", "attention_call", "main", "received"]

ROOT = Path(__file__).parents[1]


class AttentionCase(NamedTuple):
    """Where an attention is found.

    Args:
        model: registered name.
        module: its name in the network.
        side: side of the smaller image; N is at least a head's width, so that both sizes multiply in the same order.
        linear: whether its cost grows in proportion to the tokens; else the reason why not.
    """

    model: str
    module: str
    side: int
    linear: bool | str


ATTENTIONS = {
    "Spikformer": AttentionCase("spikformer_2_384_cifar", "blocks.0.attn", 32, True),
    "Spikingformer": AttentionCase("spikingformer_2_384_cifar", "blocks.0.attn", 32, True),
    "Spike-driven Transformer": AttentionCase("sdt_2_256_cifar", "blocks.0.attn", 32, True),
    "Spike-driven Transformer, pooled": AttentionCase("sdt_2_256_dvs", "blocks.0.attn", 32, True),
    "Spike-driven Transformer V2": AttentionCase("sdt_v2_15m", "stages.2.1.attn", 128, True),
    "QKFormer, Q-K token attention": AttentionCase("qkformer_4_384_cifar", "stages.0.blocks.0.attn", 32, True),
    "QKFormer, last stage": AttentionCase("qkformer_4_384_cifar", "stages.2.blocks.0.attn", 32, True),
    "SGLFormer, local": AttentionCase("sglformer_4_384_cifar", "blocks.0.branches.ssa1", 64, True),
    "SGLFormer, global": AttentionCase("sglformer_4_384_cifar", "blocks.0.branches.ssa2", 32, True),
    "SpikingResformer": AttentionCase(
        "spikingresformer_cifar", "stages.0.0.attn", 32, "a neuron fires on the map of N times N/p² products"
    ),
    "Spike-driven Transformer V3": AttentionCase("sdt_v3_5m", "stages.2.1.attn", 128, True),
    "Spike-driven Transformer V3, large": AttentionCase("sdt_v3_83m", "blocks.0.attn", 128, True),
    "Spikformer V2": AttentionCase("spikformer_v2_8_384", "blocks.0.attn", 128, True),
    "OST": AttentionCase("ost_2_384_cifar", "blocks.0.attn", 32, True),
    "AutoST": AttentionCase("autost_tiny", "blocks.0.attn", 32, True),
    "Dynamic SpikFormer": AttentionCase("dynamic_spikformer_4_384_cifar", "blocks.0.attn", 32, True),
    "Attention-free Spikformer": AttentionCase(
        "attention_free_spikformer_4_384_cifar", "blocks.0.attn", 32, "a transform of N tokens takes N log N"
    ),
    "DISTA": AttentionCase("dista_4_384_cifar", "blocks.0.attn", 32, "a threshold is on the map of N times N products"),
    "STS-Transformer": AttentionCase("stsa_ndigits", "blocks.0.attn", 32, "a mask is on the map of all pairs"),
    "Spikeformer": AttentionCase("spikeformer_7_3x2x3", "blocks.0.attn", 64, "its softmax needs the map of all pairs"),
}
STEPPED = (
    "spikformer_4_384_cifar", "qkformer_digits", "sdt_digits", "sdt_v2_digits", "sglformer_digits",
    "spikingformer_digits", "spikingresformer_digits", "tim_ndigits",
)  # fmt: skip
BRAINCOG = "import braincog.base.node.node, braincog.model_zoo.base_module"


class _Found(Exception):
    """The attention's input, which ends the forward pass that looks for it."""


def attention_call(case: AttentionCase, side: int, batch: int) -> Callable[[], None]:
    """Return a forward and backward pass of the attention alone, in the network on images of `side` pixels."""
    attention, x = received(case, side, batch)
    gradient = torch.rand_like(x.requires_grad_())

    def call() -> None:
        attention.zero_grad(set_to_none=True)
        x.grad = None
        attention(x).backward(gradient)

    return call


def received(case: AttentionCase, side: int, batch: int) -> tuple[nn.Module, Tensor]:
    """Return the attention, and what it receives in the network on noise of `side` pixels."""
    torch.manual_seed(0)
    network = timm.create_model(case.model, img_size=side, step=4).train()
    attention = network.get_submodule(case.module)

    def stop(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        raise _Found(args[0].detach())

    steps = (network.step,) if network.in_chans == 2 else ()
    with attention.register_forward_pre_hook(stop), torch.no_grad():
        try:
            network(torch.rand(batch, *steps, network.in_chans, *network.img_size))
        except _Found as found:
            return attention, found.args[0]
    raise RuntimeError("the network never called its attention")


def grow_tokens(rounds: int, batch: int) -> dict[str, Summary]:
    """Return, for each attention, the time at 4N tokens over that at N."""
    found = {}
    for name, case in ATTENTIONS.items():
        sides = {factor: attention_call(case, case.side * factor, batch) for factor in (1, 2)}
        found[name] = summarise(measure(sides, rounds=rounds), base=1)[2]
    return found


def grow_steps(rounds: int, names: tuple[str, ...] = STEPPED) -> dict[str, Summary]:
    """Return, for each network, the time of a training step with T=8 over that with T=4."""
    found = {}
    for name in names:
        batch = 2 if name.endswith("cifar") else 8
        sides = {step: build_side(Case(name, batch=batch, options={"step": step}), "ours") for step in (4, 8)}
        found[name] = summarise(measure(sides, rounds=rounds), base=4)[8]
    return found


def start(rounds: int) -> dict[str, Summary]:
    """Return how long fresh processes take, over braincog's own import: of its nodes and its base of networks."""

    def process(*words: str) -> Callable[[], object]:
        command = [sys.executable, "-W", "ignore", *words]
        return lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    sides = {
        BRAINCOG: process("-c", BRAINCOG),
        "import braincog_transformers": process("-c", "import braincog_transformers"),
        "python main.py --help": process("main.py", "--help"),
    }
    return summarise(measure(sides, rounds=rounds, warm_up=1), base=BRAINCOG)


def _rows(found: dict[str, Summary], goal: Callable[[str], str]) -> list[list[str]]:
    return [
        [name, f"{row.ms:.1f}", f"{row.ratio:.2f}", f"{row.low:.2f} to {row.high:.2f}", goal(name)]
        for name, row in found.items()
    ]


def token_goal(name: str) -> str:
    """Return the goal of an attention, or why it has none."""
    linear = ATTENTIONS[name].linear
    return "at most 4.4" if linear is True else f"none: not linear, {linear}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="measured calls of each side")
    parser.add_argument("--start-rounds", type=int, default=5, help="fresh processes of each kind")
    parser.add_argument("--batch", type=int, default=2, help="images whose tokens the attention gets")
    parser.add_argument("--json", help="file to write the figures to")
    args = parser.parse_args(argv)
    told = conditions()
    print(", ".join(f"{key} {value}" for key, value in told.items()), end="\n\n")
    tokens = grow_tokens(args.rounds, args.batch)
    head = ["attention, forward and backward", "ms at 4N", "4N / N", "quartiles", "goal"]
    print(markdown(head, _rows(tokens, token_goal)), end="\n\n", flush=True)
    steps = grow_steps(args.rounds)
    head = ["training step", "ms at T=8", "T=8 / T=4", "quartiles", "goal"]
    print(markdown(head, _rows(steps, lambda _: "at most 2.1")), end="\n\n", flush=True)
    started = start(args.start_rounds)
    goals = {BRAINCOG: "", "import braincog_transformers": "at most 1.10", "python main.py --help": "under 500 ms"}
    head = ["fresh process", "ms", "of braincog's", "quartiles", "goal"]
    print(markdown(head, _rows(started, goals.get)))
    if args.json:
        figures = {"tokens": as_plain(tokens), "steps": as_plain(steps), "start": as_plain(started)}
        Path(args.json).write_text(json.dumps({"conditions": told, **figures}, indent=1))


if __name__ == "__main__":
    main()
