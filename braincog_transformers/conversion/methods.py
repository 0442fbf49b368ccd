"""From a trained network to a spiking one, by one of the published methods: `prepare`, then `convert`."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from braincog.base.node.node import BaseNode
from torch import Tensor, nn

from ..errors import UserError, listed, quoted, shown, unknown
from .converted import Converted, device_and_dtype
from .method import Method
from .survey import example_input, require_known, require_same_out_of_place

__all__ = ["Method", "Origin", "batches_of", "convert", "device_and_dtype", "find_method", "plain_copy", "prepare"]


@dataclass(frozen=True)
class Origin:
    """How a network was prepared for conversion; `prepare` leaves it on the network as the attribute `origin`.

    Args:
        method: name of the method.
        options: the method's own options.
    """

    method: str
    options: Any


def find_method(name: str) -> Method:
    """Return a method by name; raise `UserError` for another name."""
    from . import METHODS

    if name not in METHODS:
        raise unknown("method of conversion", name, METHODS)
    return METHODS[name]


def batches_of(data: Iterable[Tensor | Sequence[Tensor]] | Tensor | None, network: nn.Module) -> list[Tensor] | None:
    """Return calibration data as a list of inputs on the network's device and in its type; None for none.

    Args:
        data: a batch, or batches: inputs, or `(input, target, ...)` as a loader gives them.

    Raises:
        UserError: if they are no tensors, there is no sample in them, or one that is not finite.
    """
    if data is None:
        return None
    place, found = device_and_dtype(network), []
    for batch in [data] if isinstance(data, Tensor) or not isinstance(data, Iterable) else data:
        x = batch[0] if isinstance(batch, Sequence) and len(batch) and not isinstance(batch, str) else batch
        if not isinstance(x, Tensor) or not x.dim():
            raise UserError(
                "conversion: the calibration data must be a tensor of inputs, or batches of tensors as a loader gives "
                f"them, the inputs first; got a {type(x).__name__} among them"
            )
        if len(x):
            found.append(x.to(**place) if x.is_floating_point() else x.to(place["device"]))
    if not found:
        raise UserError("conversion: the calibration data hold no sample")
    if any(x.is_floating_point() and not torch.isfinite(x).all() for x in found):
        raise UserError("conversion: the calibration data hold values that are not finite; check the data")
    return found


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside of what compiles or distributes it.

    Raises:
        UserError: for what is no network.
    """
    if not isinstance(network, nn.Module):
        raise UserError(f"conversion: the network must be a torch.nn.Module; got {quoted(network, 60)}")
    while hasattr(network, "_orig_mod") or isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
        network = network._orig_mod if hasattr(network, "_orig_mod") else network.module
    return network


def plain_copy(network: nn.Module) -> nn.Module:
    """Return a copy of a network for a method to change: as ordinary modules, not compiled or distributed any more.

    A module that stands in several places becomes several, with the same weights: each place gets neurons of its own.
    None changes its input in place any more, as no neuron does.

    Raises:
        UserError: if it can't be copied, or its modules can't be replaced.
    """
    network = unwrapped(network)
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise UserError(
            f"conversion: {type(network).__name__} is compiled by torch.jit, where no module can be replaced; give the "
            "network that was compiled"
        )
    try:
        network = copy.deepcopy(network)
    except Exception as error:  # whatever its parts raise
        raise UserError(f"conversion: {type(network).__name__} can't be copied: {shown(error)}") from error
    weights = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    seen: dict[int, nn.Module] = {}

    def part(module: nn.Module) -> None:
        for name, child in module._modules.items():
            if child is not None:
                child = unwrapped(child)
                module._modules[name] = child = copy.deepcopy(child, dict(weights)) if id(child) in seen else child
                seen[id(child)] = child
                part(child)

    part(network)
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return network


def prepare(
    ann: nn.Module, method: str, *, data: Iterable[Tensor | Sequence[Tensor]] | Tensor | None = None, **options: Any
) -> nn.Module:
    """Build the network that the spiking one will approach; the source stays as it is.

    For `qcfs` and `spikezip` it is a quantised network, which is then trained like any other. For `sta` its
    operators are approximated, for `rate` its activations are clipped.

    Args:
        ann: a trained network. One that was prepared already, or is ready as it is built, is copied.
        method: "qcfs", "sta", "spikezip" or "rate".
        data: calibration data: a batch, or batches as a loader gives them.
        **options: the method's options, see its dataclass; for a prepared network those that it was prepared with.

    Raises:
        UserError: for an unknown method or option, a network that spikes already or was prepared for something else, or
            one with an operator that the method does not know, which is named.
    """
    found, ann = find_method(method), unwrapped(ann)
    if _options_of(ann, found, options) is not None:
        return plain_copy(ann)
    chosen = found.chosen(options)
    if isinstance(ann, Converted) or any(isinstance(module, BaseNode) for module in ann.modules()):
        raise UserError(
            f"conversion: {type(ann).__name__} has spiking neurons already, so there is nothing to convert; name an "
            "ordinary network"
        )
    batches, source = batches_of(data, ann), plain_copy(ann)
    if found.knows is not None:
        samples = [x[:1] for x in batches] if batches else [example_input(source)]
        require_known(source, samples, found)
        require_same_out_of_place(ann, source, samples[0])
    hooked = {
        path: module for path, module in source.named_modules() if module._forward_hooks or module._forward_pre_hooks
    }
    with torch.no_grad():
        limit = found.limit(source, chosen, batches)
    left = {*limit.modules()}
    if lost := [path for path, module in hooked.items() if module not in left]:
        raise UserError(
            f"conversion: {method} puts other modules in the places of {listed(lost)}, and the hooks there would be "
            "lost; remove them"
        )
    limit.origin = Origin(method, chosen)
    return limit.train(ann.training)


