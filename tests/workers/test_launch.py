from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stub import Stub, stub_config
from prism_fast.config import RunConfig, assign, load_config
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import InputError, RunError, StoppedError
from prism_fast.operations.verify import verify
from prism_fast.workers import synthesize as unstubbed
from prism_fast.workers.launch import Job, local, slurm, start
from prism_fast.workers.launch.job import LauncherName
from prism_fast.workers.leases import Lease
from prism_fast.workers.rank import Rank
from prism_fast.workers.share import cores_of
from prism_fast.workers.stop import stoppable
from tests.runs import assert_same_run
from tests.stubbed import synthesize

DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
FAILS = "import sys; sys.exit('error: first line\\nerror: no room')"


class Supervised:
    """``local`` with other programs in the place of workers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: RunConfig, out: Path) -> None:
        self.said: list[str] = []
        self.watched = 0
        self.monkeypatch, self.config, self.out = monkeypatch, config, out
        monkeypatch.setattr(local, "_POLL_S", 0.01)

    def launch(self, *programs: str, stop: Any = None) -> None:
        self.monkeypatch.setattr(
            local, "command", lambda job, folder, place: [sys.executable, "-c", programs[place.number - 1]]
        )
        options = {"stop": stop} if stop else {}
        local.launch(Job(self.config, self.out, len(programs), log=self.said.append, **options), self.watch)

    def watch(self) -> None:
        self.watched += 1


@pytest.fixture(autouse=True)
def _no_niceness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers stand back for every other process, and beside tests on all cores they take minutes to start."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Supervised:
    return Supervised(monkeypatch, stub_config(tmp_path, launch={"restarts": 2}), tmp_path / "run")


def test_a_killed_worker_is_started_again_so_often(supervised: Supervised) -> None:
    supervised.launch(DIES, "")
    assert supervised.said == [
        "worker 1 was killed by signal 9 and is started again",
        "worker 1 was killed by signal 9 and is started again",
        "worker 1 ended with exit code -9: no message",
    ]
    assert supervised.watched > 1


def test_a_failed_worker_is_not_started_again(supervised: Supervised) -> None:
    supervised.launch("", FAILS)
    assert supervised.said == ["worker 2 ended with exit code 1: error: no room"]


def test_a_signal_is_passed_on_and_waited_for(supervised: Supervised, tmp_path: Path) -> None:
    """Each worker gets the launcher's signal once, and is not started again."""
    program = (
        "import pathlib, signal, sys, time\n"
        f"def end(number, frame): open(r'{tmp_path}/got', 'a').write(f'{{number}} '); sys.exit(128 + number)\n"
        f"signal.signal(signal.SIGUSR1, end); open(r'{tmp_path}/ready', 'a').write('x'); time.sleep(30)"
    )

    def send() -> None:
        while not (tmp_path / "ready").exists() or (tmp_path / "ready").stat().st_size < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    with stoppable() as stop:
        supervised.launch(program, program, stop=stop)
        thread.join()
        assert stop.signal == signal.SIGUSR1
        supervised.monkeypatch.setattr(local, "command", lambda *_: [sys.executable, "-c", ""])
        with pytest.raises(StoppedError):  # so it ends, for there are shards missing
            start("local", Job(supervised.config, supervised.out, log=supervised.said.append, stop=stop))
    assert (tmp_path / "got").read_text() == "10 10 "


