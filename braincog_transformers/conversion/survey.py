"""Which operators a network has, which of them each method knows, and an input to find out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UserError, listed, shown
from ..ops.operators import Operator, Operators
from .converted import device_and_dtype

__all__ = ["KNOWS", "Operator", "Treated", "example_input", "require_known", "survey"]


@dataclass(frozen=True)
class Treated:
    """How a method treats an operator.

    Args:
        how: "spiking": neurons compute it; "analog": it is evaluated at each step, as it is or on running sums.
        within: classes of modules in which it is known; anywhere if there are none.
    """

    how: Literal["spiking", "analog"]
    within: tuple[type, ...] = ()

    def covers(self, network: nn.Module, path: str) -> bool:
        """Tell whether the operator is known at a path: in the module, or in one of those around it."""
        parts = path.split(".")
        around = (network.get_submodule(".".join(parts[:end])) for end in range(len(parts) + 1))
        return not self.within or any(isinstance(module, self.within) for module in around)


KNOWS: dict[str, dict[str, Treated]] = {}
"""Which method treats which operator, by the names that `survey` gives."""


def survey(network: nn.Module, x: Tensor) -> tuple[Operator, ...]:
    """List every operator of a network that is not linear in its activations; it runs one batch in evaluation mode.

    Args:
        network: an ordinary network; its mode stays as it was.
        x: a batch; a sample is enough.

    Raises:
        UserError: if the network can't run on it alone.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), Operators().watching(network) as operators:
            out = network(x)
    except (TypeError, RuntimeError, ValueError) as error:
        raise UserError(
            f"conversion: {type(network).__name__} can't run on an input of shape {tuple(x.shape)} alone: "
            f"{shown(error)}; give data= that it reads"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not isinstance(out, Tensor):
        raise UserError(
            f"conversion: {type(network).__name__} puts out a {type(out).__name__}, not a tensor; wrap it in a module "
            "that returns its logits"
        )
    return operators.found


def require_known(network: nn.Module, x: Tensor, method: str) -> None:
    """Refuse a network with an operator that a method does not know.

    Raises:
        UserError: it names each such operator, its path and the methods that do know it.
    """
    foreign: dict[str, list[Operator]] = {}
    for operator in survey(network, x):
        if not _knows(method, network, operator):
            foreign.setdefault(operator.name, []).append(operator)
    if foreign:
        named = [_described(network, operators) for operators in foreign.values()]
        raise UserError(f"conversion: {method} doesn't know {listed(named, most=3)}")


def _knows(method: str, network: nn.Module, operator: Operator) -> bool:
    treated = KNOWS[method].get(operator.name)
    return treated is not None and treated.covers(network, operator.path)


def _described(network: nn.Module, operators: list[Operator]) -> str:
    first, others = operators[0], len(operators) - 1
    place = first.path or f"the forward of {type(network).__name__}"
    more = f" and {others} other place{'s' * (others > 1)}" if others else ""
    knowing = [method for method in KNOWS if all(_knows(method, network, operator) for operator in operators)]
    return f"{first.name} in {place}{more} ({' and '.join(knowing) or 'no method'} does)"


def example_input(network: nn.Module) -> Tensor:
    """Return one sample of the size that a network is built for, on its device and in its type.

    Raises:
        UserError: if the network doesn't say what it reads, so that data are needed.
    """
    size = _input_size(network)
    if size is None:
        raise UserError(
            f"conversion: {type(network).__name__} doesn't say how large its input is, so it needs a sample; give data="
        )
    values = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    return values.to(**device_and_dtype(network))


def _input_size(network: nn.Module) -> tuple[int, ...] | None:
    """Return the size of a sample: of what the network is built for, which its configuration may contradict."""
    layers = (m for m in network.modules() if isinstance(m, nn.Linear | nn.Embedding | nn.modules.conv._ConvNd))
    first = next(layers, None)
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    if not isinstance(first, nn.Conv2d):
        return None
    built = getattr(getattr(network, "patch_embed", None), "img_size", None)
    side = built or _configured(getattr(network, "pretrained_cfg", None))
    side = (side, side) if isinstance(side, int) else side
    return None if side is None else (first.in_channels, *side)


def _configured(cfg: Mapping[str, Any] | Any) -> tuple[int, int] | None:
    size = cfg.get("input_size") if isinstance(cfg, Mapping) else getattr(cfg, "input_size", None)
    return tuple(size[1:]) if size else None
