"""Whose directory it is: what is not ours is neither overwritten nor taken for a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prism_fast.config import RunConfig
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import InputError
from prism_fast.operations.merge import merge
from prism_fast.storage.files import staged_name
from prism_fast.workers.launch.job import Job
from tests.storage.attempts import dead_attempt
from tests.stubbed import synthesize

Fill = Callable[[Path], object]


def no_folder(out: Path) -> None:
    (out / "shards").rmdir()
    (out / "shards").write_text("mine")


NOT_OURS: dict[str, Fill] = {
    "README.md": lambda out: (out / "README.md").write_text("mine"),
    "plan.parquet": lambda out: (out / "plan.parquet").write_text("mine"),
    "manifest.parquet": lambda out: (out / "manifest.parquet").write_text("mine"),
    "thesis": lambda out: (out / "thesis").mkdir(),
    "shards/000000.tar": lambda out: (out / "shards" / "000000.tar").write_text("mine"),
    "shards": no_folder,
}


def held(out: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(out)): p.read_bytes() if p.is_file() else None for p in out.rglob("*")}


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_directory_that_is_no_run_is_left_as_it_is(stubbed: RunConfig, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (out / "shards").mkdir(parents=True)
    NOT_OURS[name](out)
    before = held(out)
    said = rf"out is not empty and no run: it holds {name} and no run\.json; choose another --out"
    with pytest.raises(InputError, match=said):
        synthesize(stubbed, out)
    with pytest.raises(InputError, match=said):
        Job(stubbed, out).watched(lambda job, watch: pytest.fail("launched"))
    synthesize(stubbed, tmp_path / "part")
    with pytest.raises(InputError, match=said):
        merge([tmp_path / "part"], out)
    assert held(out) == before


def test_what_a_killed_claim_leaves_is_no_obstacle(stubbed: RunConfig, tmp_path: Path) -> None:
    """And neither is what a new file system, an editor or Slurm put there."""
    out = tmp_path / "out"
    for folder in ("shards", "slurm", "lost+found", ".ipynb_checkpoints"):
        (out / folder).mkdir(parents=True)
    for name in ("run.json", "plan.parquet"):
        staged_name(out / name, dead_attempt()).write_bytes(b"torn")
    (out / "shards" / "000000.lease").write_text("")
    assert synthesize(stubbed, out).images == 7


def test_a_claim_that_another_worker_makes_meanwhile_is_no_stranger(stubbed: RunConfig, tmp_path: Path) -> None:
    """Its plan is listed, its ``run.json`` was not there yet when this one looked."""
    out = tmp_path / "out"
    synthesize(stubbed, out)
    RunDirectory(out).require_empty()
    assert RunDirectory(out).exists()
