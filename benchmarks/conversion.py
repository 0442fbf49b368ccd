"""Converted networks beside their sources, and beside what SpikingJelly's recipes make of the same sources.

    pip install spikingjelly==2.0.0 torchvision
    python -m benchmarks.conversion

First accuracy: a small network for each method is trained on the embedded digits and converted for each T anew, since
thresholds may depend on T. Then time and memory: networks for pictures of 224 x 224 pixels with random weights, which
take T steps in turn. A step of a converted network is compared with a forward pass of its source.
"""

import argparse
from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate
from torchvision.models import resnet18

from braincog_transformers.conversion import METHODS, prepare
from braincog_transformers.data.build import build_datasets

from .conversion_sides import LIMIT, RECIPES, SOURCE, STEPPING, Case, Side, build
from .harness import OURS, conditions, markdown, measure, memory, summarise
from .sides import Unavailable

__all__ = ["accuracies", "digits_case", "large_case", "main", "speeds"]

Pictures = tuple[Tensor, Tensor]
DIGITS_VIT = dict(img_size=8, patch_size=2, num_classes=10, embed_dim=64, depth=2, num_heads=4, mlp_ratio=2)
ACTIVATION = {"sta": "gelu", "spikezip": "relu", "qcfs": "relu"}
"""Of the vision transformer that a method converts here; rate coding gets a convolutional network."""


def digits() -> tuple[Pictures, Pictures]:
    """Return training and test digits with 3 equal channels, as torchvision's vision transformer takes them."""
    data = build_datasets("digits", "data", in_chans=3)
    return default_collate(list(data.train)), default_collate(list(data.test))


