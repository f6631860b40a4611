"""Workers as a Slurm job array, submitted by submitit, which requeues a worker whose time is over or that is preempted.

submitit handles the signals of its jobs itself; whatever ends a worker, its leases end with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prism_fast.errors import InputError
from prism_fast.storage.paths import in_store
from prism_fast.workers.launch.job import Job
from prism_fast.workers.rank import Rank

_POLL_S = 2.0
_REQUEUES = 1_000_000  # a worker may be requeued as often as its time is over


@dataclass(frozen=True)
class Task:
    """One worker of a job, as submitit stores it."""

    job: Job

    def __call__(self, number: int) -> int:
        """Be worker ``number``; gives the images it made."""
        config = self.job.config
        if not config.sampling.device.startswith("cuda"):
            import torch

            torch.set_num_threads(config.launch.cpus_per_worker)
        return replace(self.job, rank=Rank(number, self.job.workers)).work().made_now

    def checkpoint(self, number: int) -> Any:
        """What submitit submits again when the worker is interrupted: the same, for nothing is to be carried over."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number)


def executor_of(out: Path, cluster: str = "slurm") -> Any:
    """What submits jobs whose messages lie in ``out/slurm``; a job is requeued as often as its time is over.

    Raises:
        InputError: submitit is not installed, or Slurm is not.
    """
    try:
        import submitit
    except ImportError as error:
        raise InputError(
            "--launch slurm needs submitit, which is not installed; pip install 'prism-fast[slurm]'"
        ) from error
    try:
        folder = out.absolute() / "slurm"
        return submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=_REQUEUES)
    except RuntimeError as error:
        raise InputError(f"--launch slurm finds no Slurm here ({error}); start it on a login node") from error


def launch(job: Job, watch: Callable[[], None], cluster: str = "slurm") -> None:
    """Submit ``job.workers`` workers and wait for them; if this is stopped, they go on.

    Args:
        job: what to make.
        watch: called while waiting.
        cluster: submitit's name of what runs the jobs.

    Raises:
        InputError: submitit is not installed, Slurm is not, or there is no directory for its messages.
    """
    if in_store(job.out):
        raise InputError(
            f"--launch slurm keeps the jobs' messages in the run directory, which {job.out} is not; submit a job array "
            "of 'prism-fast synthesize ... --worker i/N' instead"
        )
    executor = executor_of(job.out, cluster)
    executor.update_parameters(**_parameters(job))
    jobs = executor.map_array(Task(job.elsewhere()), range(1, job.workers + 1))
    job.log(f"submitted {len(jobs)} workers, {jobs[0].job_id} to {jobs[-1].job_id}; messages in {executor.folder}")
    while not all(one.done() for one in jobs):
        watch()
        time.sleep(_POLL_S)
    watch()
    for one in jobs:
        if failure := one.exception():
            job.log(f"worker {one.job_id}: {(str(failure).strip().splitlines() or ['no message'])[-1]}")


def _parameters(job: Job) -> dict[str, Any]:
    launch, slurm = job.config.launch, job.config.launch.slurm
    parameters: dict[str, Any] = {
        "name": f"prism-fast-{job.config.name}",
        "timeout_min": slurm.time_min,
        "cpus_per_task": launch.cpus_per_worker,
        "gpus_per_node": int(job.config.sampling.device.startswith("cuda")),
        "slurm_array_parallelism": job.workers,
    }
    return parameters | ({"slurm_partition": slurm.partition} if slurm.partition else {})
