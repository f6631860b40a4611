"""``prism-fast bench`` on tiny models: the rows that readers are promised, and the same work in each of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command

FIELDS = {"variant", "images_per_s", "ratio_to_naive", "final_energy_mean", "final_energy_std", "peak_rss_bytes"}


@pytest.mark.slow
def test_guided_rows_do_the_same_work(tiny: Path, prism: Command, tmp_path: Path) -> None:
    """With every saving off ours makes the baseline's images: the same steps, solver, noise, views and gradient."""
    out = tmp_path / "rows.json"
    only = "naive_through_unet,naive_denoised,diffusers_unguided,ours_unguided,ours"
    off = ["guidance.window=[0.0,1.0]", "guidance.every=1", "engines.backend=eager", "guidance.margin_quantile=null"]
    settings = [part for value in off for part in ("--set", value)]
    answer = prism("bench", "guided", "--config", tiny, "--repeats", 1, "--only", only, "--json", out, *settings)
    assert answer.code == 0, answer.err
    document = json.loads(out.read_text())
    rows = {row["variant"]: row for row in document["rows"]}
    assert set(rows) == set(only.split(","))
    assert all(row.keys() >= FIELDS for row in rows.values())
    assert document["environment"]["threads"] >= 1
    assert rows["naive_through_unet"]["ratio_to_naive"] == 1.0
    assert rows["ours"]["difference_to_denoised"] < 0.5  # of 255
    assert rows["naive_through_unet"]["difference_to_denoised"] > rows["ours"]["difference_to_denoised"]


def test_shards_and_loader_print_tables(tiny: Path, prism: Command) -> None:
    answer = prism("bench", "shards", "--config", tiny, "--repeats", 1)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("| work | image_format |")
    assert "| verify | webp |" in answer.out
    assert "| guided run | png |" in answer.out


@pytest.mark.slow
@pytest.mark.nightly
def test_every_step_of_a_short_stress_run(prism: Command, tmp_path: Path) -> None:
    out, config = tmp_path / "rows.json", Path(__file__).parents[2] / "benchmarks" / "configs" / "stress.yaml"
    sizes = ("--set", "synthesis.images=230", "--set", "synthesis.shard_size=100")
    answer = prism("bench", "stress", "--config", config, *sizes, "--json", out)
    assert answer.code == 0, answer.err
    rows = {row["work"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == ["plan", "run", "verify", "indices", "huge bookkeeping", "huge plan", "huge estimate"]
    assert [rows[work]["rows"] for work in ("plan", "run", "verify", "indices")] == [230] * 4
    assert rows["run"]["done"].startswith("3 shards")
    assert 0 < rows["run"]["writing_share"] <= 1
    assert rows["verify"]["done"] == "3 shards, 0 problems"
    assert rows["indices"]["done"] == "230 indices once, 0 missing, 0 more than once"
    assert rows["huge bookkeeping"]["done"] == "115 of 230 shards found missing, 11500 samples made"
    assert rows["huge plan"]["rows"] == 32 * (23_000 // 32)
    assert all(row["peak_rss_mib"] > 0 for row in rows.values())


def test_an_unknown_benchmark_is_one_line(prism: Command) -> None:
    answer = prism("bench", "speed")
    assert answer.code == 2
    assert "expected one of: guided" in answer.error()
