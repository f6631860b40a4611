"""The three-seed table: the same students trained again with other seeds on a demo's shards."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from prism_fast.config import RunConfig, assign
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.distillation.run import distill_run
from prism_fast.errors import DataError
from prism_fast.evaluation.comparison import load_evaluation, score
from prism_fast.evaluation.real_sets import RealSets, real_sets
from prism_fast.experiments.demo import STUDENTS, Bars, distilled, images_of
from prism_fast.models.classifier import load_classifier
from prism_fast.storage.files import replace


def student_of(config: RunConfig, demo: Path, name: str, seed: int, bars: Bars) -> Path:
    """Directory of one student; seed ``config.distill.seed`` is the demo's own."""
    if seed == config.distill.seed:
        return demo / "students" / name / "student"
    folder = demo / "seeds" / f"{name}-{seed}"
    recipe = assign(distilled(config, name), {"distill.seed": seed})
    with bars.phase(f"student {name}, seed {seed}") as progress:
        distill_run(recipe, demo / images_of(name), folder, progress=progress)
    return folder / "student"


def run_seeds(demo: Path, seeds: int, bars: Bars, real: RealSets | None = None) -> list[dict[str, Any]]:
    """Train what is missing, measure every student on every test set; also written to ``seeds.json``.

    ``real``: the pictures to measure on; all bundled ones if it is None.

    Raises:
        DataError: ``demo`` is not a finished demo directory.
    """
    evaluation = load_evaluation(demo / "evaluation.json")
    if evaluation is None:
        raise DataError(f"{demo} is not a finished demo; run 'prism-fast demo --out {demo}' first")
    config = RunDirectory(demo / "guided").config()
    tests = (real or real_sets()).tests
    rows: list[dict[str, Any]] = []
    for name in STUDENTS:
        folders = [student_of(config, demo, name, config.distill.seed + i, bars) for i in range(seeds)]
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
    replace(demo / "seeds.json", f"{json.dumps(rows, indent=1)}\n".encode())
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
