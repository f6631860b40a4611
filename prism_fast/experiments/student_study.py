"""Which student, taught how: targets, losses, steps, weights from scratch or from the teacher, at what cost.

Every cell is trained on the same images, those of the configuration with and without guidance; a seed is that of the
training. The students of a cell share its batches, so that what they cost beyond their own steps is paid once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prism_fast.config import assign
from prism_fast.config.distill import InheritConfig
from prism_fast.config.recipes import recipe
from prism_fast.evaluation.comparison import score
from prism_fast.evaluation.cost import cost_of
from prism_fast.evaluation.pictures import Pictures
from prism_fast.experiments.cuts import cut_student
from prism_fast.experiments.demo import without_guidance
from prism_fast.experiments.study import Row, Study, spread
from prism_fast.labels.load import load_label_space
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier import Classifier, load_classifier
from prism_fast.models.label_space import for_label_space
from prism_fast.operations.views import label_views

#: Views of each image whose logits are stored.
VIEWS = 8
TEACHER = "teacher"
#: How many times the configuration's steps a long training has.
LONG = 4
_KL = {"name": "kl", "losses": [{"name": "kl", "temperature": 3.0}]}
_DIST = {"name": "dist", "losses": [{"name": "dist"}]}


_Measure = Callable[[Classifier], Row]


@dataclass(frozen=True)
class Arm:
    """Students of the same batches: what each is, where their targets come from, for how many times the steps."""

    name: str
    students: tuple[dict[str, Any], ...]
    teacher: str = "views"
    factor: float = 1.0
    guided: bool = True
    seeds: int | None = None
    crop_scale: tuple[float, float] | None = None


def _cut(size: int, **inherit: Any) -> dict[str, Any]:
    return cut_student("cut", size, InheritConfig(**inherit))


#: The crops of the recipe ``finetune``.
_LARGE = tuple(recipe("finetune")["crop_scale"])


def _crops(cut: dict[str, Any]) -> tuple[float, float] | None:
    return None if "blocks" in cut["inherit"] else _LARGE


_FIFTH = _cut(64, blocks=5)
#: Two thirds of the residual blocks stay.
_HALF = _cut(96, depth=0.67)
#: A fifth that learns from logits alone, and normalises by each batch.
_BY_LOGITS = {
    "name": "cut",
    "student_from": "teacher",
    "image_size": 64,
    "inherit": {"blocks": 5},
    "lr": 0.004,
    "losses": [{"name": "dist"}],
}
#: From a tenth of the teacher's multiply-adds to all of them; a cell each, for their pictures differ in size.
_CURVE = (
    ("curve 0.10", _cut(48, blocks=5)),
    ("curve 0.28", _cut(80, blocks=5)),
    ("curve 0.45", _cut(80)),
    ("curve 0.71", _cut(112, depth=0.67)),
    ("curve 0.84", _cut(112)),
    ("curve 1.00", _cut(128)),
)
ARMS = (
    Arm("stored", (_KL, _DIST), "stored"),
    Arm("views", (_KL, _DIST)),
    Arm("live", (_KL, _DIST), "live"),
    Arm("larger pictures", ({**_DIST, "name": "dist-96", "image_size": 96},)),
    Arm("fifth", (_FIFTH,), "live", 0.5),
    Arm("fifth of unguided images", (_FIFTH,), "live", 0.5, guided=False),
    Arm("fifth by logits alone", (_BY_LOGITS,)),
    Arm("half", (_HALF,), "live", 1 / 3, crop_scale=_LARGE),
    Arm("half of unguided images", (_HALF,), "live", 1 / 3, guided=False, crop_scale=_LARGE),
    *(Arm(name, (cut,), "live", 0.25, seeds=1, crop_scale=_crops(cut)) for name, cut in _CURVE),
    Arm("long stored", (_KL, _DIST), "stored", LONG),
    Arm("long views", (_KL, _DIST), factor=LONG),
    Arm("long live", (_KL, _DIST), "live", LONG),
)


def run_student_study(study: Study, arms: Sequence[Arm], seeds: int) -> list[Row]:
    """Every cell that is not there yet, arm by arm; all rows, also written to ``study.json``.

    The first row is the teacher's own.
    """
    found = load_classifier(resolve(study.config.models.teacher, "teacher"))
    teacher = for_label_space(found, load_label_space(study.config.labels))
    measured = partial(_measured, study, cost_of(teacher).gmac)
    named = {"arm": TEACHER, "student": TEACHER, "seed": 0}
    rows = study.cell(study.out / TEACHER, lambda: [{**named, **measured(teacher)}])
    for arm in arms:
        run = _images(study, arm)
        for seed in range(min(seeds, arm.seeds or seeds)):
            folder = study.out / f"{arm.name.replace(' ', '-')}-{seed}"
            rows += study.cell(folder, partial(_cell, study, arm, seed, run, folder, measured))
            study.write(rows)
    return rows


def _images(study: Study, arm: Arm) -> Path:
    """The run that an arm's students learn from, with its views labelled if they are wanted."""
    name, config = ("guided", study.config) if arm.guided else ("unguided", without_guidance(study.config))
    run = study.out / name
    study.make(config, run, f"{name} images")
    if arm.teacher == "views":
        with study.bars.phase(f"label views of {name} images") as progress:
            label_views(run, VIEWS, progress=progress)
    return run


