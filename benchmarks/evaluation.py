"""Evaluation of one network in the forms it can take, side by side, against SpikingJelly's neurons in the same layers.

    pip install spikingjelly==2.0.0 'braincog_transformers[onnx]'
    python -m benchmarks.evaluation

The network is Spikformer-4-384 on 32x32 images, T=4, as built here. First every form's logits are compared with the
unfused network's; then the sides take turns, so that whatever else the machine does meets all of them. Times are
medians; ratios are taken round by round, and their median is shown with its quartiles. In bfloat16 the unfused sides
run under autocast, as one would run them, and the fused ones hold their weights in it. Forms that make files (ONNX,
AOTInductor) are made afresh, which takes minutes.
"""

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from braincog_transformers.export import TOLERANCE, compile_aot, export_onnx, load_exported

from .training_step import CLASSES, network

FORMS = ("spikingjelly", "unfused", "fused", "inference mode", "compiled", "aot", "onnx")


def lively(side: str) -> nn.Module:
    """Build the network of `training_step` for evaluation, with normalisations that let its neurons fire."""
    model = network(side)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.7)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(8):  # running statistics as after some training
            model(torch.randn(8, 3, 32, 32))
    return model.eval().requires_grad_(False)


def onnx_session(model: nn.Module, folder: Path) -> Callable[[Tensor], Tensor]:
    """Export, and open with as many threads as PyTorch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = export_onnx(model, folder / "network.onnx", check=False)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


def forms(names: list[str], dtype: torch.dtype, folder: Path) -> dict[str, Callable[[Tensor], Tensor]]:
    """Build each side as a function from float32 images to logits."""
    weights = lively("ours").state_dict()
    unfused, peer = network("ours"), network("spikingjelly")
    for model in (unfused, peer):
        model.load_state_dict(weights, strict=False)  # the peer's neurons hold no thresholds
        model.eval().requires_grad_(False)
    fused = copy.deepcopy(unfused).fuse().to(dtype)

    def under_autocast(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
                return model(x)

        return run

    build = {
        "spikingjelly": lambda: under_autocast(peer),
        "unfused": lambda: under_autocast(unfused),
        "fused": lambda: torch.no_grad()(lambda x: fused(x.to(dtype))),
        "inference mode": lambda: torch.inference_mode()(lambda x: fused(x.to(dtype))),
        "compiled": lambda: compiled(fused, dtype),
        "aot": lambda: aot(copy.deepcopy(unfused).to(dtype), folder, dtype),
        "onnx": lambda: onnx_session(unfused, folder),
    }
    # onnxruntime has no convolution in bfloat16 on a CPU
    return {name: build[name]() for name in names if not (name == "onnx" and dtype != torch.float32)}


def compiled(model: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    call = torch.compile(model, fullgraph=True)
    return torch.no_grad()(lambda x: call(x.to(dtype)))


def aot(model: nn.Module, folder: Path, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    call = load_exported(compile_aot(model, folder / "network.aot.pt2"))
    return lambda x: call(x.to(dtype))


def compare(sides: dict[str, Callable[[Tensor], Tensor]], x: Tensor, rounds: int) -> dict[str, dict]:
    """Time the sides in turns; return milliseconds, how much faster than the first, and how many samples agree."""
    expected = sides["unfused" if "unfused" in sides else next(iter(sides))](x).float()
    close = {}
    for side, run in sides.items():
        for _ in range(2):
            logits = run(x).float()
        close[side] = int(((logits - expected).abs().amax(1) <= TOLERANCE).sum())
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            start = time.perf_counter()
            run(x)
            times[side].append(1e3 * (time.perf_counter() - start))
    first, result = next(iter(sides)), {}
    for side in sides:
        ratios = sorted(base / own for base, own in zip(times[first], times[side], strict=True))
        result[side] = {
            "ms": statistics.median(times[side]),
            "times as fast": statistics.median(ratios),
            "quartiles": (ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]),
            "samples close": close[side],
        }
    return result


def table(rows: dict[str, dict], dtype: torch.dtype, batch: int) -> str:
    first = next(iter(rows))
    lines = [
        f"| {str(dtype).removeprefix('torch.')}, batch {batch} | ms | times as fast as {first} | quartiles "
        f"| samples that agree to {TOLERANCE:g} |",
        "|---|---|---|---|---|",
    ]
    for side, row in rows.items():
        low, high = row["quartiles"]
        lines.append(
            f"| {side} | {row['ms']:.0f} | {row['times as fast']:.2f} | {low:.2f} to {high:.2f} "
            f"| {row['samples close']} of {batch} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="measured calls of each side")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    parser.add_argument(
        "--forms", nargs="+", default=list(FORMS), choices=FORMS, help="the first is the base of ratios"
    )
    parser.add_argument("--json", help="file to write the figures to")
    args = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    versions = {name: version(name) for name in ("torch", "timm", "spikingjelly", "braincog", "onnxruntime")}
    print(f"{machine}; {versions}; {CLASSES} classes")
    results = {}
    for name in args.dtype:
        dtype = getattr(torch, name)
        with tempfile.TemporaryDirectory() as folder:
            sides = forms(args.forms, dtype, Path(folder))
            for batch in args.batch:
                torch.manual_seed(1)
                rows = compare(sides, torch.randn(batch, 3, 32, 32), args.rounds)
                results[f"{name}, batch {batch}"] = rows
                print("\n" + table(rows, dtype, batch), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps({"machine": machine, "versions": versions, "results": results}, indent=1))


if __name__ == "__main__":
    main()
