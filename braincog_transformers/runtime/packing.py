"""Keep spikes for the backward pass as bits, and small whole numbers as bytes, instead of floating point numbers.

A linear layer or a convolution keeps its input for the gradient of its weights; in a spiking network that input is
made of zeros and ones, or of their sums. Within `packed_spikes` autograd keeps

- the spikes of the fused neurons as one bit each, which the kernel itself writes (`note`),
- on a CPU, any other tensor of whole numbers from 0 to 255 as bytes: sums of spikes, and spikes behind a pooling,
- and there the places that a max pooling chose as 16 bits,

and everything else as it is. Nothing is rounded: the tensors that the backward pass sees are equal to those that the
forward pass saw.

Autograd leaves it to hooks to notice a change in place. What is packed is a copy: bits that a change has overtaken
are not used, and a later change touches no copy. What stays as it is has its version looked at, as without hooks.
Changes that PyTorch doesn't count (`.data`, NumPy) are noticed on a CPU, where bits are compared with the spikes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from .compiler import compiled, compiler_works
from .watching import dispatched, watched

__all__ = ["active", "bits_dtype", "note", "packed_spikes"]

# Below this many entries packing costs more than it saves; from the second number on, compiled kernels pay.
MIN_ENTRIES = 1 << 12
MANY_ENTRIES = 1 << 18
SAMPLE = 64
_BITS = ((8, torch.uint8), (15, torch.int16), (31, torch.int32), (63, torch.int64))


def bits_dtype(steps: int) -> torch.dtype:
    """Return the smallest type that has a bit for each step."""
    return next(dtype for most, dtype in _BITS if steps <= most)


@dataclass(eq=False)
class _Small:
    """The content of memory in a smaller type.

    Args:
        source: storage that it came from; while this is held, no other storage can take its address.
        content: bits `(...)`, or entries in a row, in the order of memory.
        dtype: of the original.
        version: of the original, which counts its changes in place.
        steps: T of bits, 0 for entries.
        waiting: layers that have not asked for it yet.
        original: what was restored and others wait for, and its version.
    """

    source: StorageWeakRef
    content: Tensor
    dtype: torch.dtype
    version: int
    steps: int = 0
    waiting: int = 0
    original: tuple[Tensor, int] | None = None

    def restore(self) -> Tensor:
        """Return the original content; it stays until the last of the layers that share it has asked."""
        found, version = self.original or (None, 0)
        if found is None or found._version != version:  # a layer's backward pass may write to what it is given
            unpack = _kernel(_unpack, self.content)
            found = unpack(self.content, self.steps, self.dtype) if self.steps else self.content.to(self.dtype)
        self.waiting -= 1
        self.original = (found, found._version) if self.waiting > 0 else None
        return found


@dataclass
class _View:
    """A tensor by its place in what was packed."""

    small: _Small
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def __post_init__(self):
        self.small.waiting += 1


@dataclass(frozen=True)
class _Kept:
    """A tensor as it is, with the version that the backward pass must find."""

    tensor: Tensor
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> "_Kept":
        # an operation that keeps its own output must not hold it with its history, which holds the operation
        return cls(tensor if tensor.is_leaf else tensor.detach(), _version(tensor))

    def restore(self) -> Tensor:
        """Return the tensor, or raise what autograd raises where it keeps tensors itself."""
        if (now := _version(self.tensor)) != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"[{self.tensor.type()} {list(self.tensor.shape)}] is at version {now}; expected version "
                f"{self.version} instead. Hint: enable anomaly detection to find the operation that failed to compute "
                "its gradient, with torch.autograd.set_detect_anomaly(True)."
            )
        return self.tensor


class _Noted(dict):
    """What is known of tensors: of spikes by their storage, of others by their place in theirs; None: they stay."""

    def pack(self, tensor: Tensor) -> _Kept | _View:
        return _pack(self, tensor)


_noted: ContextVar[_Noted | None] = ContextVar("noted", default=None)
# PyTorch 2.6 and 2.7 can't tell: there the hooks of others see only what layers outside ours keep
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _kernel(function: Callable, x: Tensor) -> Callable:
    """Return a function, compiled where that pays."""
    if x.numel() < MANY_ENTRIES or not compiler_works(x.device.type):
        return function
    return compiled(function, x.dtype, x.device.type)


def _unpack(bits: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    return torch.stack([(bits >> t & 1).to(dtype) for t in range(steps)])


def _differs(bits: Tensor, spikes: Tensor, steps: int) -> Tensor:
    return torch.stack([((bits >> t & 1).to(spikes.dtype) != spikes[t]).any() for t in range(steps)]).any()


def _shrink(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return x in a smaller type, and whether it differs from x."""
    content = x.to(dtype)
    return content, (content.to(x.dtype) != x).any()