def test_workers_get_their_cores(supervised: Supervised, tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    program = f"import os; open(r'{tmp_path}/%d', 'w').write(str(sorted(os.sched_getaffinity(0))))"
    supervised.launch(program % 0, program % 1)
    for number in (0, 1):
        assert (tmp_path / str(number)).read_text() == str(sorted(cores_of(number, 2)))
    assert os.sched_getaffinity(0) == before


def test_a_local_worker_sees_the_gpu_that_is_named(supervised: Supervised, tmp_path: Path) -> None:
    """As the environment that its process gets, and the configuration that it reads, say together."""
    supervised.config = assign(supervised.config, {"sampling.device": "cuda:1"})
    supervised.monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    told: list[str] = []

    def command(job: Job, folder: Path, rank: Rank) -> list[str]:
        told.append(load_config(str(folder / "config.yaml")).sampling.device)
        program = f"import os; open(r'{tmp_path}/gpu', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
        return [sys.executable, "-c", program]

    supervised.monkeypatch.setattr(local, "command", command)
    local.launch(Job(supervised.config, supervised.out, log=supervised.said.append), supervised.watch)
    assert ((tmp_path / "gpu").read_text(), told) == ("6", ["cuda"])


def test_missing_shards_at_the_end_are_an_error(supervised: Supervised) -> None:
    supervised.monkeypatch.setattr(local, "command", lambda *_: [sys.executable, "-c", ""])
    with pytest.raises(RunError, match=r"4 of 4 shards of .*run are missing, because workers ended; the same command"):
        start("local", Job(supervised.config, supervised.out))


def test_another_runs_directory_is_refused_before_anything_is_started(stubbed: RunConfig, tmp_path: Path) -> None:
    synthesize(stubbed, tmp_path / "run")
    other = stubbed.model_copy(update={"seed": 1})
    for name in ("local", "ray", "torchrun", "slurm"):
        with pytest.raises(InputError, match="belongs to run"):
            start(name, Job(other, tmp_path / "run"))


def test_each_rank_of_torchrun_is_a_worker(stubbed: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins at its own part of the shards."""
    seen: list[tuple[int, int]] = []
    made: list[int] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    job = Job(
        stubbed,
        tmp_path / "run",
        progress=lambda done, total, rate: seen.append((done, total)),
        finished=lambda record: made.append(record.shard),
        generator=Stub(stubbed),
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert start("torchrun", replace(job, out=tmp_path / "other")).images == 7
    assert (made, seen) == ([2, 3, 0, 1], [])
    made.clear()
    monkeypatch.setenv("RANK", "0")
    assert start("torchrun", job).images == 7
    assert (made, seen) == ([0, 1, 2, 3], [(2, 7), (4, 7), (6, 7), (7, 7)])
    assert verify(tmp_path / "run").problems == ()


def test_torchrun_wants_its_variables(stubbed: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="needs RANK and WORLD_SIZE as torchrun sets them, not nothing and "):
        start("torchrun", Job(stubbed, tmp_path / "run"))


@pytest.mark.parametrize("prefix", ["", "LOCAL_"])
@pytest.mark.parametrize(
    "given",
    [
        ("x", "2"),
        ("0", "0"),
        ("5", "2"),
        ("2", "2"),
        ("-1", "2"),
        ("٠", "2"),
        ("0", "²"),
        ("0", ""),
        ("", "2"),
        ("1" * 5000, "2"),
    ],
)
def test_a_rank_that_is_none_is_refused(
    stubbed: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, given: tuple[str, str]
) -> None:
    """Rank 5 of 2 took no part and said nothing."""
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    for name, value in zip(("RANK", "WORLD_SIZE"), given, strict=True):
        monkeypatch.setenv(f"{prefix}{name}", value)
    with pytest.raises(
        InputError, match=rf"needs {prefix}RANK and {prefix}WORLD_SIZE as torchrun sets them, not '"
    ) as e:
        start("torchrun", Job(stubbed, tmp_path / "run", generator=Stub(stubbed)))
    assert len(str(e.value)) < 400
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_what_is_not_installed_says_what_to_install(
    stubbed: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: LauncherName, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"not installed; pip install 'prism-fast\[{name}\]'"):
        start(name, Job(stubbed, tmp_path / "run"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit leaves its log files open
def test_slurm_runs_every_worker(stubbed: RunConfig, tmp_path: Path) -> None:
    """By submitit's executor that runs a job in this process when its result is asked for."""
    pytest.importorskip("submitit")
    said: list[str] = []
    job = Job(stubbed, tmp_path / "run", workers=2, log=said.append, generator=Stub(stubbed))
    summary = job.watched(lambda job, watch: slurm.launch(job, watch, cluster="debug"))
    assert (summary.images, summary.made_now) == (7, 7)
    assert verify(tmp_path / "run").problems == ()
    assert said[0].startswith("submitted 2 workers")


def test_an_interrupted_slurm_worker_is_submitted_again_as_it_is(stubbed: RunConfig, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    task = slurm.Task(Job(stubbed, tmp_path / "run", 2))
    again = task.checkpoint(2)
    assert (again.function, again.args, again.kwargs) == (task, (2,), {})


def recorded(out: Path) -> dict[str, int]:
    """When each record was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "shards").glob("0*.json")}


def kill_one(out: Path, killed: list[dict[str, int]]) -> None:
    """Kill the holder of a shard's lease, once, when some shards are finished; keeps what was finished by then."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in (out / "shards").glob("0*.lease"):
            try:
                attempt = Lease.model_validate_json(path.read_bytes()).attempt
                pid = int(attempt.rsplit("-", 2)[1])
                if len(RunDirectory(out).done()) > 3:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(recorded(out))
                    return
            except (OSError, ValueError):  # given back meanwhile
                continue
        time.sleep(0.002)


def long(config: RunConfig) -> RunConfig:
    """Forty shards of one image: long enough to kill somebody."""
    return assign(config, {"synthesis.images": 40, "synthesis.shard_size": 1})


@pytest.fixture(scope="module")
def undisturbed(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("long") / "run"
    unstubbed.synthesize(long(config), out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["local", "ray"])
def test_a_killed_worker_costs_at_most_its_shard(
    config: RunConfig, undisturbed: Path, tmp_path: Path, name: LauncherName
) -> None:
    """Two workers, one of them killed in the middle: the same bytes, and no finished shard was made again."""
    if name == "ray":
        pytest.importorskip("ray")
    out, killed, said = tmp_path / "run", list[dict[str, int]](), list[str]()
    killer = threading.Thread(target=kill_one, args=(out, killed))
    killer.start()
    summary = start(name, Job(long(config), out, workers=2, log=said.append))
    killer.join()
    (finished,) = killed
    assert finished.items() <= recorded(out).items()
    assert (summary.images, summary.made_now) == (40, 40)
    assert verify(out).problems == ()
    assert_same_run(out, undisturbed)
    assert [p for p in out.rglob("*") if ".tmp" in p.name or p.suffix == ".lease"] == []
    if name == "local":
        assert said == [f"worker {said[0].split()[1]} was killed by signal 9 and is started again"]


def raylet_of(driver: int) -> int | None:
    """The raylet that a process has started."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:  # ended meanwhile
            continue
        if fields["Name"] == "raylet" and int(fields["PPid"]) == driver:
            return int(status.parent.name)
    return None


@pytest.mark.slow
def test_a_killed_raylet_costs_what_was_in_hand(config: RunConfig, undisturbed: Path, tmp_path: Path) -> None:
    """Ray's node manager dies under driver and actors; they may get to the end or not, the next call does."""
    pytest.importorskip("ray")
    out, document = tmp_path / "run", tmp_path / "config.yaml"
    document.write_text(long(config).model_dump_json())  # JSON is YAML
    command = [sys.executable, "-m", "prism_fast", "synthesize", str(document), "--out", str(out)]
    command += ["--launch", "ray", "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with open(tmp_path / "messages", "wb") as messages:
        driver = subprocess.Popen(command, env=environment, stdout=messages, stderr=messages)
    while len(RunDirectory(out).done()) < 4:
        assert driver.poll() is None, (tmp_path / "messages").read_text()
        time.sleep(0.002)
    raylet = raylet_of(driver.pid)
    assert raylet is not None
    os.kill(raylet, signal.SIGKILL)
    driver.wait(timeout=200)
    finished = recorded(out)
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=200)
    assert finished.items() <= recorded(out).items()
    assert verify(out).problems == ()
    assert_same_run(out, undisturbed)
