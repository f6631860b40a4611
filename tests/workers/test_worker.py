"""Workers that share a directory: who decides, who makes what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.stub import Stub
from prism_fast.config import RunConfig
from prism_fast.dataset.made_with import MadeWith
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import DataError, InputError
from prism_fast.workers.assembly import agreed_engines, open_run
from prism_fast.workers.leases import Leases
from prism_fast.workers.rank import Rank
from prism_fast.workers.stop import Stop
from tests.damage import edit
from tests.stubbed import open_worker, synthesize


class Chooser:
    """Chooses another engine at every call, as ``auto`` may on two machines, unless it is told which."""

    def __init__(self, generator: Stub) -> None:
        self.generator = generator
        self.told: list[dict[str, str]] = []

    def __call__(self, recorded: Mapping[str, str]) -> tuple[Stub, dict[str, str]]:
        self.told.append(dict(recorded))
        return self.generator, dict(recorded) or {"unet": f"choice {len(self.told)}"}


def agreed(choose: Chooser, out: Path, rank: str = "1/1", gpu: str | None = None) -> dict[str, str]:
    """The engines that a worker of the run begins with."""
    generator = choose.generator
    leases = Leases(out / "shards", rank)
    directory = open_run(generator.config, out, leases, generator.hashes)
    return agreed_engines(directory, leases, generator, choose, Stop(), gpu)[1]


def test_the_first_workers_engines_are_everybodys(stubbed: RunConfig, tmp_path: Path) -> None:
    """Before the first shard is finished, which nobody could read them from."""
    choose = Chooser(Stub(stubbed))
    assert [agreed(choose, tmp_path / "run", rank) for rank in ("1/2", "2/2")] == [{"unet": "choice 1"}] * 2
    assert choose.told == [{}, {"unet": "choice 1"}]
    assert list((tmp_path / "run" / "shards").iterdir()) == []


def test_who_is_second_to_choose_takes_the_firsts_choice(stubbed: RunConfig, tmp_path: Path) -> None:
    """Two that choose at the same time, because a lease was taken for abandoned."""

    class Overtaken(Chooser):
        def __call__(self, recorded: Mapping[str, str]) -> tuple[Stub, dict[str, str]]:
            if not (file := tmp_path / "run" / "engines.json").exists():
                there = MadeWith(models=self.generator.hashes, engines={"unet": "the other's"})
                file.write_text(there.model_dump_json())
            return super().__call__(recorded)

    assert agreed(Overtaken(Stub(stubbed)), tmp_path / "run") == {"unet": "the other's"}


def test_another_kind_of_gpu_is_refused(stubbed: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    agreed(Chooser(Stub(stubbed)), out, gpu="NVIDIA H100")
    assert agreed(Chooser(Stub(stubbed)), out, gpu="NVIDIA H100") == {"unet": "choice 1"}
    for other, name in (("NVIDIA L40S", "NVIDIA L40S"), (None, "a processor")):
        with pytest.raises(InputError, match=f"was begun on NVIDIA H100, and here {name} would go on"):
            agreed(Chooser(Stub(stubbed)), out, gpu=other)


def test_a_run_that_names_no_gpu_goes_on_anywhere(stubbed: RunConfig, tmp_path: Path) -> None:
    agreed(Chooser(Stub(stubbed)), tmp_path / "run")
    assert "gpu" not in (tmp_path / "run" / "engines.json").read_text()
    assert agreed(Chooser(Stub(stubbed)), tmp_path / "run", gpu="NVIDIA H100") == {"unet": "choice 1"}


def test_a_run_of_before_goes_on_with_the_engines_of_its_shards(stubbed: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    synthesize(stubbed, out)
    (out / "engines.json").unlink()
    for file in (out / "shards").glob("*.json"):
        edit(file, engines={"unet": "of its shards"})
    choose = Chooser(Stub(stubbed))
    assert agreed(choose, out) == {"unet": "of its shards"}
    assert choose.told == [{"unet": "of its shards"}]
    (out / "shards" / "000002.json").unlink()
    assert synthesize(stubbed, out).made_now == 2
    assert {r.engines["unet"] for r in RunDirectory(out).records().values()} == {"of its shards"}


def test_other_weights_are_refused_before_the_first_shard_too(stubbed: RunConfig, tmp_path: Path) -> None:
    open_worker(stubbed, tmp_path / "run")
    other = Stub(stubbed)
    other.hashes = {"diffusion": "d", "teacher": "another"}
    with pytest.raises(InputError, match=r"begun with other weights \(teacher\); choose another --out"):
        open_worker(stubbed, tmp_path / "run", generator=other)


def test_a_damaged_choice_is_named(stubbed: RunConfig, tmp_path: Path) -> None:
    open_worker(stubbed, tmp_path / "run")
    (tmp_path / "run" / "engines.json").write_text("{")
    with pytest.raises(DataError, match=r"engines\.json does not say which engines the run was begun with; delete it"):
        open_worker(stubbed, tmp_path / "run")


def test_workers_share_the_shards(stubbed: RunConfig, tmp_path: Path) -> None:
    """In turn: each makes a shard, beginning at its own part, until none is missing."""
    out = tmp_path / "run"
    made: dict[int, list[int]] = {1: [], 2: []}
    workers = {n: iter(open_worker(stubbed, out, f"{n}/2").make_missing(Rank(n, 2))) for n in (1, 2)}
    while workers:
        for number in list(workers):
            record = next(workers[number], None)
            if record is None:
                del workers[number]
            else:
                made[number].append(record.shard)
    assert made == {1: [0, 1], 2: [2, 3]}


def test_a_shard_in_other_hands_is_left_alone(stubbed: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    one, other = open_worker(stubbed, out), Leases(out / "shards", "2/2")
    other.take("000001")
    assert one.make(1) is None
    assert not RunDirectory(out).has(1)
    other.release("000001")
    first = one.make(1)
    assert first is not None
    assert open_worker(stubbed, out).make(1) == first  # its seconds too: it was not made again
    assert [p.name for p in (out / "shards").glob("*.lease")] == []
