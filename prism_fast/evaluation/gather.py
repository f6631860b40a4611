"""Gather a directory's runs, students and measurements into a report."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import DataError
from prism_fast.evaluation import by_class
from prism_fast.evaluation.energies import energy_histogram
from prism_fast.evaluation.first import Shown, energies, first_pairs, first_shown, shown_classes
from prism_fast.evaluation.real_sets import KNOWN
from prism_fast.evaluation.report import (
    ClassAccuracy,
    Confusion,
    Curve,
    CurveChart,
    Diversity,
    Fact,
    GuidancePair,
    Headline,
    ImageGrid,
    NumberRow,
    Picture,
    Report,
    Score,
)
from prism_fast.labels.load import load_label_space

if TYPE_CHECKING:
    from prism_fast.evaluation.comparison import Evaluation, ImageSet, Scored
    from prism_fast.evaluation.cost import Cost

PER_CLASS, PAIRS = 8, 16
STUDENT_NAMES = {
    "guided": "student of guided images",
    "unguided": "student of unguided images",
    "real": "student of real images",
    "inherited": "student made from the teacher",
}


def _grids(found: Iterable[Shown]) -> tuple[ImageGrid, ...]:
    by_class: dict[str, list[Picture]] = defaultdict(list)
    for shown in found:
        meta = shown.sample.meta
        by_class[meta["class_name"]].append(Picture.of(shown.encoded, meta["prompt"]))
    return tuple(ImageGrid(name, tuple(pictures)) for name, pictures in by_class.items())


def _pairs(unguided: ShardSet, guided: ShardSet) -> tuple[GuidancePair, ...]:
    """Same index, noise and prompt: the first pair of each class, none picked by hand."""
    return tuple(_pair(a, b) for a, b in first_pairs(unguided, guided, PAIRS))


def _pair(before: Shown, after: Shown) -> GuidancePair:
    one, other = before.sample.meta, after.sample.meta
    pictures = Picture.of(before.encoded), Picture.of(after.encoded)
    return GuidancePair(*pictures, other["prompt"], one["energy_after"], other["energy_after"])


def _curves(students: Path) -> tuple[CurveChart, ...]:
    histories = {
        p.parent.parent.name: json.loads(p.read_text(encoding="utf-8"))
        for p in sorted(students.glob("*/student/history.json"))
    }
    charts = []
    for key, label in (("loss", "distillation loss"), ("agreement", "agreement with the teacher on the batch")):
        curves = tuple(
            Curve(STUDENT_NAMES.get(name, name), tuple(h["step"] for h in rows), tuple(h[key] for h in rows))
            for name, rows in histories.items()
            if rows and key in rows[0]
        )
        if curves:
            charts.append(CurveChart(label.capitalize(), curves, y_label=label))
    return tuple(charts)


_ROLES: dict[str, Literal["student", "teacher"]] = {
    "guided": "student",
    "inherited": "student",
    "teacher": "teacher",
}
_NOTES = (
    "Pairs and grids are taken by their place in the plan, not chosen.",
    "One training seed; intervals are those of the test set's size.",
)
_HEADLINE = (
    "images", "images_per_s", "energy_guided", "energy_unguided", "energy_real", "precision", "recall",
    "precision_unguided", "recall_unguided",
)  # fmt: skip


def _score(s: Scored) -> Score:
    name = STUDENT_NAMES.get(s.network, s.network)
    return Score(name, s.top1, s.low, s.high, _ROLES.get(s.network, "baseline"), s.test_set)


def _headline(evaluation: Evaluation | None, summary: dict[str, Any]) -> Headline:
    scores = evaluation.scores if evaluation else ()
    ordered = sorted(scores, key=lambda s: (s.test_set != KNOWN, s.test_set, s.network != "guided"))
    return Headline(scores=tuple(map(_score, ordered)), **{n: summary.get(n) for n in _HEADLINE})


def _classes(evaluation: Evaluation, names: tuple[str, ...]) -> tuple[tuple[ClassAccuracy, ...], Confusion | None]:
    found = {s.network: s for s in evaluation.scores if s.test_set == KNOWN}
    student, teacher = found.get("guided"), found.get("teacher")
    if student is None:
        return (), None
    rows = tuple(
        ClassAccuracy(name, student.per_class[i], sum(student.confusion[i]), teacher.per_class[i] if teacher else None)
        for i, name in enumerate(names)
    )
    return rows, Confusion(names, student.confusion, "Student of guided images, unseen concepts in known styles")


def _numbers(evaluation: Evaluation) -> tuple[NumberRow, ...]:
    rows = [
        NumberRow(
            f"{STUDENT_NAMES.get(s.network, s.network)}, {s.test_set}",
            round(100 * s.top1, 1),
            round(50 * (s.high - s.low), 1),
            "%",
            f"top-1 of {s.n} real pictures, 95 % interval of the test set",
        )
        for s in evaluation.scores
    ]
    rows += [row for name, cost in evaluation.costs.items() for row in _cost(STUDENT_NAMES.get(name, name), cost)]
    for made in evaluation.sets:
        mean = sum(made.energies) / len(made.energies)
        rows += [
            NumberRow(f"{made.name}: mean energy", round(mean, 3)),
            NumberRow(f"{made.name}: teacher agrees with the prompt's class", round(100 * made.agreement, 1), unit="%"),
            NumberRow(f"{made.name}: images per second", round(made.images_per_s, 2)),
            NumberRow(
                f"{made.name}: precision / recall",
                f"{made.precision:.3f} / {made.recall:.3f}",
                note=evaluation.features,
            ),
            NumberRow(
                f"{made.name}: density / coverage",
                f"{made.density:.3f} / {made.coverage:.3f}",
                note=evaluation.features,
            ),
            *_class_means(made),
        ]
    return tuple(rows)


def _cost(name: str, cost: Cost) -> list[NumberRow]:
    """What a network costs; a row for each backend that it was timed in."""
    half = f"float32; {cost.half_size_bytes / 1e6:.3g} MB in float16"
    return [
        NumberRow(f"{name}: parameters", cost.parameters),
        NumberRow(f"{name}: multiply-adds", cost.gmac, unit="GMAC", note=f"an image of {cost.image_size} px"),
        NumberRow(f"{name}: weights", cost.size_bytes / 1e6, unit="MB", note=half),
        *(
            NumberRow(
                f"{name}: {one.backend}, {one.batch} image{'s' if one.batch > 1 else ''}",
                one.ms,
                unit="ms",
                note=f"median, CPU, {one.threads} thread{'s' if one.threads > 1 else ''}",
            )
            for one in cost.latency
        ),
    ]


def _class_means(made: ImageSet) -> list[NumberRow]:
    """Nothing of a file that is older than these numbers."""
    rows = []
    if made.vendi is not None:
        note = f"mean over classes, of the first {made.vendi_images} images of each"
        rows.append(NumberRow(f"{made.name}: Vendi score", round(made.vendi, 2), note=note))
    if made.coverage_by_class is not None:
        note = "mean over classes, each within its own real pictures"
        rows.append(NumberRow(f"{made.name}: coverage by class", round(made.coverage_by_class, 3), note=note))
    return rows


def _facts(config: dict[str, Any], run_hash: str) -> tuple[Fact, ...]:
    sampling, guidance, student = config["sampling"], config["guidance"], config["distill"]
    return (
        Fact("configuration", config["name"]),
        Fact("run", run_hash[:16]),
        Fact("seed", str(config["seed"])),
        Fact("solver", f"{sampling['solver']}, {sampling['steps']} steps, guidance scale {sampling['guidance_scale']}"),
        Fact(
            "energy guidance",
            f"{guidance['objective']}, scale {guidance['scale']}, gradient at the {guidance['mode']} latent, "
            f"steps {guidance['window'][0]:.0%}–{guidance['window'][1]:.0%}, every {guidance['every']}",
        ),
        Fact(
            "student",
            f"{student['student']} at {student['image_size']} px, {student['steps']} steps",
        ),
    )


def gather(path: Path, check: bool | None = None, *, diversity: int | None = None) -> Report:
    """A report of a demo directory, or of a single synthesis run.

    Args:
        path: the directory.
        check: whether every byte of the shards is hashed first; None means that of a small run.
        diversity: measure diversity by class on so many images of each, by the network ``models.features`` of the run;
            None, or where a demo measured it already: no network is loaded.

    Raises:
        DataError: there is no run at ``path``, or one of its shards is damaged.
        InputError: diversity is below 2, or ``models.features`` names no network that can be used.
    """
    main = main_run(path)
    facts = RunDirectory(main).facts()
    guided = ShardSet.discover(main, check=check)
    other = path / "unguided"
    unguided = ShardSet.discover(other, check=check) if (other / "run.json").is_file() else None
    evaluation = _evaluation(path / "evaluation.json")
    summary_file = path / "summary.json"
    summary = (
        json.loads(summary_file.read_text(encoding="utf-8")) if summary_file.is_file() else {"images": guided.rows}
    )
    sets = {"guided": energies(guided)} | ({"unguided": energies(unguided)} if unguided else {})
    cut = _cut(guided, len(sets["guided"]), shown := shown_classes(guided, PER_CLASS))
    if evaluation:
        sets["real"] = torch.tensor(evaluation.real_energies)
    names = tuple(c.name for c in load_label_space(facts["config"]["labels"]).classes)
    classes, confusion = _classes(evaluation, names) if evaluation else ((), None)
    spread = by_class.of_evaluation(evaluation, names) if evaluation else None
    if diversity is not None and spread is None:
        runs = {"guided": guided} | ({"unguided": unguided} if unguided else {})
        spread = _measured(main, runs, names, diversity)
        cut = (*cut, by_class.cut_note(spread, diversity, guided.classes))
    return Report(
        title="A student that never saw a real picture" if evaluation else facts["config"]["name"],
        subtitle=f"prism-fast: {guided.rows} synthetic images of {len(names)} classes",
        headline=_headline(evaluation, summary),
        pairs=_pairs(unguided, guided) if unguided else (),
        grids=_grids(first_shown(guided, PER_CLASS, shown)),
        energies=energy_histogram(sets, real="real" if evaluation else None),
        charts=_curves(path / "students"),
        classes=classes,
        confusion=confusion,
        diversity=spread,
        numbers=_numbers(evaluation) if evaluation else (),
        facts=_facts(facts["config"], facts["run_hash"]),
        summary=summary,
        notes=(*(_NOTES if evaluation else ()), *cut),
    )


def _measured(run: Path, runs: dict[str, ShardSet], names: tuple[str, ...], count: int) -> Diversity:
    from prism_fast.evaluation.judge import load_judge

    return by_class.of_runs(runs, load_judge(RunDirectory(run).config().models), names, count)


def _evaluation(path: Path) -> Evaluation | None:
    """What was measured, if anything was; a page about a run alone needs no networks, which take 200 MB to import."""
    if not path.is_file():
        return None
    from prism_fast.evaluation.comparison import load_evaluation

    return load_evaluation(path)


def _cut(shards: ShardSet, energies: int, shown: int) -> tuple[str, ...]:
    """What a large run's page says of what it leaves out."""
    notes = []
    if energies < shards.rows:
        notes.append(f"Energies are those of {energies} of {shards.rows} images, drawn at random in each shard.")
    if shards.classes > shown:
        notes.append(f"Grids show the first {shown} of {shards.classes} classes.")
    return tuple(notes)


def main_run(path: Path) -> Path:
    """The run that a directory is about: its ``guided`` part if it is a demo's, else itself.

    Raises:
        DataError: neither ``run.json`` nor ``guided/run.json`` is there.
    """
    for candidate in (path / "guided", path):
        if (candidate / "run.json").is_file():
            return candidate
    raise DataError(f"{path} holds no run; give what 'prism-fast synthesize' or 'prism-fast demo' wrote")
