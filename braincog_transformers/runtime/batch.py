"""Samples of several tensors: what stands in the place of a tensor where a network or a loss reads more than one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Batch", "in_float32", "tensors_of"]


class Batch:
    """Tensors by name that belong to the same samples, which are their first axis.

    A single sample has the same names, and its tensors lack that axis. `batch.boxes` and `batch["boxes"]` are the same.

    Args:
        **named: the tensors.
    """

    def __init__(self, **named: Tensor):
        self._named = named

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self.__dict__["_named"][name]
        except KeyError:
            raise AttributeError(f"a batch of {', '.join(self.__dict__.get('_named', ()))} has no {name}") from None

    def __getitem__(self, key: str | slice) -> "Tensor | Batch":
        """Return the tensor of a name, or a batch of some of the samples."""
        return self.map(lambda value: value[key]) if isinstance(key, slice) else self._named[key]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self._named.values())))

    def __repr__(self) -> str:
        return f"Batch({', '.join(f'{name}={tuple(value.shape)}' for name, value in self._named.items())})"

    @classmethod
    def stack(cls, samples: Sequence["Batch"]) -> "Batch":
        """Return single samples as one batch."""
        return cls(**{name: torch.stack([sample[name] for sample in samples]) for name in samples[0]._named})

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors, in the order of their names."""
        return tuple(self._named.values())

    def map(self, change: Any) -> "Batch":
        """Return the batch with `change(tensor)` in the place of each tensor."""
        return type(self)(**{name: change(value) for name, value in self._named.items()})

    def to(self, *where: Any, **how: Any) -> "Batch":
        """Return the batch on another device or in another type, as `Tensor.to` does."""
        return self.map(lambda value: value.to(*where, **how))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory."""
        return self.map(Tensor.pin_memory)

    def record_stream(self, stream: Any) -> None:
        """Tell the allocator that a stream of a GPU reads the tensors."""
        for value in self._named.values():
            value.record_stream(stream)


def tensors_of(x: Any) -> tuple[Tensor, ...]:
    """Return the tensors that an input consists of: itself, or those of a `Batch`; none of what reads files later."""
    if isinstance(x, Tensor):
        return (x,)
    return x.tensors() if hasattr(x, "tensors") else ()


def in_float32(output: Any) -> Any:
    """Return what a network puts out with its floating-point tensors in float32, or as they are in float64: a tensor, a
    `Batch`, or a mapping or sequence of them."""
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() and output.dtype != torch.float64 else output
    if isinstance(output, Batch):
        return output.map(in_float32)
    if isinstance(output, Mapping):
        return {name: in_float32(value) for name, value in output.items()}
    return [in_float32(value) for value in output] if isinstance(output, list | tuple) else output
