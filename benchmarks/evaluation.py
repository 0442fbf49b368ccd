"""Evaluation of one network in the forms it can take, against SpikingJelly's neurons in the same layers.

    pip install spikingjelly==2.0.0 'braincog_transformers[onnx]'
    python -m benchmarks.evaluation

The network is Spikformer-4-384 on 32x32 images, T=4. First every form's logits are compared with the unfused network's.
In bfloat16 the unfused sides run under autocast, as one would run them, and the fused ones hold their weights in it.
Forms that make files (ONNX, AOTInductor) are made afresh, which takes minutes.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from braincog_transformers.export import TOLERANCE, compile_aot, export_onnx, load_exported

from .harness import OURS, conditions, markdown, measure, summarise
from .sides import JELLY_NEURONS, Case, build_side

__all__ = ["FORMS", "main"]

FORMS = (OURS, JELLY_NEURONS, "fused", "compiled", "AOTInductor", "ONNX Runtime")
MODEL = "spikformer_4_384_cifar"


def images(model: nn.Module, batch: int) -> Tensor:
    """Return noise as the network takes it."""
    return torch.randn(batch, model.in_chans, *model.img_size)


def lively(case: Case) -> nn.Module:
    """Return the network with normalisations that let neurons fire, and running statistics as after some training."""
    model = case.network().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.7)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(8):
            model(images(model, 8))
    return model.eval().requires_grad_(False)


def onnx_session(model: nn.Module, folder: Path) -> Callable[[Tensor], Tensor]:
    """Export, and open with as many threads as PyTorch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = export_onnx(model, folder / "network.onnx", check=False)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


def forms(names: list[str], case: Case, ours: nn.Module, folder: Path) -> dict[str, Callable[[Tensor], Tensor]]:
    """Build each form of a network as a function from float32 images to logits."""
    dtype, package = case.dtype, folder / "network.aot.pt2"
    fused = copy.deepcopy(ours).fuse().to(dtype)

    def with_jelly() -> nn.Module:
        model = build_side(case, JELLY_NEURONS).weights
        model.load_state_dict(ours.state_dict(), strict=False)  # the peer's neurons hold no thresholds
        return model

    def under_autocast(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
                return model(x)

        return run

    def typed(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: call(x.to(dtype))

    build = {
        OURS: lambda: under_autocast(ours),
        JELLY_NEURONS: lambda: under_autocast(with_jelly()),
        "fused": lambda: typed(fused),
        "compiled": lambda: typed(torch.compile(fused, fullgraph=True)),
        "AOTInductor": lambda: typed(load_exported(compile_aot(copy.deepcopy(ours).to(dtype), package))),
        "ONNX Runtime": lambda: onnx_session(ours, folder),
    }
    # ONNX Runtime has no convolution in bfloat16 on a CPU
    return {name: build[name]() for name in names if not (name == "ONNX Runtime" and dtype != torch.float32)}


@torch.no_grad()
def compare(sides: dict[str, Callable[[Tensor], Tensor]], x: Tensor, rounds: int) -> list[list[str]]:
    """Return a row for each form: milliseconds, ratio to ours, and how many samples agree with ours."""
    expected = sides[OURS](x).float()
    agree = {name: ((run(x).float() - expected).abs().amax(1) <= TOLERANCE).sum() for name, run in sides.items()}
    found = summarise(measure({name: lambda run=run: run(x) for name, run in sides.items()}, rounds=rounds))
    return [
        [name, f"{row.ms:.1f}", f"{row.ratio:.2f}", f"{row.low:.2f} to {row.high:.2f}", f"{agree[name]} of {len(x)}"]
        for name, row in found.items()
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--rounds", type=int, default=15, help="measured calls of each form")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS, help="beside ours")
    args = parser.parse_args(argv)
    print(", ".join(f"{key} {value}" for key, value in conditions().items()))
    names = [OURS, *(name for name in args.forms if name != OURS)]
    for dtype in args.dtype:
        case = Case(args.model, "evaluation", getattr(torch, dtype))
        ours = lively(case)
        with tempfile.TemporaryDirectory() as folder:
            sides = forms(names, case, ours, Path(folder))
            for batch in args.batch:
                rows = compare(sides, images(ours, batch), args.rounds)
                print(f"\n**{args.model}, {dtype}**, batch {batch}\n")
                head = ["form", "ms", "this / ours", "quartiles", f"samples whose logits agree to {TOLERANCE:g}"]
                print(markdown(head, rows), flush=True)


if __name__ == "__main__":
    main()
