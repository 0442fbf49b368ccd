"""Each kind of neuron over a LIF neuron, forward and backward: what a second state variable or an own step costs.

    python -m benchmarks.neurons

The input is 32x384x16x16 (T*B with T = 4, C, H, W), float32. The sides take turns; ratios are taken round by round.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from braincog_transformers.nodes import make_node

from .harness import conditions, markdown, measure, summarise

KINDS = ("LIFNode", "PLIFNode", "IFNode", "ALIFNode", "CLIFNode")
STEPS = 4
SHAPE = (STEPS * 8, 384, 16, 16)


def side(kind: str, x: Tensor, grad: Tensor, backward: bool) -> Callable[[], None]:
    """Return a call of one kind of neuron."""
    options = {"threshold": 1.0, "act_fun": "SigmoidGrad", "alpha": 4.0}
    node = make_node(kind, step=STEPS, layer_by_layer=True, **options).to(x.device)

    def call() -> None:
        x.grad = None
        with torch.set_grad_enabled(backward):
            spikes = node(x)
        if backward:
            spikes.backward(grad)

    return call


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--rounds", type=int, default=40, help="measured calls of each kind")
    parser.add_argument("--shape", type=int, nargs="+", default=SHAPE, help="of the input, T*B first")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    x = torch.randn(*args.shape, device=args.device, requires_grad=True)
    grad = torch.randn_like(x)
    print(", ".join(f"{key} {value}" for key, value in conditions(args.device).items()))
    base = args.kinds[0]
    for backward, title in ((False, "forward"), (True, "forward and backward")):
        found = summarise(
            measure({kind: side(kind, x, grad, backward) for kind in args.kinds}, rounds=args.rounds), base
        )
        rows = [
            [kind, f"{row.ms:.2f}", f"{row.ratio:.2f}", f"{row.low:.2f} to {row.high:.2f}"]
            for kind, row in found.items()
        ]
        print(f"\n**{title}**\n\n{markdown(['neuron', 'ms', f'this / {base}', 'quartiles'], rows)}", flush=True)


if __name__ == "__main__":
    main()
