"""Number formats of a training step: full, bfloat16 or float16, with the scaled gradients that the last one needs."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import UserError

__all__ = ["Precision"]

# a loss that overflows float16 even at a thousandth of its size is no loss any more
SMALLEST_SCALE = 2.0**-10
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def _float16_on_cpu_works() -> bool:
    layer = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    try:
        with torch.autocast("cpu", dtype=torch.float16):
            layer(torch.zeros(2, 1, 4, 4)).sum().backward()
    except RuntimeError:
        return False
    return True


class Precision:
    """Autocast to a lower type, and scale the loss where that type's range asks for it.

    Args:
        device_type: `cpu` or `cuda`.
        dtype: None for float32 throughout, else `bfloat16` or `float16`.

    Raises:
        UserError: when the device cannot compute in that type.
    """

    def __init__(self, device_type: str, dtype: str | None = None):
        if dtype is not None and dtype not in TYPES:
            raise UserError(f"--amp-dtype must be bfloat16 or float16; got {dtype!r}.")
        if dtype == "float16" and device_type == "cpu" and not _float16_on_cpu_works():
            raise UserError("--amp-dtype float16: this torch has no float16 arithmetic on the CPU; use bfloat16.")
        if dtype == "bfloat16" and device_type == "cuda" and not torch.cuda.is_bf16_supported():
            raise UserError("--amp-dtype bfloat16: this GPU has no bfloat16 arithmetic; use float16.")
        self.device_type = device_type
        self.dtype = None if dtype is None else TYPES[dtype]
        self.scaler = torch.amp.GradScaler(device_type) if dtype == "float16" else None

    def autocast(self) -> AbstractContextManager:
        """Return the context for a forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device_type, dtype=self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients, scaled if need be."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring the gradients to their true size, as clipping and noise need them."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        """Update the weights; with scaling, leave out a step whose gradients overflowed."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    @property
    def hopeless(self) -> bool:
        """Whether so many steps in a row were left out that the scale, 65,536 at first, leaves nothing to scale."""
        return self.scaler is not None and self.scaler.get_scale() < SMALLEST_SCALE

    def state_dict(self) -> dict:
        """Return the state of the scaling; empty without it."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Take over a state of `state_dict`."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
