"""Find out where numbers stopped being finite, once a loss did."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["describe_non_finite", "non_finite_layers"]

SHOWN = 5


def non_finite_layers(network: nn.Module, forward: Callable[[], object]) -> list[str]:
    """Return the names of the innermost modules whose output is not finite though their input is, first to last.

    Args:
        network: the plain network, whose modules are watched.
        forward: runs the batch through the network once more.
    """
    found: list[str] = []
    handles = []

    def watch(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if name not in found and not _finite(output) and all(_finite(value) for value in inputs):
                found.append(name)

        return hook

    for name, module in network.named_modules():
        if name and not any(module.children()):
            handles.append(module.register_forward_hook(watch(name)))
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _finite(value: object) -> bool:
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(torch.isfinite(value).all())


def describe_non_finite(network: nn.Module, batch: Tensor, forward: Callable[[], object]) -> str:
    """Say in half a sentence which values ceased to be finite first: the data, weights, or activations."""
    if not _finite(batch):
        return "the batch itself holds values that are not finite; check the data"
    # running statistics are no cause: the failing pass itself spoils them
    weights = [name for name, value in network.named_parameters() if not _finite(value)]
    if weights:
        return f"weights that are not finite: {_listed(weights)}"
    layers = non_finite_layers(network, forward)
    if layers:
        return f"first layers whose activations are not finite: {_listed(layers)}"
    return "all activations are finite, so that it arose in the loss itself"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