def _cell(study: Study, arm: Arm, seed: int, run: Path, folder: Path, measured: _Measure) -> list[Row]:
    changes: dict[str, object] = {
        "distill.students": list(arm.students),
        "distill.teacher": arm.teacher,
        "distill.seed": seed,
        "distill.steps": max(1, round(arm.factor * study.config.distill.steps)),
    }
    if arm.crop_scale is not None:
        changes["distill.crop_scale"] = arm.crop_scale
    results = study.train(assign(study.config, changes), run, folder / "students", f"{arm.name}, seed {seed}")
    return [
        {
            "arm": arm.name,
            "student": result.name,
            "seed": seed,
            "steps": result.steps,
            "images_per_s": result.images_per_s,
            "data_wait": result.data_wait,
            **measured(load_classifier(str(result.student))),
        }
        for result in results
    ]


def _measured(study: Study, whole: float, network: Classifier) -> Row:
    size, cost = study.config.evaluate.batch_size, cost_of(network)

    def top1(name: str, pictures: Pictures) -> float:
        return score("", network, name, pictures, size).top1

    return {
        "parameters": cost.parameters,
        "gmac": cost.gmac,
        "share": cost.gmac / whole,
        "validation": top1("validation", study.real.validation),
        "top1": {name: top1(name, pictures) for name, pictures in study.real.tests.items()},
    }


def as_markdown(rows: Sequence[Row]) -> str:
    """Top-1 in percent, mean ± standard deviation over seeds, and what that is of the teacher's."""
    (teacher,) = (row for row in rows if row["arm"] == TEACHER)
    tests = list(teacher["top1"])
    lines = [
        "| students | student | steps | GMAC | of the teacher's | validation | " + " | ".join(tests) + " |",
        "|---|" + "---|" * (5 + len(tests)),
    ]
    for arm, student in dict.fromkeys((row["arm"], row["student"]) for row in rows):
        own = [row for row in rows if (row["arm"], row["student"]) == (arm, student)]
        cells = [arm, student, str(own[0].get("steps", "")), f"{own[0]['gmac']:.4f}", f"{own[0]['share']:.3f}"]
        cells += [spread([100 * row["validation"] for row in own], 1)]
        for test in tests:
            tops, whole = [100 * row["top1"][test] for row in own], 100 * teacher["top1"][test]
            cells.append(f"{spread(tops, 1)} ({100 * statistics.mean(tops) / whole:.0f} %)")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
