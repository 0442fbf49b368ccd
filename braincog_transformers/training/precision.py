"""Number formats of a training step: full, bfloat16 or float16, with the scaled gradients that the last one needs."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from ..errors import UserError

__all__ = ["Precision"]

# a loss that overflows float16 even at a thousandth of its size is no loss any more
SMALLEST_SCALE = 2.0**-10


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

    `scaler` is PyTorch's; without float16 its methods pass through what they are given.

    Args:
        device_type: `cpu` or `cuda`.
        dtype: None for float32 throughout, else `bfloat16` or `float16`.

    Raises:
        UserError: when the device cannot compute in that type.
    """

    def __init__(self, device_type: str, dtype: str | None = None):
        if dtype == "float16" and device_type == "cpu" and not _float16_on_cpu_works():
            raise UserError("--amp-dtype float16: this torch has no float16 arithmetic on the CPU; use bfloat16.")
        if dtype == "bfloat16" and device_type == "cuda" and not torch.cuda.is_bf16_supported():
            raise UserError("--amp-dtype bfloat16: this GPU has no bfloat16 arithmetic; use float16.")
        self.device_type = device_type
        self.dtype = None if dtype is None else getattr(torch, dtype)
        self.scaler = torch.amp.GradScaler(device_type, enabled=dtype == "float16")

    def autocast(self) -> AbstractContextManager:
        """Return the context for a forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device_type, dtype=self.dtype)

    @property
    def hopeless(self) -> bool:
        """Whether so many updates in a row were left out that the scale, 65,536 at first, leaves nothing to scale."""
        return self.scaler.get_scale() < SMALLEST_SCALE
