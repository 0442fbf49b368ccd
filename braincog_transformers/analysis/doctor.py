"""One batch before a long run: does every layer fire, does the gradient reach it, and how long will it take?"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from braincog.base.node.node import BaseNode
from torch import Tensor, nn

from ..conversion.converted import Converted
from ..errors import UserError, listed
from ..nodes import ILIFNode, SpikingNode
from ..nodes.surrogates import is_known
from ..ops.levels import passes
from ..ops.surrogate import SURROGATES
from .firing import SATURATED, SILENT
from .memory import memory
from .operations import observe
from .output import align_table
from .recorder import device_of, unwrap

__all__ = ["Checkup", "LayerHealth", "diagnose", "format_checkup"]

FADING = 1e-3
"""Share of the largest gradient norm below which a layer is named."""
UNCOVERED = 0.02
"""Coverage below which a layer is named."""


@dataclass(frozen=True)
class LayerHealth:
    """One neuron layer in a training step.

    Args:
        name: in `model.named_modules()`.
        rate: spikes per neuron and step; of an integer neuron per binary plane.
        lowest, highest: membrane potential before the reset, over the threshold; NaN for a neuron whose step is not
            known here, that is, one that is not derived from `SpikingNode`, or has a `forward` of its own.
        coverage: mean slope of the surrogate over its largest: 1 if every potential is at the threshold, 0 if none
            passes a gradient; of an integer neuron the share of the potentials within its range. NaN as above, for a
            surrogate of the user's own, and for another neuron that does not put out 0 and 1, whose gradient goes
            another way.
        gradient: norm of the loss's gradient with respect to the layer's input.
        finite: whether potentials and gradient are.
        real: whether it put out other numbers than 0, 1, 2, ...; the rate is then their mean.
        integer: whether it is an integer neuron, which has no surrogate.
    """

    name: str
    rate: float
    lowest: float
    highest: float
    coverage: float
    gradient: float
    finite: bool
    real: bool = False
    integer: bool = False


@dataclass(frozen=True)
class Checkup:
    """What one training step shows.

    Args:
        layers: in the order of execution.
        loss: of the batch.
        kept: bytes that wait for the backward pass, of the whole batch.
        peak: most bytes that were alive at once, parameters left out.
        parameters: bytes of the parameters.
        samples_per_second: of a training step without the optimizer.
        advice: one line for each thing to correct; empty if nothing is wrong.
    """

    layers: list[LayerHealth]
    loss: float
    kept: int
    peak: int
    parameters: int
    samples_per_second: float
    advice: list[str]


def _over_threshold(node: BaseNode, x: Tensor) -> Tensor | None:
    """Return potentials minus threshold, `(T, ...)`, of a node that runs its own step on input `(T*B, ...)`."""
    runs_its_step = getattr(node.forward, "__func__", None) is SpikingNode.forward  # neither derived nor replaced
    return node.over_threshold(x) if runs_its_step else None


def _watched(model: nn.Module) -> dict[str, tuple[BaseNode, Tensor, Tensor]]:
    """Return what will hold node, input and output of every neuron layer by name, once the network has run."""
    seen = {}
    for name, node in model.named_modules():
        if isinstance(node, BaseNode) and node.layer_by_layer:

            def note(node: BaseNode, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                if inputs[0].requires_grad:
                    inputs[0].retain_grad()
                seen[name] = (node, inputs[0], output.detach())

            node.register_forward_hook(note)
    return seen


@torch.no_grad()
def _health(name: str, node: BaseNode, x: Tensor, spikes: Tensor) -> LayerHealth:
    integer = isinstance(node, ILIFNode)
    if integer:
        spikes = node.counts(spikes)
    rate = float(spikes.float().mean()) / (node.levels if integer else 1)
    gradient = float(x.grad.norm()) if x.grad is not None else 0.0
    finite = math.isfinite(rate) and math.isfinite(gradient)
    lowest = highest = coverage = float("nan")
    over = _over_threshold(node, x.detach())
    if over is not None:
        finite = finite and bool(torch.isfinite(over).all())
        lowest, highest = (float(end) for end in torch.aminmax(over / node.get_thres() + 1))
        if integer:
            coverage = float(passes(over / node.get_thres() + 1, node.levels, node.rounding).float().mean())
        elif is_known(node.act_fun) and node.binary:
            slope, alpha = SURROGATES[type(node.act_fun).__name__], node.act_fun.alpha
            coverage = float((slope(over, alpha) / slope(torch.zeros((), device=over.device), alpha)).mean())
    real = observe(spikes).kind == "real"
    return LayerHealth(name, rate, lowest, highest, coverage, gradient, finite, real, integer)


def diagnose(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
) -> Checkup:
    """Run one training step on a copy of a network and look at every layer of neurons.

    Args:
        model: a network with BrainCog's or this package's neurons; it is left as it was. Layers that take one step a
            call are not looked at, and the advice names them.
        batch: input and target.
        loss: maps logits and target to a scalar.

    Raises:
        UserError: for a converted network.
    """
    if isinstance(unwrap(model), Converted):
        raise UserError(
            f"diagnose: {type(unwrap(model)).__name__} is not trained; check its source, or what prepare() made of that"
        )
    inner = copy.deepcopy(unwrap(model)).train()
    device = device_of(inner)
    x, target = (part.to(device) for part in batch[:2])
    loss(inner(x), target).backward()  # compiles what is compiled
    need = memory(lambda: loss(inner(x), target), forget=inner.zero_grad, backward=True, device=device)
    started = time.perf_counter()
    loss(inner(x), target).backward()
    seconds = time.perf_counter() - started
    inner.zero_grad()
    seen = _watched(inner)
    found = loss(inner(x), target)
    found.backward()
    layers = [_health(name, *what) for name, what in seen.items()]
    size = sum(p.numel() * p.element_size() for p in inner.parameters())
    advice = _advice(layers, found.item())
    unseen = [name for name, node in inner.named_modules() if isinstance(node, BaseNode) and name not in seen]
    if unseen:
        advice.append(f"{listed(unseen)} were not looked at: they take one step a call, or were not called")
    return Checkup(layers, found.item(), need.kept, need.peak, size, len(x) / seconds, advice)


def _advice(layers: list[LayerHealth], loss: float) -> list[str]:
    largest = max((layer.gradient for layer in layers), default=0.0)
    rules = {
        "are not finite: check the data, or train in float32 instead of --amp": lambda layer: not layer.finite,
        "do not fire: a lower --threshold, or a larger learning rate for the normalisation in front":
            lambda layer: layer.rate < SILENT,
        "fire nearly always: a higher --threshold, or weight decay":
            lambda layer: layer.rate > SATURATED and not layer.real,
        "pass hardly any gradient, as their potentials are far from the threshold: a flatter surrogate (a smaller "
        "--alpha)": lambda layer: layer.coverage < UNCOVERED and not layer.integer,
        "pass hardly any gradient, as their potentials are out of the range from 0 to D thresholds: another "
        "--threshold, or more --levels": lambda layer: layer.coverage < UNCOVERED and layer.integer,
        "get less than a thousandth of the largest gradient: a flatter surrogate, or fewer steps":
            lambda layer: layer.gradient < FADING * largest and not layer.integer,
        "get less than a thousandth of the largest gradient: more --levels, or fewer steps":
            lambda layer: layer.gradient < FADING * largest and layer.integer,
    }  # fmt: skip
    found = ((text, [layer.name for layer in layers if applies(layer)]) for text, applies in rules.items())
    advice = [f"{listed(names)} {text}" for text, names in found if names]
    if loss != loss:
        advice.insert(0, "the loss is not a number; check data and labels first")
    return advice


def format_checkup(found: Checkup, *, samples: int) -> str:
    """Lay the figures out for a terminal.

    Args:
        found: what `diagnose` found.
        samples: training samples of the whole run, all epochs together, for the estimate of its time.
    """
    body = [
        [layer.name, f"{layer.rate:.4f}", f"{layer.lowest:.2f}", f"{layer.highest:.2f}", f"{layer.coverage:.3f}",
         f"{layer.gradient:.2e}"]
        for layer in found.layers
    ]  # fmt: skip
    real = [layer.name for layer in found.layers if layer.real]
    table = align_table(["layer", "rate", "lowest", "highest", "coverage", "gradient"], body)
    hours = samples / found.samples_per_second / 3600
    lines = [
        "one training step: spikes per neuron and step, potentials over the threshold, coverage of the surrogate",
        table,
        f"loss {found.loss:.4f} | memory: {found.kept / 2**20:.1f} MiB kept for the backward pass, at most "
        f"{found.peak / 2**20:.1f} MiB at once, and {found.parameters / 2**20:.1f} MiB of parameters | "
        f"{found.samples_per_second:.1f} samples/s, the whole run about {hours:.2f} h on this device",
        *([f"{listed(real)} put out real numbers, not spikes: their rate is their mean"] if real else []),
        *[f"advice: {line}" for line in found.advice or ["nothing to correct"]],
    ]
    return "\n".join(lines)
