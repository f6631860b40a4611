"""Runs at an object store's address on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command

pytest.importorskip("upath")
OUT = "memory://cli/run"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    import fsspec

    yield
    memory = fsspec.filesystem("memory")
    if memory.exists("/cli"):
        memory.rm("/cli", recursive=True)


def test_a_run_at_an_address(prism: Command, tiny: Path) -> None:
    made = prism("synthesize", tiny, "--out", OUT, "--worker", "1/2")
    assert made.code == 0, made.err
    assert f"10 images in {OUT} (10 made now" in made.out
    assert prism("synthesize", tiny, "--out", OUT).code == 0
    verdict = prism("verify", OUT, "--json")
    assert (verdict.code, json.loads(verdict.out)["problems"]) == (0, [])
    assert json.loads(prism("stats", OUT, "--json").out)["images"] == 10
    assert prism("repair", OUT).code == 0
    assert json.loads(prism("watch", OUT, "--json").out)["shards"] == 3


@pytest.mark.parametrize("command", ["distill", "report", "export", "merge", "demo", "seeds"])
def test_what_needs_a_local_directory_says_so(prism: Command, tiny: Path, tmp_path: Path, command: str) -> None:
    run, out = "s3://bucket/run", tmp_path / "out"
    arguments: dict[str, list[object]] = {
        "distill": [tiny, "--run", run, "--out", out],
        "report": [run],
        "export": [run, "--out", out, "--format", "parquet"],
        "merge": [run, "--out", out],
        "demo": ["--out", run],
        "seeds": [run],
    }
    answer = prism(command, *arguments[command])
    assert answer.code == 2
    assert answer.error().startswith("s3://bucket/run is in an object store, but a local path is needed here; copy")


def test_slurm_needs_a_directory(prism: Command, tiny: Path) -> None:
    answer = prism("synthesize", tiny, "--out", OUT, "--launch", "slurm", "--workers", 2)
    assert answer.code == 2
    assert "--worker i/N" in answer.error()


def test_another_kind_of_address(prism: Command, tiny: Path) -> None:
    answer = prism("synthesize", tiny, "--out", "gs://bucket/run")
    assert answer.code == 2
    assert answer.error() == "gs://bucket/run is not a place for a run; give a local path, or s3://BUCKET/RUN"
