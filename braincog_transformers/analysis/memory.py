"""What a training step keeps and needs, asked from the allocator."""

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["Memory", "memory"]


@dataclass(frozen=True)
class Memory:
    """What a call allocates, in bytes, on the device that it computes on.

    Args:
        kept: still alive when the forward pass ends: what the backward pass is waiting for.
        peak: most that was alive at once during forward and backward.
    """

    kept: int
    peak: int


def memory(
    forward: Callable[[], torch.Tensor], *, forget: Callable[[], None], backward: bool, device: torch.device
) -> Memory:
    """Return what a call keeps and what it needs at most, parameters, their gradients before it and input left out.

    The allocator is asked, not autograd: what is packed by hooks on saved tensors, kept by custom functions or
    allocated by compiled kernels counts once, with its true size, and what the graph doesn't hold doesn't count. The
    call must have run before, so that it is compiled and has allocated what it keeps for good.

    Args:
        forward: returns the loss, or an output that has no graph.
        forget: releases gradients and the neurons' state; called before, and after the forward pass.
        backward: call the loss's backward pass.
        device: where the call computes.
    """
    forget()
    gc.collect()
    counted = _on_cuda if device.type == "cuda" else _on_cpu
    return counted(forward, forget, backward)


def _on_cuda(forward: Callable[[], torch.Tensor], forget: Callable[[], None], backward: bool) -> Memory:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = forward()
    forget()
    kept = torch.cuda.memory_allocated() - before - loss.untyped_storage().nbytes()
    if backward:
        loss.backward()
    torch.cuda.synchronize()
    return Memory(kept, torch.cuda.max_memory_allocated() - before)


def _on_cpu(forward: Callable[[], torch.Tensor], forget: Callable[[], None], backward: bool) -> Memory:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as until_loss:
        loss = forward()
        forget()
    kept = _allocated(until_loss)[-1] - loss.untyped_storage().nbytes()
    del loss
    forget()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as whole:
        loss = forward()
        if backward:
            loss.backward()
    return Memory(kept, max(_allocated(whole)))


def _allocated(recorded: profile) -> list[int]:
    """Return the bytes alive after each allocation or release; a release of what was there before does not count."""
    events, waiting = [], list(recorded.profiler.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.name == "[memory]":
            events.append(event)
    alive: dict[int, int] = {}
    total, course = 0, [0]
    for event in sorted(events, key=lambda event: event.start_time_ns):
        address, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size < 0:
            total -= alive.pop(address, 0)
        else:
            alive[address] = size
            total += size
        course.append(total)
    return course
