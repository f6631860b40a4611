from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prism_fast.config import LaunchConfig, RunConfig, load_config
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import RunError
from prism_fast.operations.verify import verify
from prism_fast.storage import files
from prism_fast.storage.files import staged_name
from prism_fast.workers.synthesize import synthesize
from tests.runs import assert_same_run
from tests.storage.attempts import dead_attempt
from tests.tiny import write_config

ROOT = Path(__file__).parents[2]
KILLED = -signal.SIGKILL


def records(run: Path) -> list[dict[str, Any]]:
    return [r.model_dump(exclude={"seconds"}) for _, r in sorted(RunDirectory(run).records().items())]


def test_the_same_configuration_gives_the_same_bytes(config: RunConfig, finished: Path, tmp_path: Path) -> None:
    summary = synthesize(config, tmp_path / "again")
    assert (summary.images, summary.made_now, summary.quarantined) == (10, 10, 0)
    assert_same_run(tmp_path / "again", finished)
    assert sorted(p.name for p in (finished / "shards").glob("*.tar")) == ["000000.tar", "000001.tar", "000002.tar"]


@pytest.mark.parametrize("launch", [LaunchConfig(pipeline_depth=2), LaunchConfig(streams=2), LaunchConfig(streams=3)])
def test_how_a_run_is_carried_out_changes_no_byte(
    config: RunConfig, finished: Path, tmp_path: Path, launch: LaunchConfig
) -> None:
    synthesize(config.model_copy(update={"launch": launch}), tmp_path / "run")
    for tar in (finished / "shards").glob("*.tar"):
        assert (tmp_path / "run" / "shards" / tar.name).read_bytes() == tar.read_bytes()
    assert records(tmp_path / "run") == records(finished)


def test_another_seed_gives_other_bytes(config: RunConfig, finished: Path, tmp_path: Path) -> None:
    synthesize(config.model_copy(update={"seed": 1}), tmp_path / "other")
    for name in ("000000.tar", "000001.tar", "000002.tar"):
        assert (tmp_path / "other" / "shards" / name).read_bytes() != (finished / "shards" / name).read_bytes()


def test_a_finished_run_is_not_made_again(config: RunConfig, run: Path) -> None:
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (run / "shards").iterdir()}
    summary = synthesize(config, run)
    assert (summary.images, summary.made_now, summary.images_per_s) == (10, 0, 0.0)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (run / "shards").iterdir()} == before


def test_only_what_has_no_record_is_made_again(config: RunConfig, run: Path, finished: Path) -> None:
    (run / "shards" / "000001.json").unlink()
    (run / "shards" / "000001.tar").write_bytes(b"torn")
    staged_name(run / "shards" / "000002.tar", dead_attempt()).write_bytes(b"left by a killed attempt")
    seen: list[tuple[int, int]] = []
    summary = synthesize(config, run, lambda done, total, rate: seen.append((done, total)))
    assert summary.made_now == 4
    assert seen == [(10, 10)]
    assert_same_run(run, finished)


def test_a_disk_that_fills_up_keeps_what_is_finished(
    config: RunConfig, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "run", files.write_durably

    def full(path: Path, data: bytes) -> None:
        if path.name.startswith("000001.idx"):
            path.write_bytes(data[:10])
            raise OSError(28, os.strerror(28))
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_durably", full)
        with pytest.raises(RunError, match=r"shard 000001 in .*No space left on device; finished shards are kept"):
            synthesize(config, out)
    assert sorted(p.name for p in (out / "shards").iterdir()) == [
        "000000.idx",
        "000000.json",
        "000000.tar",
        "000001.tar",
    ]
    assert synthesize(config, out).made_now == 6
    assert_same_run(out, finished)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images in two shards: a process that dies at every step of it dies twenty times."""
    return write_config(
        tmp_path_factory.mktemp("small"),
        sampling={"steps": 2, "batch_size": 2, "height": 16, "width": 16},
        synthesis={"images": 3, "shard_size": 2},
        guidance={"margin_quantile": 0.5, "margin_samples": 8},
    )


@pytest.mark.slow
def test_killed_at_any_moment_the_next_call_finishes_the_same_run(small: Path, tmp_path: Path) -> None:
    synthesize(load_config(str(small)), tmp_path / "undisturbed")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *sys.path])), "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-m", "tests.workers.killing", str(small), str(tmp_path / "killed")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    runs = json.loads(child.stdout.splitlines()[-1])

    at_calls = [r for r in runs if Path(r["out"]).name.startswith("call")]
    # two shards of 3 syncs, 3 names and 2 syncs of the folder; a sync of run.json, engines and margins; of the plan a
    # sync, its name and a sync of its folder; a sync and a name of manifest and card; one survivor
    assert [r["ends"] for r in at_calls] == [[KILLED]] * 26 + [[0]]
    (stubborn,) = (r for r in runs if Path(r["out"]).name == "stubborn")
    assert stubborn["ends"].count(KILLED) >= 5
    assert any(r["ends"] == [KILLED] for r in runs if Path(r["out"]).name.startswith("time"))
    for made in runs:
        out = Path(made["out"])
        assert made["last"] == 0, (made, child.stderr[-2000:])
        assert verify(out).problems == (), made
        assert [p for p in out.rglob("*") if ".tmp" in p.name] == [], made
        assert_same_run(out, tmp_path / "undisturbed")
