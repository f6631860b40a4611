"""Several processes that train the same students, each on its part of every batch: torch's DistributedDataParallel.

The batch of a step is that of all ranks, so neither the learning rate nor the number of steps depends on how many
there are, and what the loader gives does not either.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prism_fast.errors import InputError


@dataclass(frozen=True)
class World:
    """Which of how many processes this one is, and where it computes."""

    device: torch.device
    rank: int = 0
    ranks: int = 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and tells."""
        return self.rank == 0

    def share(self, module: nn.Module, sync_batch_norm: bool = False) -> nn.Module:
        """The module with gradients that are the mean over all ranks; alone, the module."""
        if self.ranks == 1:
            return module
        if sync_batch_norm:
            if self.device.type != "cuda":
                raise InputError("distill.sync_batch_norm needs GPUs; set it to false")
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all ranks."""
        if self.ranks > 1:
            values = values.clone()
            torch.distributed.all_reduce(values)
            values /= self.ranks
        return values

    def told(self, decision: bool) -> bool:
        """What the leading rank decided."""
        if self.ranks == 1:
            return decision
        said = torch.tensor(float(decision), device=self.device)
        torch.distributed.broadcast(said, src=0)
        return bool(said)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.ranks > 1:
            torch.distributed.barrier()


def without_exchange(module: nn.Module) -> AbstractContextManager[None]:
    """Meanwhile gradients are not exchanged: those of another part of the same step follow."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        exchange: AbstractContextManager[None] = module.no_sync()
        return exchange
    return nullcontext()


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The processes that torchrun started, as long as the context lasts: NCCL on GPUs, gloo elsewhere.

    Raises:
        InputError: not started by torchrun, or there are fewer GPUs on this machine than ranks.
    """
    missing = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} - os.environ.keys()
    if missing:
        raise InputError(
            f"--launch torchrun: {min(missing)} is not set; start 'torchrun --nproc-per-node N --no-python prism-fast "
            "distill ... --launch torchrun', or use --launch local"
        )
    own = _own_device(torch.device(device), int(os.environ["LOCAL_RANK"]))
    if own.type == "cuda":
        torch.cuda.set_device(own)
    torch.distributed.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield World(own, torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


def _own_device(device: torch.device, place: int) -> torch.device:
    if device.type != "cuda":
        return device
    if place >= torch.cuda.device_count():
        raise InputError(f"rank {place} of this machine has no GPU: there are {torch.cuda.device_count()}; start fewer")
    return torch.device("cuda", place)
