"""Metrics scraped from a real port while the stub generator works."""

from __future__ import annotations

import math
import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from prism_fast.config import RunConfig
from prism_fast.dataset.record import Record
from prism_fast.errors import InputError
from prism_fast.workers.launch import Job
from prism_fast.workers.metrics import serve
from tests.stubbed import Losing, synthesize

pytest.importorskip("prometheus_client")


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def scrape(port: int) -> dict[str, float]:
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(f"http://localhost:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_a_run_is_scraped_as_it_goes(stubbed: RunConfig, tmp_path: Path, port: int) -> None:
    seen: list[dict[str, float]] = []
    with serve(port) as metrics:

        def progress(done: int, planned: int, rate: float) -> None:
            metrics.progress(done, planned, rate)
            seen.append(scrape(port))

        before = scrape(port)
        synthesize(stubbed, tmp_path / "run", progress, finished=metrics.finished)
    assert before["prism_fast_shards_committed_total"] == 0
    assert math.isnan(before["prism_fast_shard_seconds"])
    assert [found["prism_fast_run_images_finished"] for found in seen] == [2, 4, 6, 7]
    assert [found["prism_fast_images_made_total"] for found in seen] == [2, 4, 6, 7]
    assert [found["prism_fast_shards_committed_total"] for found in seen] == [1, 2, 3, 4]
    assert {found["prism_fast_run_images_planned"] for found in seen} == {7}
    assert {found["prism_fast_shard_energy_after_mean"] for found in seen} == {0.5}
    assert {found["prism_fast_samples_quarantined_total"] for found in seen} == {0}
    assert all(found["prism_fast_shard_seconds"] >= 0 and found["prism_fast_images_per_second"] > 0 for found in seen)


def test_what_is_quarantined_is_counted(stubbed: RunConfig, tmp_path: Path, port: int) -> None:
    with serve(port) as metrics:
        synthesize(stubbed, tmp_path / "run", generator=Losing(stubbed, {3}), finished=metrics.finished)
        found = scrape(port)
    assert (found["prism_fast_samples_quarantined_total"], found["prism_fast_images_made_total"]) == (1, 6)


def test_a_launcher_is_told_of_its_workers_shards(stubbed: RunConfig, tmp_path: Path) -> None:
    """Of each once, and of none that was there before."""
    told: list[Record] = []
    synthesize(stubbed, tmp_path / "run")
    for shard in (1, 3):
        (tmp_path / "run" / "shards" / f"{shard:06d}.json").unlink()

    def launch(job: Job, watch: object) -> None:
        synthesize(job.config, job.out)
        for _ in range(2):
            watch()  # type: ignore[operator]

    Job(stubbed, tmp_path / "run", finished=told.append).watched(launch)
    assert [record.shard for record in told] == [1, 3]


def test_a_port_that_is_taken_is_one_line(port: int) -> None:
    with serve(port), pytest.raises(InputError, match=rf"--metrics-port {port}: .*; choose another port"), serve(port):
        pass
    with serve(port):  # given back
        pass


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(InputError, match=r"not installed; pip install 'prism-fast\[metrics\]'"), serve(port):
        pass
