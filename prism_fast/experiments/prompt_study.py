"""Which prompts give the best student: the same number of images and the same guidance, other prompts, three seeds.

``templates``: the configuration's own. ``bank``: the bundled bank. ``bank + coverage``: of its prompts those farthest
apart for the text encoder. ``bank + round of X``: two thirds of the images from the bank, the last third given out by
an adaptive round towards X. Every arm is synthesized, distilled and measured with the same code; a seed is that of the
noise, of the plan and of the student.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from prism_fast.config import ModelsConfig, RunConfig, assign
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.evaluation.comparison import features_of, measure_set, score
from prism_fast.evaluation.judge import load_judge
from prism_fast.evaluation.pictures import Pictures
from prism_fast.evaluation.real_sets import KNOWN
from prism_fast.experiments.study import Row, Study, spread
from prism_fast.models.classifier import Classifier, load_classifier
from prism_fast.operations.decide import Aim
from prism_fast.operations.extend import extend
from prism_fast.operations.needs import Towards

BANK = {"prompts.bank": "bundled", "prompts.axes": "emoji", "prompts.templates": []}
#: What an arm is compared with, seed by seed.
BASE = "templates"


@dataclass(frozen=True)
class Arm:
    """One way to make the prompts; with ``towards`` the last third of the images is a round."""

    name: str
    changes: tuple[tuple[str, Any], ...] = ()
    towards: Towards | None = None


_BANK = tuple(BANK.items())
ARMS = (
    Arm("templates"),
    Arm("bank", _BANK),
    Arm("bank + coverage", (*_BANK, ("prompts.select", "coverage"))),
    Arm("bank + round of agreement", _BANK, "agreement"),
    Arm("bank + round of coverage", _BANK, "coverage"),
    Arm("bank + round of student", _BANK, "student"),
)


def _config(study: Study, arm: Arm, seed: int) -> RunConfig:
    return assign(study.config, {**dict(arm.changes), "seed": seed, "distill.seed": seed})


def folder_of(study: Study, arm: Arm, seed: int) -> Path:
    """Where a cell is kept."""
    return study.out / f"{arm.name.replace(' + ', '-').replace(' ', '-')}-{seed}"


def run_study(study: Study, arms: Sequence[Arm], seeds: int) -> list[Row]:
    """Every cell that is not there yet, seed by seed; all rows, also written to ``study.json``."""
    rows: list[Row] = []
    for seed in range(seeds):
        for arm in arms:
            rows += study.cell(folder_of(study, arm, seed), partial(_cell, study, arm, seed))
            study.write(rows)
    return rows


def _cell(study: Study, arm: Arm, seed: int) -> list[Row]:
    folder, config, name = folder_of(study, arm, seed), _config(study, arm, seed), f"{arm.name}, seed {seed}"
    if arm.towards is not None:
        _round(study, arm, seed)
    study.make(config, folder / "run", name)
    (student,) = study.train(config, folder / "run", folder / "student", name)
    return [{"arm": arm.name, "seed": seed, **_measured(study, config, folder / "run", student.student)}]


def _round(study: Study, arm: Arm, seed: int) -> None:
    """The run of an arm with a round: two thirds of the bank's images, extended towards what they lack."""
    run, config = folder_of(study, arm, seed) / "run", _config(study, arm, seed)
    images, shard_size = config.synthesis.images, config.synthesis.shard_size
    begun = assign(config, {"synthesis.images": images * 2 // 3 // shard_size * shard_size})
    base, name = study.out / f"two-thirds-{seed}", f"two thirds of the bank, seed {seed}"
    study.make(begun, base / "run", name)
    student = None
    if arm.towards == "student":
        student = study.train(begun, base / "run", base / "student", name)[0].student
    if not RunDirectory(run).exists():
        shutil.rmtree(run, ignore_errors=True)  # of a copy that was not finished: run.json comes last
        shutil.copytree(base / "run", run, ignore=shutil.ignore_patterns("run.json"))
        shutil.copy2(base / "run" / "run.json", run / "run.json")
    with study.bars.phase(f"round of {arm.towards}, seed {seed}") as progress:
        extend(run, images, Aim(arm.towards, student) if arm.towards else None, progress)


@cache
def _judged(models: ModelsConfig, batch_size: int, known: Pictures) -> tuple[Classifier, torch.Tensor]:
    judge = load_judge(models).network
    return judge, features_of(judge, known.images, batch_size)


def _measured(study: Study, config: RunConfig, run: Path, student: Path) -> dict[str, Any]:
    size, sets, network = config.evaluate.batch_size, study.real, load_classifier(str(student))
    judge, features = _judged(config.models, size, sets.tests[KNOWN])
    samples = list(ShardSet.discover(run).samples())
    found = measure_set(
        "run",
        samples,
        features,
        judge,
        config.evaluate.neighbours,
        size,
        0.0,
        real_labels=sets.tests[KNOWN].labels,
        vendi_images=max(2, config.synthesis.images * 4 // 5 // network.config.num_classes),  # every class has so many
    )
    return {
        "images": found.images,
        "prompts": len({sample.meta["prompt"] for sample in samples}),
        "agreement": found.agreement,
        "vendi": found.vendi,
        "coverage": found.coverage,
        "coverage_by_class": found.coverage_by_class,
        "precision": found.precision,
        "recall": found.recall,
        "top1": {name: score(name, network, name, pictures, size).top1 for name, pictures in sets.tests.items()},
    }


def as_markdown(rows: Sequence[Row]) -> str:
    """Mean ± standard deviation over seeds, and of accuracies the paired difference to :data:`BASE`, in points."""
    tests = list(rows[0]["top1"]) if rows else []
    lines = [
        "| prompts | distinct | agreement | Vendi | coverage | " + " | ".join(f"top-1, {t}" for t in tests) + " |",
        "|---|" + "---|" * (4 + len(tests)),
    ]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = {row["seed"]: row for row in rows if row["arm"] == arm}
        base = {row["seed"]: row for row in rows if row["arm"] == BASE}
        cells = [f"{statistics.mean(r['prompts'] for r in own.values()):.0f}"]
        cells += [spread([100 * r["agreement"] for r in own.values()], 1)]
        cells += [spread([r["vendi"] for r in own.values()], 2)]
        cells += [spread([100 * r["coverage"] for r in own.values()], 1)]
        for test in tests:
            cell = spread([100 * r["top1"][test] for r in own.values()], 1)
            paired = [100 * (own[s]["top1"][test] - base[s]["top1"][test]) for s in own.keys() & base.keys()]
            cells.append(f"{cell} ({spread(paired, 1, '+')})" if paired and arm != BASE else cell)
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
