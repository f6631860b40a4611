"""Inject faults into runs of the stub generator and see that nothing is lost, doubled or different; see test_chaos.

A process of its own because it forks. Its argument: a folder. Prints JSON: faults by kind, and what failed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import torch
from PIL import Image
from prism_base.attempts import new_attempt

from benchmarks.stub import stub_config
from prism_fast.config import RunConfig
from prism_fast.dataset import run_directory as rundir
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import PrismError, StoppedError
from prism_fast.operations.verify import verify
from prism_fast.storage import faults, files
from prism_fast.storage.faults import POINTS, VARIABLE
from prism_fast.workers import leases
from prism_fast.workers.leases import Lease, Leases
from prism_fast.workers.rank import Rank
from prism_fast.workers.stop import SIGNALS, stoppable
from tests.runs import contents
from tests.stubbed import synthesize

TIMEOUT_S = 30
NOT_REACHED = 77
REFUSALS = ("ENOSPC", "EROFS", "EIO", "EDQUOT")
#: Not inside of anything the disk could refuse.
NO_DISK = ("shard-begun", "lease-released")


class Chaos:
    """Runs below ``folder``, their undisturbed twin, and the count of faults."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.random = folder, random.Random(0)
        self.config = stub_config(folder, launch={"lease_s": 0.3})
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        assert self.forked(lambda: synthesize(self.config, folder / "undisturbed")) == 0
        self.wanted = contents(folder / "undisturbed")
        assert len(self.wanted) == 3 * 4 + 5

    def start(self, work: Callable[[], object]) -> int:
        """Fork a child that does ``work``; its exit status is the command line's."""
        child = os.fork()
        if child:
            return child
        signal.alarm(TIMEOUT_S)
        try:
            work()
            os._exit(0)
        except (PrismError, StoppedError) as error:
            os._exit(error.exit_code)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)

    @staticmethod
    def end(child: int) -> int:
        """How a child ended: exit status, or minus a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def forked(self, work: Callable[[], object]) -> int:
        return self.end(self.start(work))

    def attempt(self, out: Path, fault: str = "", place: Rank | None = None) -> Callable[[], object]:
        """One worker, as the command line runs it."""

        def work() -> None:
            os.environ[VARIABLE] = fault
            with stoppable() as stop:
                synthesize(self.config, out, rank=place, stop=stop)
            point, _, number = fault.partition("=")[0].partition("@")
            if fault and faults._counts[point] < int(number or 1):
                os._exit(NOT_REACHED)

        return work

    def settle(self, kind: str, out: Path, what: str, faults: int = 1) -> None:
        """Run again until done; then everything must be as in the undisturbed run, with nothing left over."""
        ended = self.forked(self.attempt(out))
        problems = verify(out).problems if ended == 0 else (f"the last attempt ended with {ended}",)
        found = contents(out)
        different = sorted(n for n in found.keys() | self.wanted.keys() if found.get(n) != self.wanted.get(n))
        self.counts[kind] += faults
        if problems or different:
            self.failures.append(f"{kind} {what}: {problems} {different}")
        shutil.rmtree(out)

    def expect(self, kind: str, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.failures.append(f"{kind} {what}: {found} instead of {wanted}")

    def at_points(self, kind: str, what: str, points: tuple[str, ...], most: int, ends: set[int]) -> None:
        """``what`` at each time, up to ``most``, that a worker comes to each of ``points``."""
        out = self.folder / "run"
        for point in points:
            for number in range(1, most + 1):
                ended = self.forked(self.attempt(out, f"{point}@{number}={what}"))
                if ended == NOT_REACHED and number > 1:  # it does not come here so often
                    shutil.rmtree(out)
                    break
                if ended not in ends:
                    self.failures.append(f"{kind} {what} at {point}@{number}: ended with {ended}")
                if kind != "killed at a point":
                    left = [p.name for p in out.rglob("*") if p.suffix == ".lease" or ".tmp-" in p.name]
                    self.expect(kind, f"{what} at {point}@{number} left behind", left, [])
                self.settle(kind, out, f"{what} at {point}@{number}")

    def racing(self, kind: str, workers: list[Callable[[], object]], kills: int, out: Path) -> None:
        """Workers at once, some of them killed from outside at some moment."""
        children = [self.start(work) for work in workers]
        victims = set(self.random.sample(children, kills))
        for child in victims:
            time.sleep(self.random.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
        for child in children:
            ended = self.end(child)
            if ended != 0 and child not in victims:
                self.failures.append(f"{kind}: a worker nobody killed ended with {ended}")
        self.settle(kind, out, "racing", max(1, kills))

    def random_kills(self) -> None:
        out = self.folder / "run"
        for _ in range(12):
            ranks = [Rank(n, 3) for n in (1, 2, 3)]
            self.racing("killed while racing", [self.attempt(out, "", p) for p in ranks], 2, out)

    def duplicates(self) -> None:
        """Workers to whom every lease is given: all of them make every shard."""

        def work() -> None:
            Leases.take = lambda self, name: True  # type: ignore[method-assign]
            synthesize(self.config, out)

        out = self.folder / "run"
        for kills in (0, 0, 0, 0, 0, 0, 1, 1, 2, 2):
            self.racing("made twice at once", [work] * 3, kills, out)

    def skewed_clocks(self) -> None:
        """Workers on hosts that cannot see each other's processes, their clocks minutes apart, one of them killed."""
        real = Leases.__init__

        def work(skew: float) -> Callable[[], object]:
            def skewed() -> None:
                def begin(self: Leases, folder: Path, worker: str, duration_s: float, hold_s: float | None) -> None:
                    real(self, folder, worker, 1.0, lambda: time.time() + skew)

                leases.is_dead = lambda attempt: False  # type: ignore[attr-defined]
                Leases.__init__ = begin  # type: ignore[assignment,method-assign]
                synthesize(self.config, out)

            return skewed

        out = self.folder / "run"
        for skews in ((0, 300), (0, -300), (-600, 600), (1e6, -1e6), (0, 90), (0, 10)):
            self.racing("clock skew", [work(s) for s in skews], 1, out)

    def forgotten_leases(self) -> None:
        """Leases of a process that lives (this one) but works on something else; of the past, the future, of nobody."""
        out = self.folder / "run"
        for text in ("", "{", "null", *(self._lease(s) for s in (-1e6, -300.0, 300.0, 1e6))):
            for name in ("000000", "000003", "engines"):
                (out / "shards").mkdir(parents=True)
                (out / "shards" / f"{name}.lease").write_text(text)
                self.settle("forgotten lease", out, f"{name} {text}")

    @staticmethod
    def _lease(ahead: float) -> str:
        return Lease(worker="9/9", attempt=new_attempt(), expires=time.time() + ahead).model_dump_json()

    def damages(self) -> None:
        """Of a finished run; the record is deleted, as every message of ``verify`` asks."""
        for name in ("tar cut", "tar bit", "idx cut", "idx bit", "json cut", "tar gone", "idx gone", "json gone"):
            for shard in range(4):
                out = Path(shutil.copytree(self.folder / "undisturbed", self.folder / "run"))
                extension, how = name.split()
                self._damage(out / "shards" / f"{shard:06d}.{extension}", how)
                self.expect(name, str(shard), len(verify(out).problems), 1)
                (out / "shards" / f"{shard:06d}.json").unlink(missing_ok=True)
                self.settle(f"damage: {how}", out, f"{name} of {shard}")

    def _damage(self, path: Path, how: str) -> None:
        data = bytearray(path.read_bytes())
        if how == "gone":
            path.unlink()
        elif how == "cut":
            path.write_bytes(data[: self.random.randrange(len(data))])
        else:
            data[self.random.randrange(len(data) // 2)] ^= 1 << self.random.randrange(8)
            path.write_bytes(data)

    def foreigners(self) -> None:
        """Another configuration on the same directory: later, half way, and at the same moment."""
        other = self.config.model_copy(update={"seed": 1})
        for fault in ("after-record@1=SIGKILL", "plan-written=SIGKILL", "card-written=SIGKILL"):
            out = self.folder / "run"
            self.forked(self.attempt(out, fault))
            before = contents(out)
            self.expect("foreign run", "exit code", self.forked(lambda: synthesize(other, out)), 2)  # noqa: B023
            self.expect("foreign run", "changed a file", contents(out), before)
            self.settle("foreign run", out, fault)
        for _ in range(10):
            self._claims_at_once(other)

    def _claims_at_once(self, other: RunConfig) -> None:
        """Both have seen that the directory is nobody's when the first one writes."""
        out, begin, create = self.folder / "run", time.time() + 0.05, files.create

        def create_together(path: Path, data: bytes) -> bool:
            while time.time() < begin:
                pass
            return create(path, data)

        def claim(config: RunConfig) -> Callable[[], object]:
            def work() -> None:
                with patch.object(rundir, "create", create_together):
                    synthesize(config, out)

            return work

        ends = [self.end(c) for c in [self.start(claim(c)) for c in (self.config, other)]]
        self.expect("two claims at once", "exit codes", sorted(ends), [0, 2])
        self.expect("two claims at once", "problems", verify(out).problems, ())
        owner = RunDirectory(out).facts()["run_hash"]
        self.expect("two claims at once", "owner", owner == self.config.run_hash(), ends[0] == 0)
        self.counts["two claims at once"] += 1
        shutil.rmtree(out)

    def everything(self) -> None:
        self.at_points("killed at a point", "SIGKILL", POINTS, 4, {-signal.SIGKILL})
        disk = tuple(p for p in POINTS if p not in NO_DISK)
        for refusal in REFUSALS:
            self.at_points("disk refused", refusal, disk, 3, {0, 1, 2})
        for number in SIGNALS:
            self.at_points("stopped", number.name, ("shard-begun", "index-renamed"), 2, {128 + number})
        self.random_kills()
        self.duplicates()
        self.skewed_clocks()
        self.forgotten_leases()
        self.damages()
        self.foreigners()


def main(folder: Path) -> dict[str, object]:
    torch.set_num_threads(1)
    pa.Table.from_pylist([{"a": 1}])  # imports half a second of libraries once, not in every child
    Image.init()
    leases.POLL_S = 0.01
    began = time.monotonic()
    chaos = Chaos(folder)
    chaos.everything()
    return {"counts": chaos.counts, "failures": chaos.failures, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
