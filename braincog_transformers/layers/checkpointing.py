"""Gradient checkpointing that leaves running statistics as without it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

__all__ = ["checkpoint_module", "kept"]

# Changes nothing where both arguments are the same, and nothing else here uses it: a mark for the compiler.
_MARK = torch.ops.aten.copysign.Tensor


def kept(value: Tensor) -> Tensor:
    """Return a value that was computed from running statistics, marked as one that the backward pass needs.

    A compiled backward pass would compute it again, from statistics that have moved on by then.
    """
    return torch.copysign(value, value)


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


def checkpoint_module(module: nn.Module, x: Tensor) -> Tensor:
    """Run `module` on `x`, keeping only `x` for the backward pass, which runs it again."""
    if torch.compiler.is_compiling():
        # The compiler recomputes values, not side effects: statistics are updated once anyway.
        return checkpoint(
            module, x, use_reentrant=False, context_fn=partial(create_selective_checkpoint_contexts, [_MARK])
        )
    return checkpoint(module, x, use_reentrant=False, context_fn=lambda: _passes(module))
