"""One LIF layer, forward and backward: ours, SpikingJelly's, BrainCog's, the plain definition, and a copy as the floor.

    pip install spikingjelly==2.0.0
    python -m benchmarks.neuron

The input is 4x16x384x64 (T, B, N, C), float32 and bfloat16. The sides take turns; medians are shown, and the share of
spikes that differ from the plain definition: a membrane kept in bfloat16 rounds.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from braincog_transformers import LIFNode
from braincog_transformers.ops.kernels.fused_neuron import multi_step
from braincog_transformers.ops.neuron import Dynamics

SHAPE = (4, 16, 384, 64)


def sides(x: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return each side as a function from `(T, B, N, C)` to spikes."""
    from braincog.base.node.node import LIFNode as BrainCogLIF
    from braincog.base.strategy.surrogate import SigmoidGrad
    from spikingjelly.activation_based import neuron, surrogate

    ours = LIFNode(
        threshold=1.0, act_fun="SigmoidGrad", alpha=4.0, strict=False, step=SHAPE[0], layer_by_layer=True
    ).to(x.device)
    theirs = neuron.LIFNode(
        tau=2.0, surrogate_function=surrogate.Sigmoid(alpha=4.0), detach_reset=True, step_mode="m"
    ).to(x.device)
    brain_cog = BrainCogLIF(threshold=1.0, act_fun=SigmoidGrad, step=SHAPE[0], layer_by_layer=True).to(x.device)
    brain_cog.act_fun.alpha.data.fill_(4.0)
    tau, one, four = torch.tensor(2.0), torch.ones((), device=x.device), torch.full((), 4.0, device=x.device)

    def spikingjelly(x: Tensor) -> Tensor:
        theirs.reset()
        return theirs(x)

    def braincog(x: Tensor) -> Tensor:
        brain_cog.n_reset()
        return brain_cog(x.flatten(0, 1).flatten(1)).view(SHAPE)

    return {
        "ours": lambda x: ours(x.flatten(0, 1)).unflatten(0, SHAPE[:2]),
        "spikingjelly 2.0.0": spikingjelly,
        "braincog": braincog,
        "plain definition": lambda x: multi_step(x, tau, one, four, Dynamics(), backend="reference").spikes,
        "copy": lambda x: x.clone(),
    }


def measure(dtype: torch.dtype, device: str, rounds: int) -> None:
    """Print milliseconds of forward and backward, and ratios to ours."""
    x = torch.randn(SHAPE, device=device, dtype=dtype, requires_grad=True)
    grad = torch.randn_like(x)
    functions, times, differ = sides(x), {}, {}
    expected = functions["plain definition"](x)
    for number in range(rounds + 3):
        for name, function in functions.items():
            x.grad = None
            start = time.perf_counter()
            out = function(x)
            out.backward(grad)
            if x.is_cuda:
                torch.cuda.synchronize()
            if number >= 3:
                times.setdefault(name, []).append(1e3 * (time.perf_counter() - start))
            else:
                differ[name] = (out != expected).float().mean().item()
    print(f"\n| {str(dtype).removeprefix('torch.')} | ms, forward and backward | of ours | other spikes |")
    print("|---|---|---|---|")
    ours = statistics.median(times["ours"])
    for name, found in times.items():
        other = "" if name == "copy" else f"{100 * differ[name]:.2g} %"
        print(f"| {name} | {statistics.median(found):.2f} | {statistics.median(found) / ours:.2f} | {other} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="measured calls of each side")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for dtype in (torch.float32, torch.bfloat16):
        measure(dtype, args.device, args.rounds)


if __name__ == "__main__":
    main()
