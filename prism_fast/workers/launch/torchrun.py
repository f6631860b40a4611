"""Be one of the workers that ``torchrun --no-python prism-fast synthesize ... --launch torchrun`` starts.

Only the rank, the number of ranks and their numbers on this machine are taken from torchrun: there is no process group
and nothing to rendezvous, so ranks may come and go.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from prism_fast.errors import InputError
from prism_fast.workers.launch.job import Job
from prism_fast.workers.launch.share import cores_of, gpu_of
from prism_fast.workers.rank import Rank


def launch(job: Job, watch: Callable[[], None]) -> None:
    """Be worker ``RANK`` + 1 of ``WORLD_SIZE``; only the first one shows progress.

    Raises:
        InputError: not started by torchrun.
    """
    rank = rank_of_torchrun()
    _share(int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1")), job)
    replace(job, rank=rank, progress=job.progress if rank.number == 1 else None).work()


def rank_of_torchrun() -> Rank:
    """Rank as torchrun says it.

    Raises:
        InputError: not started by torchrun.
    """
    try:
        number, workers = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    except (KeyError, ValueError) as error:
        raise InputError(
            "--launch torchrun needs RANK and WORLD_SIZE as torchrun sets them; start 'torchrun --no-python "
            "--nproc-per-node N prism-fast synthesize ... --launch torchrun', or use --launch local"
        ) from error
    return Rank(number + 1, workers)


def _share(number: int, workers: int, job: Job) -> None:
    import torch

    os.environ.update(gpu_of(number, job.config.sampling.device))
    cores = cores_of(number, workers)
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
