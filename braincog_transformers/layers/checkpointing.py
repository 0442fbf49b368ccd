"""Gradient checkpointing that leaves batch normalisation's running statistics as without it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ["checkpoint_module"]


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Put running statistics back after a second pass over the same batch."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    saved = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in saved:
                buffer.copy_(before)


def checkpoint_module(module: nn.Module, x: Tensor) -> Tensor:
    """Run `module` on `x`, keeping only `x` for the backward pass, which runs it again."""
    if torch.compiler.is_compiling():
        # The compiler recomputes values, not side effects: statistics are updated once anyway.
        return checkpoint(module, x, use_reentrant=False)
    return checkpoint(module, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _frozen_statistics(module)))
