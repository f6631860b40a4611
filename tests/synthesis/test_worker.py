"""Workers that share a directory: who decides, who makes what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stub import Stub, stub_config
from prism_fast.compile.load import Compiled
from prism_fast.config import RunConfig
from prism_fast.errors import DataError, InputError
from prism_fast.synthesis import leases as leases_module
from prism_fast.synthesis import worker
from prism_fast.synthesis.leases import Leases
from prism_fast.synthesis.place import Place
from prism_fast.synthesis.rundir import RunDirectory
from prism_fast.synthesis.sampler import Synthesizer
from prism_fast.synthesis.worker import MadeWith, Worker, synthesize


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(Synthesizer, "load", lambda config: Stub(config))
    monkeypatch.setattr(leases_module, "POLL_S", 0.01)
    monkeypatch.setattr(worker, "POLL_S", 0.01)
    return stub_config(tmp_path)


class Compiler:
    """Chooses another engine at every call, as ``auto`` may on two machines, unless it is told which."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []

    def __call__(self, run: Any, recorded: Mapping[str, str], *_: object) -> Compiled:
        self.told.append(dict(recorded))
        return Compiled(run, dict(recorded) or {"unet": f"choice {len(self.told)}"})


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(worker, "compile_run", made)
    return made


def open_worker(config: RunConfig, out: Path, place: str = "1/1") -> Worker:
    return Worker(config, out, Leases(out / "shards", place))


def test_the_first_workers_engines_are_everybodys(config: RunConfig, tmp_path: Path, compiler: Compiler) -> None:
    """Before the first shard is finished, which nobody could read them from."""
    one, other = (open_worker(config, tmp_path / "run", place) for place in ("1/2", "2/2"))
    assert compiler.told == [{}, {"unet": "choice 1"}]
    assert one.maker.engines == other.maker.engines == {"unet": "choice 1"}
    assert list((tmp_path / "run" / "shards").iterdir()) == []


def test_who_is_second_to_choose_takes_the_firsts_choice(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: Compiler
) -> None:
    """Two that choose at the same time, because a lease was taken for abandoned."""

    def overtaken(run: Any, recorded: Mapping[str, str], *_: object) -> Compiled:
        if not (tmp_path / "run" / "engines.json").exists():
            open_worker_there = MadeWith(models=run.hashes, engines={"unet": "the other's"})
            (tmp_path / "run" / "engines.json").write_text(open_worker_there.model_dump_json())
        return compiler(run, recorded)

    monkeypatch.setattr(worker, "compile_run", overtaken)
    assert open_worker(config, tmp_path / "run").maker.engines == {"unet": "the other's"}


def test_a_run_of_before_goes_on_with_the_engines_of_its_shards(
    config: RunConfig, tmp_path: Path, compiler: Compiler
) -> None:
    out = tmp_path / "run"
    synthesize(config, out)
    (out / "engines.json").unlink()
    (out / "shards" / "000002.json").unlink()
    assert synthesize(config, out).made_now == 2
    assert compiler.told == [{}, {"unet": "choice 1"}]
    assert {r.engines["unet"] for r in RunDirectory(out).records().values()} == {"choice 1"}


def test_other_weights_are_refused_before_the_first_shard_too(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_worker(config, tmp_path / "run")
    other = Stub(config)
    other.hashes = {"diffusion": "d", "teacher": "another"}
    monkeypatch.setattr(Synthesizer, "load", lambda config: other)
    with pytest.raises(InputError, match=r"begun with other weights \(teacher\); choose another --out"):
        open_worker(config, tmp_path / "run")


def test_a_damaged_choice_is_named(config: RunConfig, tmp_path: Path) -> None:
    open_worker(config, tmp_path / "run")
    (tmp_path / "run" / "engines.json").write_text("{")
    with pytest.raises(DataError, match=r"engines\.json does not say which engines the run was begun with; delete it"):
        open_worker(config, tmp_path / "run")


def test_workers_share_the_shards(config: RunConfig, tmp_path: Path) -> None:
    """In turn: each makes a shard, beginning at its own part, until none is missing."""
    out = tmp_path / "run"
    made: dict[int, list[int]] = {1: [], 2: []}
    workers = {n: iter(open_worker(config, out, f"{n}/2").make_missing(Place(n, 2))) for n in (1, 2)}
    while workers:
        for number in list(workers):
            record = next(workers[number], None)
            if record is None:
                del workers[number]
            else:
                made[number].append(record.shard)
    assert made == {1: [0, 1], 2: [2, 3]}


def test_a_shard_in_other_hands_is_left_alone(config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    one, other = open_worker(config, out), Leases(out / "shards", "2/2")
    other.take("000001")
    assert one.make(1) is None
    assert not RunDirectory(out).has(1)
    other.release("000001")
    first = one.make(1)
    assert first is not None
    assert open_worker(config, out).make(1) == first  # its seconds too: it was not made again
    assert [p.name for p in (out / "shards").glob("*.lease")] == []
