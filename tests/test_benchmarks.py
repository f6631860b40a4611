"""What benchmarks are made of: percentiles, tables, pages, and configurations that load."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from benchmarks import harness
from benchmarks.guided import SWITCHES, TIMED, _joined, _ratio, _seconds, variants, with_assignments
from prism_fast.config import load_config
from prism_fast.dataset.record import Record
from prism_fast.errors import RunError

CONFIGS = sorted((Path(__file__).parents[1] / "benchmarks" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_loads(path: Path) -> None:
    assert load_config(str(path)).name == path.stem


def test_percentiles_of_rates_turn_around() -> None:
    timing = harness.percentiles([1.0, 2.0, 4.0], 9.0)
    rate = timing.rate(8)
    assert timing.p50 == 2.0
    assert rate["p50"] == 4.0
    assert rate["p20"] < rate["p50"] < rate["p80"]
    assert harness.percentiles([3.0], 9.0).rate(3) == {"p20": 1.0, "p50": 1.0, "p80": 1.0}


def test_a_call_is_timed_after_one_that_is_not_counted() -> None:
    calls: list[int] = []
    timing = harness.measure(lambda: calls.append(0), 3)
    assert len(calls) == 4
    assert timing.repeats == 3


def test_a_process_knows_its_age_and_its_own_memory() -> None:
    """Of a child, neither is the parent's: it is younger, and a large parent makes no child large."""
    program = "from benchmarks.harness import *; print(process_age_s(), peak_rss_bytes())"
    ours, room = harness.process_age_s(), b"x" * (1 << 29)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    age, peak = map(float, done.stdout.split())
    assert 0 < age < harness.process_age_s()
    assert ours < harness.process_age_s()
    assert 0 < peak < len(room) < harness.peak_rss_bytes()


def test_a_module_apart_gives_its_last_line_or_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"work": 1}]')
    assert harness.run_apart("tool", "json.tool", "--compact", str(tmp_path / "rows.json")) == [{"work": 1}]
    with pytest.raises(RunError, match="tool failed with exit code"):
        harness.run_apart("tool", "json.tool", str(tmp_path / "absent.json"))


def test_sections_of_a_page_are_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    harness.write_section("a", "first", page)
    harness.write_section("b", "other", page)
    harness.write_section("a", "second", page)
    text = page.read_text()
    assert "first" not in text
    assert text.index("second") < text.index("other")


def test_a_table_looks_into_mappings() -> None:
    rows: list[harness.Row] = [{"name": "x", "rate": {"p50": 1.23456}}, {"name": "y", "rate": None}]
    assert harness.as_table(["name", "rate.p50"], rows).splitlines()[2:] == ["| x | 1.23 |", "| y | – |"]


def test_each_switch_is_added_in_turn_and_removed_alone() -> None:
    config = load_config("minis-emoji")
    names = [v.name for v in variants(config)]
    used = [s.name for s in SWITCHES if s.differs(config)]
    assert names[:4] == ["naive_through_unet", "naive_denoised", "diffusers_unguided", "ours_unguided"]
    assert names[4 : 5 + len(used)] == ["reference", *(f"plus_{name}" for name in used[:-1]), "ours"]
    assert {f"without_{name}" for name in used} <= set(names)
    assert len(names) == len(set(names))


def test_every_variant_is_a_valid_configuration_of_its_own() -> None:
    config = load_config("minis-emoji")
    made = {v.name: with_assignments(config, v.assignments) for v in variants(config)}
    assert made["ours"] == config
    reference = made["reference"]
    assert (reference.engines.backend, reference.guidance.mode, reference.guidance.every) == ("eager", "latent", 1)
    assert (reference.sampling.reuse_every, reference.sampling.guidance_interval) == (1, (0.0, 1.0))
    steps = {(c.sampling.steps, c.sampling.solver, c.sampling.guidance_scale, c.seed) for c in made.values()}
    assert len(steps) == 1


def test_ratios_are_taken_within_a_repeat() -> None:
    """A machine that halves its speed in the second repeat changes no ratio."""
    base = _joined([{"variant": "a", "seconds": s, "first_s": 1.0, "start_s": s} for s in (8.0, 16.0)], 32)
    fast = _joined([{"variant": "b", "seconds": s, "first_s": 1.0, "start_s": s} for s in (2.0, 4.0)], 32)
    assert _ratio(base["seconds"], fast["seconds"]) == 4.0
    assert fast["images_per_s"]["p50"] == TIMED * 32 / 3.0
    assert fast["start_s"] == 3.0


def _slow_at_first(warm: int) -> Iterator[Record]:
    for i in range(warm + TIMED):
        time.sleep(0.2 if i < warm else 0)
        yield cast(Record, None)  # only their number matters


def test_warm_up_is_not_counted() -> None:
    first, timed = _seconds(_slow_at_first(2), 2)
    assert first >= 0.4 > 10 * timed
