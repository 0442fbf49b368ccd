"""Modules that a forward pass calls several times: each call gets a module of its own, since a neuron has one state."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..errors import UserError

__all__ = ["Call", "InTurn", "calls_of", "modules_of", "own_modules", "replace_modules"]

_CONVOLUTIONS = nn.modules.conv._ConvNd


class Call(NamedTuple):
    """One call of a module.

    Args:
        axis: of the channels in what it reads.
        layer: name of the linear layer or convolution whose output that is, "" for any other source.
    """

    axis: int
    layer: str


def modules_of(network: nn.Module, types: tuple[type, ...]) -> dict[str, nn.Module]:
    """Return the modules of some types below a network by name; one that stands in several places has its first."""
    return {name: module for name, module in network.named_modules() if isinstance(module, types) and name}


def calls_of(network: nn.Module, modules: Mapping[str, nn.Module], x: Tensor) -> dict[str, list[Call]]:
    """Run a network on a batch, and return the calls of some of its modules by name, in the order of the first calls.

    Args:
        network: in evaluation mode.
        modules: the modules, by name.
        x: the batch; a sample is enough.
    """
    found: dict[str, list[Call]] = {}
    last: tuple[str, Any, int] = "", None, -1  # layer, what it put out, axis of its channels

    def leave_layer(name: str, module: nn.Module, out: Tensor) -> None:
        nonlocal last
        last = name, out, 1 if isinstance(module, _CONVOLUTIONS) else -1

    def enter(name: str, inputs: tuple) -> None:
        layer, out, axis = last
        found.setdefault(name, []).append(Call(axis, layer if inputs and inputs[0] is out else ""))

    hooks = [
        layer.register_forward_hook(lambda module, _, out, name=name: leave_layer(name, module, out))
        for name, layer in modules_of(network, (nn.Linear, _CONVOLUTIONS)).items()
    ]
    hooks += [
        module.register_forward_pre_hook(lambda _, inputs, name=name: enter(name, inputs))
        for name, module in modules.items()
    ]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class InTurn(nn.Module):
    """Copies of a module that a forward pass calls several times: the first call goes to the first, and so on.

    Args:
        module: the module.
        count: number of calls in a pass. The pre-hook that `own_modules` gives the network begins one.
    """

    def __init__(self, module: nn.Module, count: int):
        super().__init__()
        self.calls = nn.ModuleList(copy.deepcopy(module) for _ in range(count))
        self._called = 0

    def begin(self) -> None:
        self._called = 0

    def forward(self, x: Tensor) -> Tensor:
        if self._called == len(self.calls):
            raise UserError(
                f"conversion: a pass calls a {type(self.calls[0]).__name__} more often than the {len(self.calls)} "
                "times that were found for it; a network whose passes differ can't be converted"
            )
        self._called += 1
        return self.calls[self._called - 1](x)


def _begin(network: nn.Module, _: tuple) -> None:
    for module in network.modules():
        if isinstance(module, InTurn):
            module.begin()


def own_modules(network: nn.Module, calls: Mapping[str, int]) -> None:
    """Put an `InTurn` in the place of each module that is called several times.

    Args:
        network: what is changed.
        calls: number of calls by name; once needs no change.
    """
    several = {name: count for name, count in calls.items() if count > 1}
    replace_modules(network, {name: InTurn(network.get_submodule(name), count) for name, count in several.items()})
    if several:
        network.register_forward_pre_hook(_begin)


def replace_modules(network: nn.Module, new: Mapping[str, nn.Module]) -> None:
    """Put modules in the places of others, in all places where those stand."""
    by_old = {network.get_submodule(name): module for name, module in new.items()}
    for name, old in list(network.named_modules(remove_duplicate=False)):
        if old in by_old:
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, by_old[old])
