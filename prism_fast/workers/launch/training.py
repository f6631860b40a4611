"""Several processes that train the same students: on this machine, or tasks of one Slurm job."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prism_fast.config import RunConfig
from prism_fast.errors import InputError, RunError
from prism_fast.workers.launch.slurm import executor_of

#: What starts the ranks of a training; with torchrun, it has.
TrainingLauncherName = Literal["local", "torchrun", "slurm"]
_POLL_S, _POLL_LOCAL_S = 2.0, 0.2


@dataclass(frozen=True)
class Training:
    """A distillation, and by how many ranks."""

    config: RunConfig
    run: Path
    out: Path
    device: str = "cpu"
    check: bool | None = None
    ranks: int = 1

    def command(self, config: Path) -> list[str]:
        """What is one rank, of the configuration in a file; torchrun says which."""
        check = {None: [], True: ["--check"], False: ["--no-check"]}[self.check]
        where = ["--run", str(self.run), "--out", str(self.out), "--device", self.device]
        return ["-m", "prism_fast", "distill", str(config), *where, *check, "--launch", "torchrun"]


def launch_local(training: Training, log: Callable[[str], None]) -> None:
    """Ranks on this machine, each on a GPU of its own or its part of the cores; if one is killed, all start again.

    They meet as torchrun's would. Its agent is not used: it starts again what was refused, and says it in a page of its
    own. The first rank shows its progress on standard error.

    Raises:
        InputError: a rank refused its input. RunError: a rank ended otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="prism-fast-") as name:
        folder, restarts = Path(name), training.config.launch.restarts
        (folder / "config.yaml").write_text(training.config.model_dump_json(), encoding="utf-8")  # JSON is YAML
        while (failed := _run(training, folder)) is not None:
            rank, code = failed
            if code >= 0 or not restarts:
                raise _failure(rank, code, folder)
            restarts -= 1
            log(f"rank {rank} was killed by signal {-code}; all ranks go on from their last checkpoint")


def _run(training: Training, folder: Path) -> tuple[int, int] | None:
    """Ranks until all have ended, or one has failed: which, and its exit code."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(training.ranks):
            ranks.append(_start(training, folder, rank, port))
        while True:
            codes = [process.poll() for process in ranks]
            failed = [(rank, code) for rank, code in enumerate(codes) if code]
            if failed:
                return failed[0]
            if None not in codes:
                return None
            time.sleep(_POLL_LOCAL_S)
    finally:
        for process in ranks:
            process.kill()  # nothing happens to one that has ended
            process.wait()


def _start(training: Training, folder: Path, rank: int, port: int) -> subprocess.Popen[bytes]:
    cores = max(1, len(os.sched_getaffinity(0)) // training.ranks)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": training.ranks, "MASTER_PORT": port}
    names = {"OMP_NUM_THREADS": str(cores), **os.environ, "MASTER_ADDR": "127.0.0.1"}
    with open(_messages(folder, rank), "wb") as messages:
        return subprocess.Popen(
            [sys.executable, *training.command(folder / "config.yaml")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages if rank else None,
            env=names | {name: str(value) for name, value in place.items()},
        )


def _messages(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.log"


def _failure(rank: int, code: int, folder: Path) -> InputError | RunError:
    """The error of a rank that failed, with its last message; that of the first one has been shown."""
    lines = _messages(folder, rank).read_text(errors="replace").strip().splitlines()
    said = lines[-1].removeprefix("error: ") if lines else "see its message above"
    kind = InputError if code == InputError.exit_code else RunError
    return kind(f"rank {rank} ended with exit code {code}: {said}")


@dataclass(frozen=True)
class _Task:
    """One rank of a Slurm job, as submitit stores it."""

    training: Training

    def __call__(self) -> None:
        """Be the rank that Slurm says."""
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        train_as_rank(self.training)

    def checkpoint(self) -> Any:
        """What submitit submits again when the job's time is over: the same, which goes on from its checkpoints."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def train_as_rank(training: Training) -> None:
    """Be one of the ranks that the environment tells of, without anybody to show progress to."""
    from prism_fast.distillation.parallel import joined
    from prism_fast.distillation.run import distill_run

    with joined(training.device) as world:
        distill_run(
            training.config, training.run, training.out, device=str(world.device), world=world, check=training.check
        )


def launch_slurm(training: Training, log: Callable[[str], None], cluster: str = "slurm") -> None:
    """Submit one job of as many tasks as ranks, and wait for it; if this is stopped, it goes on.

    Raises:
        InputError: submitit is not installed, or Slurm is not. RunError: the job failed.
    """
    executor = executor_of(training.out, cluster)
    executor.update_parameters(**_parameters(training))
    job = executor.submit(_Task(training))
    log(f"submitted job {job.job_id} of {training.ranks} ranks; messages in {executor.folder}")
    while not job.done():
        time.sleep(_POLL_S)
    if failure := job.exception():
        raise RunError(f"job {job.job_id}: {(str(failure).strip().splitlines() or ['no message'])[-1]}")


def _parameters(training: Training) -> dict[str, Any]:
    launch, slurm = training.config.launch, training.config.launch.slurm
    on_gpus = training.device.startswith("cuda")
    each = min(training.ranks, slurm.ranks_per_node)
    if training.ranks % each:
        raise InputError(f"--workers {training.ranks} is no multiple of launch.slurm.ranks_per_node {each}")
    parameters: dict[str, Any] = {
        "name": f"prism-fast-distill-{training.config.name}",
        "timeout_min": slurm.time_min,
        "nodes": training.ranks // each,
        "tasks_per_node": each,
        "cpus_per_task": launch.cpus_per_worker,
        "gpus_per_node": each if on_gpus else 0,
    }
    return parameters | ({"slurm_partition": slurm.partition} if slurm.partition else {})
