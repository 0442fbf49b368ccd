"""Follow the tensors of one forward pass: which module or sum reads what, and what flows in between.

Nothing is known of the network. Hooks see its innermost modules, a `TorchFunctionMode` what is computed outside of them
(residual additions, masks, means); what merely reshapes is followed through.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from braincog.base.node.node import BaseNode
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from ...conversion.converted import Converted
from ...errors import UserError
from ..operations import observe
from ..recorder import frozen_inference, unwrap

__all__ = ["INPUT", "KINDS", "Call", "example_input", "follow", "least"]

INPUT = "input"
SAMPLES = 2
"""In the example batch: normalisation with the batch's statistics needs more than one."""
_JOINS = {"add": "+", "sub": "-", "mul": "x", "matmul": "matmul", "bmm": "matmul", "cat": "join", "stack": "join"}
_REDUCTIONS = {"mean": "mean", "sum": "sum", "max_pool2d": "max-pool", "avg_pool2d": "mean-pool"}
_IGNORE_CONTENT = ("zeros", "ones", "empty", "full", "new_", "rand")
_PASSED_THROUGH = (nn.Identity, nn.Dropout)
KINDS = ("silent", "binary", "ternary", "integer", "real")
"""What flows, from the least to the most; silent is what was zero throughout."""


def least(*kinds: str) -> str:
    """Return the least spike-like of several kinds."""
    return max(kinds, key=KINDS.index)


@dataclass
class Call:
    """A module without modules inside, or a function that joins or reduces tensors.

    Args:
        name: in `model.named_modules()`; of a function, its module's name and its own.
        owner: name of the module whose code calls it.
        module: the module, or None for a function.
        op: of a function: "+", "-", "x", "matmul", "join", "mean", "sum", "max-pool" or "mean-pool".
        shape: of what leaves, the first axis replaced by T where it holds steps, dropped where it holds samples only.
        kind: what leaves, one of `KINDS`: the least spike-like of all calls.
        sources: names of the calls whose results it reads.
    """

    name: str
    owner: str
    module: nn.Module | None
    op: str
    shape: tuple[int, ...]
    kind: str
    sources: list[str] = field(default_factory=list)

    @property
    def joins(self) -> bool:
        """Whether more than one tensor meets here."""
        return len(self.sources) > 1


class _Follower(TorchFunctionMode):
    """The graph while one network runs."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.calls: dict[str, Call] = {}
        self._origin = WeakTensorKeyDictionary()
        self._running: list[str] = []
        self._inside = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.__name__.strip("_").removeprefix("i").removeprefix("r")
        if not self._inside and not name.startswith(_IGNORE_CONTENT):
            self._function(name, self.origins((args, kwargs)), result)
        return result

    def origins(self, tensors: Any) -> list[str]:
        """Name the calls that tensors come from."""
        found = (self._origin.get(x) for x in tree_leaves(tensors) if isinstance(x, Tensor))
        return list(dict.fromkeys(name for name in found if name))

    def _function(self, name: str, sources: list[str], result: Any) -> None:
        op = _JOINS.get(name) if len(sources) > 1 else _REDUCTIONS.get(name)
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        if not sources or not outputs:
            return
        source = sources[0]
        if op:
            owner = self._running[-1]
            source = self._place(f"{owner}.{op}".lstrip("."), sources)
            self.note(source, owner, None, op, sources, outputs[0])
        for output in outputs:
            self._origin[output] = source

    def _place(self, name: str, sources: list[str]) -> str:
        """Number functions of the same name, except for one that a loop over steps comes back to."""
        number = 0
        while (call := self.calls.get(f"{name}{number or ''}")) and set(sources) != set(call.sources):
            number += 1
        return f"{name}{number or ''}"

    def note(
        self, name: str, owner: str, module: nn.Module | None, op: str, sources: list[str], output: Tensor
    ) -> None:
        """Remember a call, or what a further one adds to it."""
        seen = observe(output)
        kind = seen.kind if seen.rate else "silent"
        call = self.calls.setdefault(name, Call(name, owner, module, op, self._shape(output), kind))
        call.kind = least(call.kind, kind)
        call.sources += [source for source in sources if source not in call.sources]
        self._origin[output] = name

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        rows, *rest = x.shape or (SAMPLES,)
        return tuple(rest) if rows == SAMPLES else (rows // SAMPLES, *rest)

    def _enter(self, name: str, inner: bool) -> None:
        self._running.append(name)
        self._inside += inner

    def _leave(self, name: str, module: nn.Module, inputs: Any, output: Any, inner: bool) -> None:
        self._running.pop()
        self._inside -= inner
        if inner and not self._inside and isinstance(output, Tensor):
            sources = self.origins(inputs)
            if isinstance(module, _PASSED_THROUGH) or any(output is x for x in tree_leaves(inputs)):
                if sources:
                    self._origin[output] = sources[0]
            else:
                self.note(name, name.rpartition(".")[0], module, "", sources, output)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Hook every module of a network."""
        with ExitStack() as hooks:
            for name, module in model.named_modules():
                inner = isinstance(module, BaseNode) or not any(module.children())
                enter = lambda _m, _i, n=name, inner=inner: self._enter(n, inner)  # noqa: E731
                leave = lambda m, i, k, o, n=name, inner=inner: self._leave(n, m, (i, k), o, inner)  # noqa: E731
                hooks.callback(module.register_forward_pre_hook(enter).remove)
                hooks.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
            yield


def example_input(model: nn.Module) -> Tensor:
    """Make a random batch that a registered network takes: images, or counts of events where it has two channels."""
    generator = torch.Generator().manual_seed(0)
    channels, (height, width) = model.in_chans, model.img_size
    reference = next(model.parameters())
    if channels == 2 or height == 1:  # a sequence has a height of 1
        x = torch.poisson(torch.rand(SAMPLES, model.step, channels, height, width, generator=generator), generator)
    else:
        x = torch.rand(SAMPLES, channels, height, width, generator=generator)
    return x.to(reference.device, reference.dtype)


def follow(model: nn.Module) -> dict[str, Call]:
    """Run a copy of a network once, all steps at a time, and return its calls in the order of execution.

    Normalisation takes the batch's statistics, because neurons of a fresh network would hardly fire without.

    Args:
        model: a registered network; it is left as it was.

    Returns:
        Calls by name, the input being the first.

    Raises:
        UserError: for a converted network, or one that takes no picture or has no steps.
    """
    if isinstance(unwrap(model), Converted):
        raise UserError(
            f"no diagram of {type(unwrap(model)).__name__}: its sums run over steps, so that it has no order of boxes; "
            "draw a registered network"
        )
    if getattr(unwrap(model), "input_names", ()) or not hasattr(unwrap(model), "layer_by_layer"):
        raise UserError(
            f"no diagram of {type(unwrap(model)).__name__}: it does not take one picture or sequence and run over its "
            "steps; draw a classifier of the zoo"
        )
    network = copy.deepcopy(unwrap(model))
    if not network.layer_by_layer:
        network.set_streaming(False)
    x = example_input(network)
    follower = _Follower(network.step)
    with frozen_inference(network):
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        with follower.watching(network), follower:
            follower.note(INPUT, "", None, "", [], x)
            network(x)
    return follower.calls
