"""One long-lived actor a slot of a Ray cluster; only shard numbers travel, the records lie in the directory.

Every actor has at most one shard in hand, so whatever dies costs at most that. An actor that was killed is started
again by Ray, loads its engines once more and is given its shard again; actors that find room only later join then.
Where the cluster is, Ray's own ``RAY_ADDRESS`` says; without it one is started on this machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

from prism_fast.errors import InputError
from prism_fast.workers.assembly import assemble
from prism_fast.workers.launch.job import Job
from prism_fast.workers.rank import Rank
from prism_fast.workers.worker import Worker, leases_of

_POLL_S = 0.5
_CLOSE_S = 10.0


class Slot:
    """The actor: a worker that is loaded when it is first needed, also after a restart."""

    def __init__(self, job: Job, rank: Rank) -> None:
        self.job, self.rank = job, rank
        self._held = ExitStack()

    @cached_property
    def worker(self) -> Worker:
        """Models and engines."""
        import torch

        job, config = self.job, self.job.config
        if not config.sampling.device.startswith("cuda"):
            torch.set_num_threads(config.launch.cpus_per_worker)
        leases = self._held.enter_context(leases_of(config, job.out, self.rank))
        return assemble(config, job.out, leases, store=job.store, generator=job.generator)

    def close(self) -> None:
        """Give the leases back."""
        self._held.close()

    def open(self) -> None:
        """Load everything."""
        _ = self.worker

    def make(self, shard: int) -> int | None:
        """Make a shard; gives its number, or None when somebody else is making it."""
        record = self.worker.make(shard)
        if record is None:
            self.worker.leases.wait()  # or it would be asked for again at once
        return None if record is None else record.shard


@dataclass
class _Crew:
    """The actors, what each has in hand, and what is still to be handed out."""

    job: Job
    ray: ModuleType
    queue: deque[int]
    busy: dict[Any, tuple[Any, int | None]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)

    def hire(self) -> None:
        """Ask Ray for the actors."""
        job, launch = self.job, self.job.config.launch
        gpus = int(job.config.sampling.device.startswith("cuda"))
        actor = self.ray.remote(
            num_cpus=launch.cpus_per_worker,
            num_gpus=gpus,
            max_restarts=launch.restarts,
            max_task_retries=launch.restarts,
        )(Slot)
        plain = job.elsewhere()
        for number in range(1, job.workers + 1):
            one = actor.remote(plain, Rank(number, job.workers))
            self.busy[one.open.remote()] = (one, None)

    def unfinished(self) -> bool:
        """Whether a shard is to be made or in hand, and there is an actor for it."""
        in_hand = any(shard is not None for _, shard in self.busy.values())
        return in_hand or bool(self.queue and not self.job.stop.asked and (self.busy or self.idle))

    def step(self) -> None:
        """Hand out what can be, then wait a moment for an answer."""
        while self.queue and self.idle and not self.job.stop.asked:
            shard, actor = self.queue.popleft(), self.idle.pop()
            self.busy[actor.make.remote(shard)] = (actor, shard)
        answered, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=_POLL_S)
        for reference in answered:
            self._receive(reference, *self.busy.pop(reference))

    def dismiss(self) -> None:
        """Let every actor that has nothing in hand give its leases back; one that hangs is not waited for."""
        with suppress(self.ray.exceptions.RayError):  # the cluster may be what ended
            if closing := [actor.close.remote() for actor in self.idle]:
                self.ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)

    def _receive(self, reference: Any, actor: Any, shard: int | None) -> None:
        try:
            answer = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:  # died more often than launch.restarts allows, out of memory
            self.job.log(f"a worker is lost ({type(error).__name__}); the others go on")
            answer = None
        else:
            self.idle.append(actor)
        if answer is None and shard is not None:
            self.queue.append(shard)


def launch(job: Job, watch: Callable[[], None]) -> None:
    """Run ``job.workers`` actors until every shard has a record.

    Raises:
        InputError: Ray is not installed, no cluster answers, or it has no room for even one worker.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("--launch ray needs Ray, which is not installed; pip install 'prism-fast[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
        except ConnectionError as error:
            raise InputError(f"no Ray cluster answers at RAY_ADDRESS ({error}); start one, or unset it") from error
    try:
        _require_room(ray.cluster_resources(), job)
        with job.stop.patient():
            _drive(_Crew(job, ray, deque(job.missing())), watch)
    finally:
        if ours:
            ray.shutdown()


def _require_room(resources: dict[str, float], job: Job) -> None:
    needs = {"CPU": job.config.launch.cpus_per_worker, "GPU": int(job.config.sampling.device.startswith("cuda"))}
    for kind, needed in needs.items():
        if resources.get(kind, 0) < needed:
            raise InputError(
                f"a worker needs {needed} {kind}, the Ray cluster has {resources.get(kind, 0):g}; add nodes, or change "
                "launch.cpus_per_worker or sampling.device"
            )


def _drive(crew: _Crew, watch: Callable[[], None]) -> None:
    crew.hire()
    try:
        while crew.unfinished():
            crew.job.stop.check_batch()
            crew.step()
            watch()
    finally:
        crew.dismiss()
