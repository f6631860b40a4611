"""The main job, end to end on the bundled models, as small as it can be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prism_fast.config import load_config
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.evaluation.real_sets import real_sets
from prism_fast.experiments.demo import run_demo, without_guidance
from prism_fast.experiments.seeds import as_markdown, run_seeds
from prism_fast.operations.verify import verify
from tests.tiny import make_teacher

REQUIRED = {
    "images", "images_per_s", "teacher_top1", "student_top1", "student_top1_unguided", "student_top1_real",
    "student_top1_domain_shift", "energy_guided", "energy_unguided", "precision", "recall", "wall_s", "peak_rss_bytes",
    "vendi", "vendi_unguided", "coverage_by_class", "coverage_by_class_unguided", "versions",
    "inherited_top1",
}  # fmt: skip
SMALL = (
    "synthesis.images=16", "synthesis.shard_size=8", "sampling.steps=4", "sampling.batch_size=8", "distill.steps=2",
    "distill.student=test_resnet", "distill.loader=torch", "distill.warmup_steps=1", "engines.backend=eager",
)  # fmt: skip


class Recorder:
    def __init__(self) -> None:
        self.phases: list[str] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[int, int, float], None]]:
        self.phases.append(name)
        yield lambda done, total, value: None


@pytest.mark.slow
def test_demo_ends_with_numbers_and_a_report(tmp_path: Path) -> None:
    judge = make_teacher(tmp_path / "judge", classes=5)
    config = load_config("minis-emoji", [*SMALL, f"models.features={judge}"])
    bars = Recorder()
    real = real_sets().every(8)
    summary = run_demo(config, tmp_path, bars, real=real)
    assert set(summary) >= REQUIRED
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["images"] == 16
    assert summary["teacher_top1"] >= 0.70
    assert len(bars.phases) == 6
    for name in ("guided", "unguided"):
        assert verify(tmp_path / name).problems == ()
    assert "<html" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "evaluation.json").read_text())["features"] == "test_resnet, 32 px"

    guided, unguided = (
        list(ShardSet.discover(tmp_path / "guided").samples()),
        list(ShardSet.discover(tmp_path / "unguided").samples()),
    )
    assert [s.meta["prompt"] for s in guided] == [s.meta["prompt"] for s in unguided]
    assert any((a.image != b.image).any() for a, b in zip(guided, unguided, strict=True))
    assert all(s.meta["guided_steps"] > 0 for s in guided)

    rows = run_seeds(tmp_path, 2, bars, real)
    assert len(rows) == 12
    assert all(len(row["top1"]) == 2 for row in rows)
    assert rows[0]["top1"][0] == pytest.approx(summary["student_top1"])
    assert as_markdown(rows).count("\n") == 14


def test_without_guidance_keeps_everything_else() -> None:
    config = load_config("minis-emoji")
    plain = without_guidance(config)
    assert not plain.guidance.enabled
    assert plain.model_copy(update={"guidance": config.guidance}) == config
    assert plain.run_hash() != config.run_hash()
