"""Gradient checkpointing that leaves running statistics as without it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["checkpoint_module"]


def _passes(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return the contexts of the two passes: the second starts from the buffers that the first one started from, so
    that it computes the same, and leaves them as it found them."""
    buffers = list(module.buffers())
    started_from = [buffer.clone() for buffer in buffers]

    @contextmanager
    def again() -> Iterator[None]:
        found = [buffer.clone() for buffer in buffers]
        _fill(buffers, started_from)
        try:
            yield
        finally:
            _fill(buffers, found)

    return nullcontext(), again()


@torch.no_grad()
def _fill(buffers: list[Tensor], values: list[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


@torch.compiler.disable
def checkpoint_module(module: nn.Module, x: Tensor) -> Tensor:
    """Run `module` on `x`, keeping only `x` for the backward pass, which runs it again.

    A compiled network leaves its graph here: depending on its release, torch's compiler updates statistics in both
    passes, or recomputes from statistics that have moved on.
    """
    return checkpoint(module, x, use_reentrant=False, context_fn=lambda: _passes(module))