def train(network: nn.Module, pictures: Pictures, epochs: int, lr: float = 1e-3) -> nn.Module:
    """Train with AdamW, one cycle and batches of 32."""
    x, y = pictures
    network.train()
    batches = -(-len(x) // 32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * batches)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def small_cnn() -> nn.Module:
    """Return three convolutions with normalisations and ReLU, and average pooling."""

    def part(chans: int, out: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(chans, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()

    pools = nn.AvgPool2d(2), nn.AvgPool2d(4)
    return nn.Sequential(
        *part(3, 16), *part(16, 32), pools[0], *part(32, 64), pools[1], nn.Flatten(), nn.Linear(64, 10)
    )


def digits_case(method: str, pictures: Pictures, epochs: int, further: int) -> Case:
    """Train a source on digits and prepare it; train the limit further if the method does."""
    torch.manual_seed(0)
    if method == "rate":
        source = train(small_cnn(), pictures, max(1, epochs // 6))
    else:
        vit = timm.create_model("vit_tiny_patch16_224", **DIGITS_VIT, act_layer=ACTIVATION[method])
        source = train(vit, pictures, epochs)
    data = pictures[0][:256].split(128)
    limit = prepare(source, method, data=data)
    if METHODS[method].trains and further:
        train(limit, pictures, further)
    return Case(method, source, limit.eval(), data)


def large_case(method: str, batch: int, depth: int) -> tuple[Case, Tensor]:
    """Return an untrained network for 224 x 224 pixels, prepared, and a batch of noise."""
    torch.manual_seed(0)
    if method == "rate":
        source = resnet18()
    else:
        source = timm.create_model("vit_tiny_patch16_224", depth=depth, act_layer=ACTIVATION[method])
    x = torch.randn(batch, 3, 224, 224)
    source = source.eval().requires_grad_(False)
    return Case(method, source, prepare(source, method, data=x).eval(), [x]), x


def _built(case: Case, names: list[str], step: int) -> tuple[dict[str, Side], dict[str, str]]:
    """Build sides; return them, and for each that can't be had the reason."""
    found: dict[str, Side] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            found[name] = build(case, name, step)
        except Unavailable as error:
            missing[name] = str(error)
    return found, missing


def _why(missing: dict[str, str]) -> str:
    return "".join(f"\nNot measured: {name}, because {reason}\n" for name, reason in missing.items())


@torch.no_grad()
def accuracies(case: Case, test: Pictures, steps: list[int]) -> str:
    """Return a table: accuracy of source, limit and each spiking network at each T.

    It also says how often the answer at the largest T is the source's, and with how many spikes a neuron fires at most.
    """
    x, y = test
    rows, missing = [], {}
    answers = {name: build(case, name, 1).run(x)[-1].argmax(1) for name in (SOURCE, LIMIT)}

    def percent(found: Tensor, wanted: Tensor) -> str:
        return f"{100 * (found == wanted).double().mean():.2f}"

    for name, found in answers.items():
        rows.append([name, *[percent(found, y)] * len(steps), percent(found, answers[SOURCE]), ""])
    for name in (OURS, *RECIPES[case.method]):
        cells = []
        for step in steps:
            sides, why = _built(case, [name], step)
            if why:
                missing |= why
                break
            found = torch.cat([sides[name].run(part)[-1].argmax(1) for part in x.split(90)])
            cells.append(percent(found, y))
        else:
            most = sides[name].most_spikes(x[:30])
            rows.append([name, *cells, percent(found, answers[SOURCE]), str(most)])
    head = ["side", *[f"T={step}" for step in steps], "as the source", "most spikes in a step"]
    return f"{markdown(head, rows)}\n{_why(missing)}"


@torch.no_grad()
def speeds(case: Case, x: Tensor, step: int, rounds: int) -> str:
    """Return a table: time and memory of a forward pass of the source, and of a step of each spiking network."""
    recipes = RECIPES[case.method]
    names = [SOURCE, LIMIT, OURS, *recipes, *(name + STEPPING for name in recipes)]
    sides, missing = _built(case, names, step)
    missing = {name: why for name, why in missing.items() if not name.endswith(STEPPING)}
    times = measure({name: partial(side.run, x) for name, side in sides.items()}, rounds=rounds, warm_up=1)
    steps = {name: 1 if name in (SOURCE, LIMIT) else step for name in times}
    times = {name: [ms / steps[name] for ms in found] for name, found in times.items()}
    beside, over = summarise(times, SOURCE), summarise(times, OURS)
    peaks = {name: _peak(partial(side.run, x), x.device) for name, side in sides.items()}
    rows = [
        [name, f"{row.ms:.1f}", f"{row.ratio:.2f}", f"{row.low:.2f} to {row.high:.2f}", f"{over[name].ratio:.2f}",
         f"{peaks[name] / 2**20:.1f}", f"{peaks[name] / peaks[SOURCE]:.1f}"]
        for name, row in beside.items()
    ]  # fmt: skip
    head = ["side", "ms per step", "this / source", "quartiles", "this / ours", "peak, MiB", "this / source"]
    return f"{markdown(head, rows)}\n{_why(missing)}"


def _peak(call: Callable[[], Tensor], device: torch.device) -> int:
    return memory(call, forget=lambda: None, backward=False, device=device).peak


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], help="T of the accuracies")
    parser.add_argument("--epochs", type=int, default=30, help="of a source; a convolutional one has a sixth of them")
    parser.add_argument("--further", type=int, default=10, help="epochs of a limit that is trained")
    parser.add_argument("--step", type=int, default=8, help="T of the times")
    parser.add_argument("--batch", type=int, default=2, help="of the times")
    parser.add_argument("--depth", type=int, default=4, help="blocks of the vision transformer whose time is measured")
    parser.add_argument("--rounds", type=int, default=9, help="measured calls of each side")
    args = parser.parse_args(argv)
    print(", ".join(f"{key} {value}" for key, value in conditions().items()))
    pictures, test = digits()
    for method in args.methods:
        case = digits_case(method, pictures, args.epochs, args.further)
        print(f"\n**{method}, accuracy on {len(test[1])} digits in percent**\n", flush=True)
        print(accuracies(case, test, args.steps), flush=True)
    for method in args.methods:
        case, x = large_case(method, args.batch, args.depth)
        name = type(case.source).__name__
        print(f"\n**{method}, {name}, 224 x 224 pixels**, batch {args.batch}, T = {args.step}\n")
        print(speeds(case, x, args.step, args.rounds), flush=True)


if __name__ == "__main__":
    main()
