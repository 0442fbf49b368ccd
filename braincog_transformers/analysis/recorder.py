"""Record what the neurons of any BrainCog network do, without touching the network.

A hook on each `BaseNode` sees its output: `(T*B, ...)` once per forward where the network runs layer by layer,
`(B, ...)` once per step where it runs step by step. Both become one `(T, B, ...)` array per node, named as in
`model.named_modules()` and in the order in which the nodes were first called.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from braincog.base.node.node import BaseNode
from einops import rearrange
from torch import Tensor, nn

from ..conversion.converted import Converted
from ..errors import UserError
from ..nodes.valued import ValuedNode
from ..runtime.batch import Batch, tensors_of

__all__ = ["NodeRecord", "all_steps", "device_of", "frozen_inference", "inputs_of", "outputs", "record"]
__all__ += ["is_spiking", "pictured", "steps_of", "refuse_streaming", "unwrap", "watch"]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside `torch.compile` and DistributedDataParallel, whose prefixes would spoil the names."""
    inner = model
    while True:
        if isinstance(inner, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = inner.module
        elif hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod
        else:
            return inner


def is_spiking(model: nn.Module) -> bool:
    """Say whether a model has a spiking neuron, a node of BrainCog's."""
    return any(isinstance(module, BaseNode) for module in model.modules())


def steps_of(model: nn.Module) -> int:
    """Return the number of steps T of a network, of one that doesn't say it that of its neurons; 1 without any."""
    if isinstance(step := getattr(model, "step", None), int):
        return step
    return max((module.step for module in model.modules() if isinstance(module, BaseNode)), default=1)


def device_of(model: nn.Module) -> torch.device:
    """Return the device that a model is on."""
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def inputs_of(batch: Tensor | Batch | Sequence[Any]) -> Tensor | Batch:
    """Take the inputs out of what a loader gives."""
    return batch if isinstance(batch, Tensor | Batch) else batch[0]


def pictured(x: Tensor | Batch) -> Tensor:
    """Return what of an input is drawn, `(B, ..., H, W)` of at most five axes: of a batch of several tensors its last
    one that is laid out in space, what lies in front of its steps, as polarity, being summed.

    Raises:
        UserError: for an input of which nothing can be drawn.
    """
    spatial = [tensor for tensor in tensors_of(x) if tensor.dim() > 3] or tensors_of(x)
    if not spatial:
        raise UserError(f"pictures: an input is a tensor or a Batch; got {type(x).__name__}")
    shown = spatial[-1]
    return shown.flatten(1, shown.dim() - 4).unflatten(1, (-1, shown.shape[-4])).sum(1) if shown.dim() > 5 else shown


def unfold_time(node: BaseNode, output: Tensor) -> Tensor:
    """Give a node's output its axis of time back.

    Returns:
        `(T, B, ...)`; T is 1 for a call in step-by-step mode.
    """
    if node.groups != 1:
        return rearrange(output, "b (c t) ... -> t b c ...", t=node.step)
    if node.layer_by_layer:
        return rearrange(output, "(t b) ... -> t b ...", t=node.step)
    return output.unsqueeze(0)


def refuse_streaming(caller: str, model: nn.Module) -> None:
    """Raise `UserError` for a network that takes one step a call: which calls belong to one sample is not known."""
    if getattr(unwrap(model), "streaming", False):
        raise UserError(
            f"{caller}: {type(unwrap(model)).__name__} is streaming, so a call is one step, and which steps belong to "
            "one sample is not known; call set_streaming(False) and give whole samples (step by step: "
            "set_attr('layer_by_layer', False))"
        )


@contextmanager
def all_steps(model: nn.Module) -> Iterator[None]:
    """Let a converted network run all its steps: where it stops early depends on the batch that a sample is in."""
    inner = unwrap(model)
    if not isinstance(inner, Converted):
        yield
        return
    stops, inner.stops = inner.stops, False
    try:
        yield
    finally:
        inner.stops = stops


@contextmanager
def watch(model: nn.Module, seen: Callable[[str, BaseNode, Tensor], None]) -> Iterator[None]:
    """Call `seen(name, node, output)` after each call of each node, output `(T, B, ...)`, detached.

    What belongs to a sample, and lies in front of its axes, as windows of it do, becomes an axis behind the batch's.

    Args:
        seen: called while the context lasts; the hooks are removed when it ends, after an error too.
    """
    inner, samples = unwrap(model), 0

    def begin(_model: nn.Module, inputs: tuple) -> None:
        nonlocal samples
        samples = len(inputs[0])

    with all_steps(inner), ExitStack() as hooks:
        hooks.callback(inner.register_forward_pre_hook(begin).remove)
        for name, node in inner.named_modules():
            if isinstance(node, BaseNode):

                def note(module: BaseNode, _inputs: tuple, output: Tensor, name: str = name) -> None:
                    output = unfold_time(module, output.detach())
                    parts = output.shape[1] // samples if samples and output.shape[1] % samples == 0 else 1
                    seen(name, module, output.unflatten(1, (samples, parts)) if parts > 1 else output)

                hooks.callback(node.register_forward_hook(note).remove)
        yield


@contextmanager
def frozen_inference(model: nn.Module) -> Iterator[None]:
    """Run in evaluation mode without gradients, then give every module its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def outputs(model: nn.Module, batches: Iterable[Tensor | Batch | Sequence[Any]]) -> Iterator[tuple[Tensor, Any]]:
    """Run a network over data, in evaluation mode and without gradients, batch by batch.

    Args:
        batches: inputs, or `(input, target, ...)` as a loader gives them; moved to the model's device. Empty ones are
            passed over.

    Yields:
        The output, and the batch that it belongs to.
    """
    device = device_of(model)
    with frozen_inference(model):
        for batch in batches:
            if len(x := inputs_of(batch)):
                yield model(x.to(device)), batch


@dataclass
class NodeRecord:
    """What one node did while it was recorded.

    Attributes:
        name: the node's name in `model.named_modules()`.
        threshold: its firing threshold, as its potential has it; the mean where its neurons differ.
    """

    name: str
    threshold: float
    spike_parts: list[Tensor] = field(default_factory=list)
    membrane_parts: list[Tensor] = field(default_factory=list)

    @property
    def spikes(self) -> Tensor:
        """Spikes `(T, B, ...)`, on the CPU; whole numbers of them, whatever one is worth."""
        return torch.cat(self.spike_parts)

    @property
    def membranes(self) -> Tensor:
        """Membrane potentials after the reset `(T, B, ...)`, on the CPU."""
        return torch.cat(self.membrane_parts)


@contextmanager
def _membranes_kept(model: nn.Module) -> Iterator[None]:
    """Have every node collect its membrane, then put its own settings back."""
    nodes = [node for node in unwrap(model).modules() if isinstance(node, BaseNode)]
    before = [(node.requires_mem, node.mem_collect) for node in nodes]
    for node in nodes:
        node.requires_mem, node.mem_collect = True, []
    try:
        yield
    finally:
        for node, (flag, collected) in zip(nodes, before, strict=True):
            node.requires_mem, node.mem_collect = flag, collected


@contextmanager
def record(model: nn.Module, *, spikes: bool = True, membranes: bool = False) -> Iterator[dict[str, NodeRecord]]:
    """Record every node of `model` while the context lasts, for one batch.

    Memory grows with T, the batch and the network: record a few samples. The dictionary fills in the order of
    execution; a second forward within the context is appended along T.

    Args:
        spikes: keep the nodes' outputs.
        membranes: keep the potentials after the reset, as BrainCog collects them.

    Raises:
        UserError: the model has no BrainCog node, so there is nothing to record.
    """
    if not is_spiking(model):
        raise UserError(
            f"record: needs a spiking network, made of BrainCog nodes; {type(model).__name__} has none "
            "(choose a model of --list-models)"
        )
    records: dict[str, NodeRecord] = {}

    def keep(name: str, node: BaseNode, output: Tensor) -> None:
        valued = isinstance(node, ValuedNode)
        threshold = 1.0 if valued and node.relative else float(node.get_thres().mean())
        entry = records.setdefault(name, NodeRecord(name, threshold))
        if spikes:
            entry.spike_parts.append((node.counts(output) if valued else output).cpu())
        if membranes:
            steps = (potential.detach().reshape(1, *output.shape[1:]) for potential in node.mem_collect)
            entry.membrane_parts += [potential.cpu() for potential in steps]
            node.mem_collect = []

    with ExitStack() as stack:
        if membranes:
            stack.enter_context(_membranes_kept(model))
        stack.enter_context(watch(model, keep))
        yield records
