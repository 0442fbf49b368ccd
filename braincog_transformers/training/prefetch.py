"""Copy the next batch to the GPU while the present one is computed."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["Ahead"]


class Ahead:
    """Stand in for a loader and keep one batch ahead on the device, copied on a stream of its own.

    Args:
        loader: gives pairs of tensors; its memory should be page-locked, else the copies wait.
        device: a CUDA device.
    """

    def __init__(self, loader: Any, device: torch.device):
        self.loader = loader
        self.device = device

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int, skip_batches: int = 0) -> None:
        """Pass on to the loader."""
        self.loader.set_epoch(epoch, skip_batches=skip_batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        stream = torch.cuda.Stream(self.device)
        waiting: tuple[Tensor, ...] | None = None
        for batch in self.loader:
            with torch.cuda.stream(stream):
                coming = tuple(part.to(self.device, non_blocking=True) for part in batch)
            if waiting is not None:
                yield waiting
            torch.cuda.current_stream(self.device).wait_stream(stream)
            for part in coming:  # the allocator must not reuse the memory while the main stream reads it
                part.record_stream(torch.cuda.current_stream(self.device))
            waiting = coming
        if waiting is not None:
            yield waiting
