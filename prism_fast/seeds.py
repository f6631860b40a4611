"""The three-seed table: the same students trained again with other seeds on a demo's shards."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from prism_fast.config import RunConfig
from prism_fast.demo import STUDENTS, Bars, real_sets, shards_of
from prism_fast.distill.student import MEAN, STD
from prism_fast.distill.trainer import distill
from prism_fast.errors import DataError
from prism_fast.evaluate.comparison import load_evaluation, score
from prism_fast.models.classifier import load_classifier


def _student(config: RunConfig, demo: Path, name: str, seed: int, bars: Bars) -> Path:
    """Directory of one student; seed ``config.distill.seed`` is the demo's own."""
    if seed == config.distill.seed:
        return demo / "students" / name / "student"
    folder = demo / "seeds" / f"{name}-{seed}"
    with bars.phase(f"student of {name} images, seed {seed}") as progress:
        shards = shards_of(config, demo, name)
        distill(config.distill.model_copy(update={"seed": seed}), shards, folder, mean=MEAN, std=STD, progress=progress)
    return folder / "student"


def run_seeds(demo: Path, seeds: int, bars: Bars) -> list[dict[str, Any]]:
    """Train what is missing, measure every student on every test set; also written to ``seeds.json``.

    Raises:
        DataError: ``demo`` is not a finished demo directory.
    """
    evaluation = load_evaluation(demo / "evaluation.json")
    if evaluation is None:
        raise DataError(f"{demo} is not a finished demo; run 'prism-fast demo --out {demo}' first")
    config = RunConfig.model_validate(json.loads((demo / "guided" / "run.json").read_text())["config"])
    tests = real_sets().tests
    rows: list[dict[str, Any]] = []
    for name in STUDENTS:
        folders = [_student(config, demo, name, config.distill.seed + i, bars) for i in range(seeds)]
        students = [load_classifier(str(folder)) for folder in folders]
        for test_set, pictures in tests.items():
            tops = [score(name, s, test_set, pictures, config.evaluate.batch_size).top1 for s in students]
            spread = statistics.stdev(tops) if len(tops) > 1 else None
            rows.append(
                {
                    "student": name,
                    "test_set": test_set,
                    "n": len(pictures),
                    "seeds": len(tops),
                    "top1": tops,
                    "mean": statistics.mean(tops),
                    "std": spread,
                    "teacher": evaluation.top1("teacher", test_set),
                }
            )
    (demo / "seeds.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown: mean ± standard deviation over seeds, in percent."""
    lines = ["| student of | test set (pictures) | top-1, % | of the teacher's | each seed |", "|---|---|---|---|---|"]
    for row in rows:
        spread = f" ± {100 * row['std']:.1f}" if row["std"] is not None else ""
        each = ", ".join(f"{100 * top:.1f}" for top in row["top1"])
        share = f"{100 * row['mean'] / row['teacher']:.0f} % of {100 * row['teacher']:.1f}"
        where, mean = f"{row['test_set']} ({row['n']})", f"{100 * row['mean']:.1f}{spread}"
        lines.append(f"| {row['student']} | {where} | {mean} | {share} | {each} |")
    return "\n".join(lines) + "\n"
