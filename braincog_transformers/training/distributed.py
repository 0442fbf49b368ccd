"""Ranks: one process or many, behind one small object that works alone too."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from timm.utils import distribute_bn
from timm.utils.distributed import init_distributed_device_so, is_distributed_env, world_info_from_env
from torch import Tensor, distributed, nn
from torch._functorch import config as functorch_config
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..errors import UserError
from ..runtime.compiler import inductor

Built = TypeVar("Built")

__all__ = ["Ranks", "compile_for_batches", "last_sync_only", "set_up", "share_batch_norm", "wrap"]

# Share of what a compiled network would keep for its backward pass; down to here no matrix product is repeated.
# With less than all, PyTorch 2.8 and earlier fail to compile a graph for many sizes; 2.15 does it.
MEMORY_BUDGET = 0.5 if torch.__version__ >= (2, 15) else 1.0


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Args:
        device: where this process computes.
        rank: number of this process, from 0.
        world_size: number of processes.
        host_group: process group on the host for flags and generator states; None when alone.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    host_group: distributed.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print a line, past a progress bar, in the first process."""
        if self.first:
            tqdm.write(text)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; every process must call this."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        distributed.all_reduce(flags, op=distributed.ReduceOp.MAX, group=self.host_group)
        return bool(flags.item())

    def sum(self, values: Tensor) -> Tensor:
        """Return the values added over all processes."""
        if self.world_size == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total

    def gather(self, value: dict) -> list[dict]:
        """Return every process's value in the order of ranks; every process must call this."""
        if self.world_size == 1:
            return [value]
        gathered: list = [None] * self.world_size
        distributed.all_gather_object(gathered, value, group=self.host_group)
        return gathered

    def share(self, value: object) -> object:
        """Return the first process's value; every process must call this."""
        if self.world_size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, group=self.host_group)
        return box[0]

    def first_alone(self, build: Callable[[], Built]) -> Built:
        """Call `build` in the first process, then in the others, which find what it downloaded or cached.

        Raises:
            UserError: in every process, when the first one failed by the user's mistake.
        """
        built, error = None, None
        if self.first:
            try:
                built = build()
            except (ValueError, OSError) as problem:
                error = problem
        message = self.share(None if error is None else str(error))
        if error is not None:
            raise error
        if message is not None:
            raise UserError(message)
        return built if self.first else build()

    def close(self) -> None:
        """Leave the process groups."""
        if self.world_size > 1:
            distributed.destroy_process_group()


def device_of(wanted: str | None) -> str:
    """Return the device that `--device` means: 1 is the second GPU; without the option a GPU, or else the CPU."""
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{wanted}" if wanted.isdigit() else wanted


def checked_device(device: str) -> str:
    """Return the name of a device, with its number; raise `UserError` for one that isn't there."""
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"--device {device!r} is not a device; use cpu, cuda or cuda:N.") from error
    if wanted.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {device}: no CUDA device is available here; use --device cpu.")
        index = world_info_from_env()[0] if is_distributed_env() else wanted.index or 0
        if index >= (count := torch.cuda.device_count()):
            found = f"{count} (cuda:0 to cuda:{count - 1})"
            raise UserError(f"--device cuda:{index} is not there: this machine has {found}.")
        return "cuda" if is_distributed_env() else f"cuda:{index}"
    if wanted.type != "cpu":
        raise UserError(f"--device {device}: only cpu and cuda are supported.")
    return device


def set_up(device: str, *, backend: str | None = None, local_rank: int = 0) -> Ranks:
    """Join the processes that torchrun or SLURM started, or work alone.

    Args:
        device: `cpu`, `cuda` or `cuda:N`; among several processes each takes the GPU of its local rank.
        backend: `gloo` or `nccl`; by the device if None.
        local_rank: number on this machine where the launcher does not put it into the environment.

    Raises:
        UserError: for a device that isn't there.
    """
    device = checked_device(device)
    os.environ.setdefault("LOCAL_RANK", str(local_rank))  # old launchers give it as an argument only
    joined = init_distributed_device_so(device, dist_backend=backend)
    group = distributed.new_group(backend="gloo") if joined["distributed"] else None
    place = torch.device(joined["device"])
    return Ranks(device=place, rank=joined["global_rank"], world_size=joined["world_size"], host_group=group)


def compile_for_batches(network: nn.Module, *, backend: str | Callable = inductor) -> nn.Module:
    """Compile a network for batches: the size that comes first gets a graph of its own, all others share a second.

    PyTorch still compiles anew for a single sample, and where the samples of a convolution, T*B, fall below 16. What
    cheap operations give is computed again in the backward pass instead of kept, in this process from now on.

    Args:
        network: the network itself, not its compiled form.
        backend: of `torch.compile`; by default one that runs what it can't compile as it is.
    """
    functorch_config.activation_memory_budget = MEMORY_BUDGET
    return torch.compile(network, backend=backend)


def wrap(
    network: nn.Module, ranks: Ranks, *, sync_bn: bool = False, compile_network: bool = False
) -> tuple[nn.Module, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return the network, the call that training uses and the call that evaluation uses.

    Evaluation bypasses the gradient exchange, so that ranks may see different numbers of batches.

    Args:
        network: the network itself, on its device.
        ranks: the processes of the run.
        sync_bn: share batch statistics over the ranks during training.
        compile_network: pass the network through `compile_for_batches`.
    """
    if sync_bn and ranks.world_size > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    compiled = compile_for_batches(network) if compile_network else network
    if ranks.world_size == 1:
        return network, compiled, compiled
    gpu = [ranks.device.index] if ranks.device.type == "cuda" else None
    return network, DistributedDataParallel(compiled, device_ids=gpu), compiled


def last_sync_only(call: Callable[[Tensor], Tensor], *, last: bool) -> AbstractContextManager:
    """Hold back the gradient exchange of every accumulated batch but the last."""
    return call.no_sync() if isinstance(call, DistributedDataParallel) and not last else nullcontext()


def share_batch_norm(network: nn.Module, ranks: Ranks, *, mode: str = "") -> None:
    """Give every rank the same running statistics, so that what is measured is what is saved.

    Args:
        network: the network itself, not its compiled form.
        ranks: the processes of the run.
        mode: `reduce` for the mean over ranks; `broadcast`, or nothing, for those of the first rank.
    """
    if ranks.world_size > 1:
        distribute_bn(network, ranks.world_size, reduce=mode == "reduce")