def convert(
    ann: nn.Module,
    method: str,
    *,
    step: int = 32,
    data: Iterable[Tensor | Sequence[Tensor]] | Tensor | None = None,
    allow_silent: bool = False,
    **options: Any,
) -> Converted:
    """Convert a trained network to a spiking one; the source stays as it is.

    Args:
        ann: a trained network, or what `prepare` made of one, trained further or not.
        method: "qcfs", "sta", "spikezip" or "rate".
        step: number of steps T.
        data: calibration data: a batch, or batches as a loader gives them. `sta` and `rate` need some; so do `qcfs` and
            `spikezip` for a source that was not prepared and trained.
        allow_silent: accept layers that don't fire at all on the first batch of the data.
        **options: the method's options, see its dataclass; for a prepared network those that it was prepared with.

    Returns:
        The spiking network, in evaluation mode, on the source's device and in its type.

    Raises:
        UserError: for fewer steps than one, an unknown method or option, missing data, a network that spikes already or
            has nothing to convert, an operator that the method does not know, layers that never fire.
    """
    found, ann = find_method(method), unwrapped(ann)
    if isinstance(step, bool) or not isinstance(step, int) or step < 1:
        raise UserError(f"conversion: the number of steps must be a whole number from 1; got {step!r}")
    chosen = _options_of(ann, found, options)
    ready = chosen is not None
    if not ready:
        chosen = found.chosen(options)
        if found.calibrates and data is None:
            raise UserError(f"conversion: {method} calibrates its thresholds, so it needs data; give data=")
    batches = batches_of(data, ann)
    limit = plain_copy(ann) if ready else prepare(ann, method, data=batches, **options)
    settings = {"method": method, "step": step, "options": vars(chosen)}
    with torch.no_grad():
        spiking = found.spiking(limit.eval(), step, chosen, batches, settings)
    if not spiking.nodes:
        raise UserError(
            f"conversion: {method} found nothing to convert in {type(ann).__name__}: no operator of it becomes a neuron"
        )
    if unknown_ones := [name for name, node in spiking.nodes.items() if node.get_thres().isnan().any()]:
        raise UserError(f"conversion: {method} calibrates {listed(unknown_ones)}, so it needs data; give data=")
    if batches and not allow_silent:
        _refuse_silent(spiking, batches[0])
    return spiking


def _options_of(ann: nn.Module, found: Method, options: dict[str, Any]) -> Any:
    """Return the options that a network was prepared with, None for one that was not.

    Raises:
        UserError: if it was prepared for another method, or with other options.
    """
    origin = getattr(ann, "origin", None)
    if not isinstance(origin, Origin):
        return None
    if origin.method != found.name:
        raise UserError(
            f"conversion: {type(ann).__name__} was prepared for {origin.method}; convert it by that, or prepare "
            f"the source for {found.name}"
        )
    chosen = origin.options
    if options and found.chosen({**vars(chosen), **options}) != chosen:
        was = {name: getattr(chosen, name) for name in options if getattr(chosen, name) != options[name]}
        before, now = (", ".join(f"{name}={values[name]!r}" for name in was) for values in (was, options))
        raise UserError(
            f"conversion: the network was prepared with {before}; got {now} (prepare the source again, or leave "
            "that out)"
        )
    return chosen


def _refuse_silent(spiking: Converted, x: Tensor) -> None:
    """Raise `UserError` if a layer of neurons never fires; a few samples tell, and mostly one of them and two steps."""
    fired: dict[str, bool] = {}
    last = spiking.step
    hooks = [
        node.register_forward_hook(
            lambda _m, _i, out, name=name: fired.__setitem__(name, fired.get(name, False) or bool(out.any()))
        )
        for name, node in spiking.nodes.items()
    ]
    try:
        with torch.no_grad():
            for steps in sorted({min(2, last), last}):
                spiking.step = steps
                for sample in x[:16].split(1):  # neurons that are watched hold all of their spikes
                    spiking(sample)
                    if all(fired.values()):
                        return
    finally:
        spiking.step = last
        for hook in hooks:
            hook.remove()
    if silent := [name for name, any_spike in fired.items() if not any_spike]:
        thresholds = (float(spiking.get_submodule(name).get_thres().max()) for name in silent)
        named = [f"{name} (threshold {threshold:.3g})" for name, threshold in zip(silent, thresholds, strict=True)]
        raise UserError(
            f"conversion: in {spiking.step} steps these layers never fire on {min(len(x), 16)} samples of the data: "
            f"{listed(named)}; check their thresholds and the data, or take more steps"
        )