def active() -> bool:
    """Tell whether spikes should come with their bits: whether what is kept now goes through these hooks."""
    noted = _noted.get()
    return noted is not None and (_top_hooks is None or (_top_hooks(True) or [None])[0] == noted.pack)


def _unused() -> bool:
    """Tell whether nobody else has hooks on what autograd keeps, such as a user's or gradient checkpointing's, and
    nobody forbids them."""
    return torch._C._autograd._saved_tensors_hooks_is_enabled() and (_top_hooks is None or _top_hooks(True) is None)


def note(spikes: Tensor, bits: Tensor) -> None:
    """Tell that a contiguous tensor of spikes `(T, ...)` has these bits, `(...)`, step t at bit t."""
    storage = spikes.untyped_storage()
    small = _Small(StorageWeakRef(storage), bits, spikes.dtype, _version(spikes), spikes.shape[0])
    _noted.get()[storage._cdata] = small


@contextmanager
def packed_spikes() -> Iterator[None]:
    """Pack what autograd keeps of the operations within, unless others have hooks on it or follow the operations."""
    if watched() or dispatched() or not _unused():
        yield
        return
    noted = _Noted()
    token = _noted.set(noted)
    try:
        with torch.autograd.graph.saved_tensors_hooks(noted.pack, _restore):
            yield
    finally:
        _noted.reset(token)


def _pack(noted: _Noted, tensor: Tensor) -> _Kept | _View:
    if tensor.numel() < MIN_ENTRIES or type(tensor) is not Tensor or tensor.layout != torch.strided:
        return _Kept.of(tensor)
    storage, version = tensor.untyped_storage(), _version(tensor)
    spikes = noted.get(storage._cdata)
    if spikes is not None and (spikes.dtype, spikes.version) == (tensor.dtype, version) and _holds(spikes, tensor):
        return _View(spikes, tensor.shape, tensor.stride(), tensor.storage_offset())
    place = (storage._cdata, tensor.dtype, version, tensor.shape, tensor.stride(), tensor.storage_offset())
    if place not in noted:
        content = _narrowed(tensor)
        noted[place] = None if content is None else _Small(StorageWeakRef(storage), content, tensor.dtype, version)
    small = noted[place]
    return _Kept.of(tensor) if small is None else _View(small, tensor.shape, tensor.stride(), 0)


def _holds(small: _Small, tensor: Tensor) -> bool:
    """Tell whether memory still is what its bits say; a GPU would wait for the answer and is trusted."""
    if tensor.device.type != "cpu":
        return True
    row = tensor.detach().as_strided((small.steps * small.content.numel(),), (1,), 0)
    spikes = row.view(small.steps, *small.content.shape)
    return not _kernel(_differs, small.content)(small.content, spikes, small.steps)


def whole_numbers(x: Tensor) -> Tensor | None:
    """Return a dense x as bytes in the same layout, or None if they can't hold it.

    What packing knows already, or finds out now, is shared with it.
    """
    x, noted = x.detach(), _noted.get()
    if noted is None:
        content = _narrowed(x)
        return None if content is None else content.as_strided(x.shape, x.stride())
    kept = _pack(noted, x)
    if not isinstance(kept, _View):
        return None
    kept.small.waiting -= 1  # this one takes the content as it is
    return x.to(torch.uint8) if kept.small.steps else kept.small.content.as_strided(x.shape, x.stride())


def _narrowed(tensor: Tensor) -> Tensor | None:
    """Return the same numbers in a smaller type, in the order of memory, or None where there is no such type."""
    smaller = torch.int16 if tensor.dtype == torch.int64 else torch.uint8 if tensor.is_floating_point() else None
    dense = tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    if smaller is None or not dense or tensor.device.type != "cpu":  # a look at numbers would make a GPU wait
        return None
    row = tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    if tensor.is_floating_point() and not _seems_whole(row):
        return None
    content, differs = _kernel(_shrink, row)(row, smaller)
    return None if differs else content


def _seems_whole(row: Tensor) -> bool:
    """Look at a few entries, which tell most tensors of real numbers."""
    return all(0 <= entry <= 255 and entry.is_integer() for entry in row[:: row.numel() // SAMPLE].tolist())


def _restore(kept: _Kept | _View) -> Tensor:
    if isinstance(kept, _View):
        return kept.small.restore().as_strided(kept.size, kept.stride, kept.offset)
    return kept.restore()
