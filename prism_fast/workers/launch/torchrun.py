"""Be one of the workers that ``torchrun --no-python prism-fast synthesize ... --launch torchrun`` starts.

Only the rank, the number of ranks and their numbers on this machine are taken from torchrun: there is no process group
and nothing to rendezvous, so ranks may come and go.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import torch

from prism_fast.workers.launch.job import Job
from prism_fast.workers.rank import local_rank_of_torchrun, rank_of_torchrun
from prism_fast.workers.share import cores_of

__all__ = ["launch", "rank_of_torchrun"]


def launch(job: Job, watch: Callable[[], None]) -> None:
    """Be worker ``RANK`` + 1 of ``WORLD_SIZE`` on its part of the cores; only the first one shows progress.

    Raises:
        InputError: not started by torchrun.
    """
    rank = rank_of_torchrun()
    here = local_rank_of_torchrun()
    cores = cores_of(here.number - 1, here.workers)
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    replace(job, rank=rank, progress=job.progress if rank.number == 1 else None).work()
