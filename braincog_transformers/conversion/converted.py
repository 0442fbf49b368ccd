"""What every converted network is: a network run for T steps on each input, whose outputs are added up."""

import warnings
from typing import Any, ClassVar, Literal

import torch
from braincog.base.node.node import BaseNode
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import UserError
from ..ops.neuron import membrane_dtype

__all__ = ["Converted", "Stateful", "device_and_dtype", "reset"]


class Stateful(nn.Module):
    """A module that is no neuron, and keeps something from one step to the next, which `reset` forgets."""

    def reset(self) -> None:
        raise NotImplementedError


def device_and_dtype(network: nn.Module) -> dict[str, Any]:
    """Return where a network is and its floating type, as keywords of `torch.zeros` and of modules."""
    tensors = (*network.parameters(), *network.buffers())
    found = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.zeros(()))
    return {"device": found.device, "dtype": found.dtype}


def reset(network: nn.Module) -> None:
    """Bring every neuron and every `Stateful` module of a network to rest."""
    for module in network.modules():
        if isinstance(module, BaseNode):
            module.n_reset()
        elif isinstance(module, Stateful):
            module.reset()


class Converted(nn.Module):
    """A spiking network made from an ordinary one: it runs T steps on each input. A method derives its own class.

    A call starts at rest and leaves nothing behind. `forward_step` takes one step and keeps the state, for streaming.
    It is for inference.

    Args:
        network: what runs at every step; its neurons take one step a call.
        step: number of steps T.
        settings: what `convert` was given, by name, for the file that rebuilds it.

    Attributes:
        current: the step that is being taken, from 0; None outside of steps, as in `readout`.
        stops: whether a call may end before T steps, once the network is `settled`.
        coding: what enters at step t: "constant": the input; "once": the input at the first step, then zeros; "spread":
            the input over `spread` at the first `spread` steps, then zeros.
        readout_is: the answer after t steps, from the sum of the outputs: their "sum", or their "mean".

    Raises:
        UserError: for fewer steps than one.
    """

    method: ClassVar[str] = ""
    coding: Literal["constant", "once", "spread"] = "constant"
    readout_is: Literal["sum", "mean"] = "mean"
    spread = 1
    fitted_to: int | None = None
    """T that the thresholds are for, None where they do not depend on it."""
    input_dims = 4
    """Axes of the source's input, the batch's among them; one more is the axis of time, behind the batch's."""

    def __init__(self, network: nn.Module, step: int, settings: dict[str, Any] | None = None):
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.settings = dict(settings or {})
        self.step = step
        self.current: int | None = None
        self.stops = True
        self._steps_used: int | None = None
        self.pretrained_cfg = self.default_cfg = getattr(network, "pretrained_cfg", None)
        self.num_classes = getattr(network, "num_classes", None)
        for node in self.nodes.values():
            node.layer_by_layer = False
        self.eval()

    @property
    def step(self) -> int:
        """T."""
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise UserError(f"{type(self).__name__}: the number of steps must be a whole number from 1; got {value}")
        self._step = int(value)
        if self.fitted_to is not None and self.fitted_to != self._step:
            warnings.warn(
                f"{type(self).__name__}: T is {self._step} now, and the thresholds stay those that were found for "
                f"{self.fitted_to}; convert the source again with step={self._step} to have others",
                stacklevel=2,
            )

    @property
    def steps_used(self) -> int | None:
        """Number of steps that the last call took, None before one; `forward` stops once the network is `settled`."""
        return self._steps_used

    @property
    def nodes(self) -> dict[str, BaseNode]:
        """The neurons by name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, BaseNode)}

    def get_classifier(self) -> nn.Module:
        """Return the source's classifier, as timm does; an empty module for a network that has none."""
        return self.network.get_classifier() if hasattr(self.network, "get_classifier") else nn.Identity()

    def train(self, mode: bool = True) -> "Converted":
        """Stay in evaluation mode: a converted network is not trained; its source is."""
        return super().train(False)

    def reset(self) -> None:
        """Bring the whole network to rest, between two streams of `forward_step`."""
        reset(self.network)

    def encode(self, x: Tensor, t: int) -> Tensor:
        """Return what enters at step t, from 0."""
        if self.coding == "constant":
            return x
        steps = self.spread if self.coding == "spread" else 1
        if t >= steps:
            return torch.zeros_like(x)
        return x / steps if steps > 1 else x  # tokens stay whole numbers

    def forward_step(self, x: Tensor) -> Tensor:
        """Take one step on what enters, `(B, ...)` as the source takes it, and return what leaves; keeps the state."""
        return self.network(x)

    def readout(self, total: Tensor, steps: int) -> Tensor:
        """Return the answer after so many steps, from the sum of what left."""
        return total / steps if self.readout_is == "mean" else total

    def settled(self) -> bool:
        """Tell whether further steps, in which nothing enters, change nothing."""
        return False

    def _steps(self, x: Tensor, progress: bool = False):
        """Yield the sum of what left after each step, with the number of steps. The network ends at rest."""
        framed = x.dim() == self.input_dims + 1
        if framed and x.shape[1] < 1:
            raise UserError(f"{type(self).__name__}: the input (B, T, ...) holds no step")
        total, last = None, x.shape[1] if framed else self.step
        self.reset()
        try:
            for t in tqdm(range(last), desc="steps", unit="step", disable=not progress, leave=False):
                self.current = t
                out = self.forward_step(x[:, t] if framed else self.encode(x, t))
                self.current = None
                out = out.to(membrane_dtype(out.dtype))
                total = out if total is None else total + out
                self._steps_used = t + 1
                yield total, t + 1
        finally:
            self.current = None
            self.reset()

    def forward(self, x: Tensor) -> Tensor:
        """Run T steps and return the answer `(B, K)`.

        Args:
            x: input as the source takes it, which `encode` presents at each step; or `(B, T, ...)`, what enters at each
                step by itself.
        """
        total = steps = None
        # what is in later frames is unknown
        stops = self.stops and x.dim() == self.input_dims and not torch.compiler.is_compiling()
        for total, steps in self._steps(x):  # noqa: B007 - the last ones count
            if stops and steps < self.step and self.settled():
                break
        return self.readout(total, steps).to(x.dtype if x.is_floating_point() else total.dtype)

    def forward_sequence(self, x: Tensor, *, progress: bool = False) -> Tensor:
        """Return the answer after each step, `(T, B, K)`, for input as in `forward`; the last is what that returns."""
        return torch.stack([self.readout(total, steps) for total, steps in self._steps(x, progress)])

    def extra_repr(self) -> str:
        return f"method={self.method}, step={self.step}, coding={self.coding}"
