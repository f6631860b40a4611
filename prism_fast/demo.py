"""The whole method on the bundled models: synthesize, distil, measure on real held-out pictures, report."""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from prism_fast.config import RunConfig
from prism_fast.data.schema import ShardSet
from prism_fast.distill.student import MEAN, STD
from prism_fast.distill.trainer import distill
from prism_fast.evaluate.comparison import Evaluation, ImageSet, Scored, features_of, measure_set, score
from prism_fast.evaluate.energies import free_energy
from prism_fast.evaluate.gather import KNOWN, gather
from prism_fast.evaluate.report import build_report
from prism_fast.minis.bundle import resolve
from prism_fast.minis.efficientnet import efficientnet_lite
from prism_fast.minis.pictures import Pictures, load_pictures
from prism_fast.minis.sources import GENERATOR_STYLES, SHIFT_STYLES, TEACHER_STYLES
from prism_fast.models.classifier import Classifier, load_classifier
from prism_fast.synthesis.reader import read_samples
from prism_fast.synthesis.real import write_pictures
from prism_fast.synthesis.worker import synthesize

GENERATOR_ONLY = "unseen concepts, styles only the generator knew"
SHIFT = "unseen concepts, styles nobody knew"
VERSIONS = ("prism-fast", "torch", "diffusers", "transformers", "timm", "nvidia-dali-cuda130", "openvino", "numpy")
STUDENTS = ("guided", "unguided", "real")
_FEATURE_SIZE = 128


class Bars(Protocol):
    """Shows progress of named phases."""

    def phase(self, name: str) -> AbstractContextManager[Callable[[int, int, float], None]]:
        """A context in which the returned function is called with (done, total, value)."""
        ...


@dataclass(frozen=True)
class RealSets:
    """Real pictures: the teacher's training pictures, and test sets that nothing was trained on."""

    train: Pictures
    tests: dict[str, Pictures]


def real_sets() -> RealSets:
    """The bundled pictures."""
    table = Path(resolve("minis", "pictures"))
    generator_only = tuple(s for s in GENERATOR_STYLES if s not in TEACHER_STYLES)
    tests = {KNOWN: TEACHER_STYLES, GENERATOR_ONLY: generator_only, SHIFT: SHIFT_STYLES}
    return RealSets(
        load_pictures(table, "train", TEACHER_STYLES),
        {name: load_pictures(table, "test", styles) for name, styles in tests.items()},
    )


def shards_of(config: RunConfig, out: Path, name: str) -> ShardSet:
    """What the student called ``name`` is trained on; of real pictures nothing is selected."""
    return ShardSet.discover(out / name, config.distill.selection and name != "real")


def train_students(config: RunConfig, out: Path, names: tuple[str, ...], bars: Bars) -> dict[str, Classifier]:
    """The same recipe on each set of shards; a finished student is loaded, an interrupted one goes on."""
    students = {}
    for name in names:
        folder = out / "students" / name
        with bars.phase(f"distil the student of {name} images") as progress:
            distill(config.distill, shards_of(config, out, name), folder, mean=MEAN, std=STD, progress=progress)
        students[name] = load_classifier(str(folder / "student"))
    return students


def _measure(
    config: RunConfig, out: Path, real: RealSets, networks: dict[str, Classifier], rates: dict[str, float]
) -> Evaluation:
    size, k = config.evaluate.batch_size, config.evaluate.neighbours
    scores: list[Scored] = [
        score(name, network, test_set, pictures, size)
        for test_set, pictures in real.tests.items()
        for name, network in networks.items()
    ]
    judge = efficientnet_lite(1, _FEATURE_SIZE)
    known = real.tests[KNOWN].images
    reference = features_of(judge, known, size)
    sets: list[ImageSet] = [
        measure_set(name, read_samples(out / name), reference, judge, k, size, rate) for name, rate in rates.items()
    ]
    energies = free_energy(networks["teacher"].logits(known))
    return Evaluation(
        scores=tuple(scores),
        sets=tuple(sets),
        real_energies=tuple(energies.tolist()),
        features="EfficientNet-Lite1, ImageNet weights, 128 px",
    )


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def summarize(evaluation: Evaluation, wall_s: float) -> dict[str, Any]:
    """The numbers of ``summary.json``."""
    guided, unguided = evaluation.sets
    tops = {
        f"{network}_top1{suffix}": evaluation.top1(key, test_set)
        for network, key in (("teacher", "teacher"), ("student", "guided"))
        for suffix, test_set in (("", KNOWN), ("_generator_styles", GENERATOR_ONLY), ("_domain_shift", SHIFT))
    }
    for key in ("unguided", "real"):
        for suffix, test_set in (("", KNOWN), ("_generator_styles", GENERATOR_ONLY), ("_domain_shift", SHIFT)):
            tops[f"student_top1_{key}{suffix}"] = evaluation.top1(key, test_set)
    return {
        "images": guided.images,
        "images_per_s": guided.images_per_s,
        "images_per_s_unguided": unguided.images_per_s,
        **tops,
        "energy_guided": _mean(guided.energies),
        "energy_unguided": _mean(unguided.energies),
        "energy_real": _mean(evaluation.real_energies),
        "agreement_guided": guided.agreement,
        "agreement_unguided": unguided.agreement,
        "precision": guided.precision,
        "recall": guided.recall,
        "density": guided.density,
        "coverage": guided.coverage,
        "precision_unguided": unguided.precision,
        "recall_unguided": unguided.recall,
        "wall_s": wall_s,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def without_guidance(config: RunConfig) -> RunConfig:
    """The same run, prompts and noise, without energy guidance."""
    return config.model_copy(update={"guidance": config.guidance.model_copy(update={"enabled": False})})


def run_demo(config: RunConfig, out: Path, bars: Bars, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Everything, resumable at any point; returns what ``summary.json`` holds. Engines are kept in ``out/engines``."""
    start = time.monotonic()
    rates = {}
    for name, settings in (("guided", config), ("unguided", without_guidance(config))):
        with bars.phase(f"synthesize {name} images") as progress:
            synthesize(settings, out / name, progress, out / "engines", log)
        records = _records(out / name)
        rates[name] = sum(r.planned for r in records) / sum(r.seconds for r in records)
    teacher = load_classifier(resolve(config.models.teacher, "teacher"))
    real = real_sets()
    write_pictures(
        out / "real", real.train.images, real.train.labels, teacher, config.run_hash(), config.synthesis.shard_size
    )
    students = train_students(config, out, STUDENTS, bars)
    evaluation = _measure(config, out, real, {"teacher": teacher, **students}, rates)
    _write(out / "evaluation.json", evaluation.model_dump_json())
    summary = summarize(evaluation, time.monotonic() - start)
    _write(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    build_report(gather(out), out / "report.html")
    return summary


def _records(run: Path) -> list[Any]:
    from prism_fast.synthesis.rundir import RunDirectory

    return list(RunDirectory(run).records().values())


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
