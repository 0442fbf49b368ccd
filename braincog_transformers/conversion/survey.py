"""Which operators a network has, which of them each method knows, and an input to find out."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, listed, shown
from ..ops.operators import Operator, Operators
from .converted import device_and_dtype
from .method import Method

__all__ = ["Operator", "example_input", "require_known", "require_same_out_of_place", "survey", "treatment"]


def survey(network: nn.Module, x: Tensor) -> tuple[Operator, ...]:
    """List every operator of a network that is not linear in its activations; it runs one batch in evaluation mode.

    Args:
        network: an ordinary network; its mode stays as it was.
        x: a batch; a sample is enough.

    Raises:
        UserError: if the network can't run on it alone, or puts out something else than finite numbers.
    """
    operators = Operators()
    with operators.watching(network):
        out = _answer(network, x)
    if not isinstance(out, Tensor):
        raise UserError(
            f"conversion: {type(network).__name__} puts out a {type(out).__name__}, not a tensor; wrap it in a module "
            "that returns its logits"
        )
    if not out.isfinite().all():
        raise UserError(f"conversion: {type(network).__name__} puts out values that are not finite; check its weights")
    return operators.found


def _answer(network: nn.Module, x: Tensor) -> Any:
    """Return what a network puts out in evaluation mode."""
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        with torch.no_grad():
            return network(x)
    except Exception as error:  # whatever a user's network raises
        raise UserError(
            f"conversion: {type(network).__name__} can't run on an input of shape {tuple(x.shape)} alone: "
            f"{shown(error)}; give data= that it reads"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode


def require_same_out_of_place(network: nn.Module, copied: nn.Module, x: Tensor) -> None:
    """Refuse a network that computes something else if no module changes its input, as no neuron does.

    Args:
        network: the network.
        copied: its copy, whose modules change nothing in place.
        x: a batch; a sample is enough.

    Raises:
        UserError: it names the modules.
    """
    changing = [path for path, module in network.named_modules() if getattr(module, "inplace", False)]
    if not changing or _close(_answer(network, x), after := _answer(copied, x)):
        return
    read = []
    for path in changing:
        module = copied.get_submodule(path)
        module.inplace = True
        read += [] if _close(_answer(copied, x), after) else [path]
        module.inplace = False
    raise UserError(
        f"conversion: what {listed(read)} changes in place is read again, and a neuron changes nothing; build it with "
        "inplace=False"
    )


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def _takes(method: Method, network: nn.Module) -> bool:
    return not method.networks or isinstance(network, method.networks)


def treatment(method: Method, network: nn.Module, operator: Operator) -> str | None:
    """Return how a method treats an operator of a network: "spiking", "analog", or None if it doesn't know it."""
    known = (method.knows or {}).get(operator.name, ()) if _takes(method, network) else ()
    return next((one.how for one in known if one.covers(network, operator.path)), None)


def require_known(network: nn.Module, samples: Iterable[Tensor], method: Method) -> None:
    """Refuse a network with an operator that a method does not know.

    Args:
        network: an ordinary network.
        samples: batches of one sample; those of one shape are tried once.
        method: the method.

    Raises:
        UserError: it names each such operator, its path and the methods that do know it.
    """
    foreign: dict[str, list[Operator]] = {}
    by_shape = {x.shape: x for x in samples}
    found = {(one.path, one.name): one for x in by_shape.values() for one in survey(network, x)}
    for operator in found.values():
        if treatment(method, network, operator) is None:
            foreign.setdefault(operator.name, []).append(operator)
    if foreign:
        named = [_described(network, operators, method) for operators in foreign.values()]
        taken = listed([cls.__name__ for cls in method.networks], most=6)
        why = "" if _takes(method, network) else f" takes {taken}, not {type(network).__name__}, and"
        raise UserError(f"conversion: {method.name}{why} doesn't know {listed(named, most=3)}")


def _described(network: nn.Module, operators: list[Operator], method: Method) -> str:
    """Say what an operator that a method does not know is, where it is, and who knows it."""
    from . import METHODS

    first, others = operators[0], len(operators) - 1
    place = first.path or f"the forward of {type(network).__name__}"
    more = f" and {others} other place{'s' * (others > 1)}" if others else ""
    able = [one.name for one in METHODS.values() if all(treatment(one, network, each) for each in operators)]
    who = f"{listed(able, most=len(able))} know{'s' * (len(able) == 1)} it" if able else "no method knows it there"
    classes = [cls.__name__ for known in method.knows.get(first.name, ()) for cls in known.within]
    if classes and _takes(method, network):
        who += f"; {method.name} does in modules {listed(classes, most=3)}"
    return f"the {first.name} in {place}{more} ({who})"


def example_input(network: nn.Module) -> Tensor:
    """Return one sample of the size that a network is built for, on its device and in its type.

    A network whose input is no picture and no list of numbers has a method `example_input` of its own.

    Raises:
        UserError: if the network doesn't say what it reads, so that data are needed.
    """
    if hasattr(network, "example_input"):
        return network.example_input()
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
    built = next((size for m in network.modules() if (size := getattr(m, "img_size", None))), None)
    side = built or _configured(getattr(network, "pretrained_cfg", None))
    channels = getattr(network, "in_chans", getattr(first, "in_channels", None))
    if side and channels:
        return (channels, *((side, side) if isinstance(side, int) else side))
    return (first.in_features,) if isinstance(first, nn.Linear) else None


def _configured(cfg: Mapping[str, Any] | Any) -> tuple[int, int] | None:
    size = cfg.get("input_size") if isinstance(cfg, Mapping) else getattr(cfg, "input_size", None)
    return tuple(size[1:]) if size else None
