"""Start the workers of a run: in this process, or several of them by one of the launchers, one a file.

Every launcher starts the same worker (:mod:`prism_fast.workers.worker`); they differ in where and how often.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import import_module

from prism_engines.backends.reasons import extra, module_reasons

from prism_fast.compile.tune import with_tuned_batch
from prism_fast.workers.launch.job import Job, Launch, LauncherName
from prism_fast.workers.synthesize import Summary

__all__ = ["Job", "reasons", "start"]


def reasons(name: LauncherName) -> list[str]:
    """Why a launcher cannot start workers from here; empty when it can."""
    module = {"ray": "ray", "slurm": "submitit"}.get(name)
    found = module_reasons(module, remedy=extra(name)) if module else []
    if name == "slurm" and shutil.which("sbatch") is None:
        found.append("sbatch is not on the path; start the run on a login node of a Slurm cluster")
    return found


def start(name: LauncherName | None, job: Job) -> Summary:
    """Carry out ``job`` by the launcher ``name`` (local, ray, torchrun, slurm); None means one worker in this process.

    A ``sampling.batch_size`` of auto is looked up here, once for all workers: it is a part of the run.

    Raises:
        InputError: bad input, or a launcher that is not installed. RunError: shards are missing at the end.
        StoppedError: a signal asked for it.
    """
    job = replace(job, config=with_tuned_batch(job.config, job.store))
    if name is None:
        return job.work()
    launch: Launch = import_module(f"prism_fast.workers.launch.{name}").launch
    return job.watched(launch)
