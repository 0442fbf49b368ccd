"""One training step of the same network with three kinds of neurons, side by side: ours, SpikingJelly's, and none.

    pip install spikingjelly==2.0.0
    python -m benchmarks.training_step

The network is Spikformer-4-384 on 32x32 images, T=4, batch 8, as built here; only its neurons are exchanged. Identity
neurons are the floor: what the layers alone cost. First the gradients of the two spiking sides are compared; then the
sides take turns, so that whatever else the machine does meets all of them. Times are medians; ratios are taken round by
round, and their median is shown with its quartiles. Memory is what autograd keeps for the backward pass, counted by
saved-tensor hooks.
"""

import argparse
import json
import platform
import statistics
import time
from contextlib import nullcontext
from importlib.metadata import version

import timm
import torch
from torch import nn
from torch.nn import functional as F

import braincog_transformers  # noqa: F401 - registers the models

BATCH, STEPS, CLASSES = 8, 4, 10


class SpikingJellyNode(nn.Module):
    """SpikingJelly's multi-step LIF neuron in the place of ours: same dynamics, reset before each call."""

    def __init__(self, threshold: float):
        super().__init__()
        from spikingjelly.activation_based import neuron, surrogate

        self.lif = neuron.LIFNode(
            tau=2.0,
            v_threshold=threshold,
            surrogate_function=surrogate.Sigmoid(alpha=4.0),
            detach_reset=True,
            step_mode="m",
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.lif.reset()
        return self.lif(x.unflatten(0, (STEPS, -1))).flatten(0, 1)


def network(side: str) -> nn.Module:
    """Build the network with the neurons of one side."""
    torch.manual_seed(0)
    model = timm.create_model("spikformer_4_384_cifar", step=STEPS)
    if side != "ours":
        for name, node in model.nodes.items():
            other = nn.Identity() if side == "identity" else SpikingJellyNode(node.threshold.item())
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, other)
    return model.train()


def training_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Forward and backward; `dtype` bfloat16 runs under autocast."""
    model.zero_grad(set_to_none=True)
    with nullcontext() if dtype == torch.float32 else torch.autocast(x.device.type, dtype):
        loss = F.cross_entropy(model(x).float(), y)
    loss.backward()
    return loss.detach()


def kept_bytes(model: nn.Module, x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> int:
    """Count the bytes of distinct storages that autograd keeps, parameters left out."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        training_step(model, x, y, dtype)
    return sum(storage.nbytes() for storage in storages.values())


def check_agreement(models: dict[str, nn.Module], x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the largest difference between a gradient of ours and SpikingJelly's, over the largest norm of any.

    A bias in front of a normalisation has no gradient but rounding errors, so its own norm says nothing.
    """
    gradients = []
    for side in ("ours", "spikingjelly"):
        training_step(models[side], x, y, torch.float32)
        gradients.append([p.grad for p in models[side].parameters() if p.grad is not None])
    largest = max(b.norm() for b in gradients[1])
    return max(((a - b).norm() / largest).item() for a, b in zip(*gradients, strict=True))


def compare(models: dict[str, nn.Module], x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype, rounds: int) -> dict:
    """Time the sides in turns; return milliseconds, ratios to ours, and bytes kept."""
    for model in models.values():
        for _ in range(3):
            training_step(model, x, y, dtype)
    times: dict[str, list[float]] = {side: [] for side in models}
    for _ in range(rounds):
        for side, model in models.items():
            start = time.perf_counter()
            training_step(model, x, y, dtype)
            if x.is_cuda:
                torch.cuda.synchronize()
            times[side].append(1e3 * (time.perf_counter() - start))
    result = {}
    for side, model in models.items():
        ratios = sorted(ours / other for ours, other in zip(times["ours"], times[side], strict=True))
        result[side] = {
            "ms": statistics.median(times[side]),
            "ours/this": statistics.median(ratios),
            "quartiles": (ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]),
            "kept MiB per sample": kept_bytes(model, x, y, dtype) / 2**20 / BATCH,
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="measured steps of each side")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="file to write the figures to")
    args = parser.parse_args()
    x = torch.rand(BATCH, 3, 32, 32, device=args.device)
    y = torch.arange(BATCH, device=args.device) % CLASSES
    models = {side: network(side).to(args.device) for side in ("ours", "spikingjelly", "identity")}
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    versions = {name: version(name) for name in ("torch", "timm", "spikingjelly", "braincog")}
    print(f"{machine}; {versions}")
    print(f"largest relative difference of a gradient, ours to SpikingJelly's: {check_agreement(models, x, y):.1e}")
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        results[str(dtype)] = compare(models, x, y, dtype, args.rounds)
        print(f"\n| {str(dtype).removeprefix('torch.')} | ms | ours / this | quartiles | kept, MiB per sample |")
        print("|---|---|---|---|---|")
        for side, row in results[str(dtype)].items():
            low, high = row["quartiles"]
            print(
                f"| {side} | {row['ms']:.0f} | {row['ours/this']:.3f} | {low:.3f} to {high:.3f} "
                f"| {row['kept MiB per sample']:.1f} |"
            )
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"machine": machine, "versions": versions, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
