"""Notice that numbers stopped being finite, at little cost, and then find out where.

A spiking network hides it: a potential that is not a number is not above the threshold, so that the neuron is silent,
and the loss stays finite.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NonFiniteLoss, listed
from ..runtime.batch import tensors_of
from .distributed import Ranks

__all__ = ["bad_batch", "bad_gradients", "describe_non_finite", "has_sound_sum", "is_finite", "require_finite"]

SHOWN = 5


def _non_finite_layers(network: nn.Module, inputs: tuple) -> list[str]:
    """Return the names of the innermost modules whose output is not finite though their input is, first to last."""
    found: list[str] = []

    def watch(name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if name not in found and not is_finite(output) and all(map(is_finite, inputs)):
            found.append(name)

    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.named_modules():
            if name and not any(module.children()):
                hooks.enter_context(module.register_forward_hook(partial(watch, name)))
        network(*inputs)
    return found


def has_sound_sum(x: Any) -> Tensor:
    """Return a flag on the input's device, after one pass: unset where a value is not finite, or where a sum isn't.

    The sum of finite values may overflow, so that an unset flag asks for a closer look.
    """
    flags = [torch.isfinite(part.detach().sum()) for part in tensors_of(x)]
    return torch.stack(flags).all() if flags else torch.tensor(True)


def bad_batch(loader: Iterable[tuple[Any, Any]], number: int) -> str | None:
    """Read a batch again and say which of its samples are not finite; None where all are."""
    x, _ = next(islice(loader, number, None))
    samples = _bad_samples(x)
    return samples and f"batch {number + 1}, counted from 1: {samples}"


def _bad_samples(x: Any) -> str | None:
    """Say which samples of a batch hold values that are not finite."""
    bad = {place for part in tensors_of(x) for place in (~_finite_rows(part)).nonzero().flatten().tolist()}
    places = sorted(bad)
    if not places:
        return None
    plural = "s" * (len(places) > 1)
    return (
        f"sample{plural} {listed(list(map(str, places)))} (counted from 0) hold{'s' * (not plural)} values that "
        "are not finite; check the data"
    )


def _finite_rows(x: Tensor) -> Tensor:
    """Return for each sample of `(B, ...)` whether all its values are finite: `(B,)`."""
    return torch.isfinite(x).reshape(len(x), -1).all(1)


def _non_finite(named: Iterable[tuple[str, object]]) -> list[str]:
    """Return the names of the values that are not finite."""
    return [name for name, value in named if not is_finite(value)]


def require_finite(network: nn.Module, ranks: Ranks, *, when: str) -> None:
    """Raise `NonFiniteLoss` for weights or running statistics that are not finite, on any rank."""
    found = _non_finite(network.state_dict().items())
    if ranks.any(bool(found)):
        raise NonFiniteLoss(f"{when} these weights are not finite: {listed(found) or 'on another rank'}.")


def bad_gradients(network: nn.Module) -> str:
    """List the parameters whose gradient is not finite; empty where all are."""
    return listed(_non_finite((name, parameter.grad) for name, parameter in network.named_parameters()))


def is_finite(value: object) -> bool:
    """Return whether all values of a tensor or a batch are finite; other things and whole numbers are."""
    parts = tensors_of(value)
    return all(not part.is_floating_point() or bool(torch.isfinite(part).all()) for part in parts)


def describe_non_finite(network: nn.Module, batch: Any, *targets: Any) -> str:
    """Say in half a sentence which values ceased to be finite first: the data, weights, or activations.

    Args:
        network: runs on the batch once more, so that its modules can be watched.
        batch: input of the network.
        *targets: what a network is called with besides that learns so.
    """
    if not is_finite(batch):
        return f"the batch itself is at fault: {_bad_samples(batch)}"
    # running statistics are no cause: the failing pass itself spoils them
    if weights := _non_finite(network.named_parameters()):
        return f"weights that are not finite: {listed(weights)}"
    if layers := _non_finite_layers(network, (batch, *targets)):
        return f"first layers whose activations are not finite: {listed(layers)}"
    return "all activations are finite, so that it arose in the loss itself"
