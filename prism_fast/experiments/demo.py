"""The whole method on the bundled models: synthesize, distil, measure on real held-out pictures, report."""

from __future__ import annotations

import json
import platform
import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from prism_fast.compile.tune import with_tuned_batch
from prism_fast.config import RunConfig, assign
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.run import distill_run
from prism_fast.evaluation.comparison import Evaluation, ImageSet, Scored, features_of, measure_set, score
from prism_fast.evaluation.cost import BACKENDS, cost_of
from prism_fast.evaluation.diversity import common_size, count_images
from prism_fast.evaluation.energies import free_energies
from prism_fast.evaluation.gather import gather
from prism_fast.evaluation.judge import Judge, load_judge
from prism_fast.evaluation.real_sets import GENERATOR_ONLY, KNOWN, SHIFT, RealSets, real_sets
from prism_fast.evaluation.report import build_report
from prism_fast.experiments.real_pictures import write_pictures
from prism_fast.labels.load import load_label_space
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier import Classifier, load_classifier
from prism_fast.models.label_space import for_label_space
from prism_fast.storage.files import replace
from prism_fast.workers.synthesize import synthesize

VERSIONS = ("prism-fast", "torch", "diffusers", "transformers", "timm", "nvidia-dali-cuda130", "openvino", "numpy")
#: The first three begin with fresh weights, each on the images it is called after. The last is made from the teacher's
#: first five of seven block groups, at half of its side, and has half of the steps on guided images, with a teacher
#: pass in each.
STUDENTS = ("guided", "unguided", "real", "inherited")
INHERITED = {"distill.recipe": "inherit", "distill.inherit.blocks": 5}
#: Whose cost the report says.
COSTED = ("teacher", "guided", "inherited")


class Bars(Protocol):
    """Shows progress of named phases."""

    def phase(self, name: str) -> AbstractContextManager[Callable[[int, int, float], None]]:
        """A context in which the returned function is called with (done, total, value)."""
        ...


def distilled(config: RunConfig, name: str) -> RunConfig:
    """The recipe of the student called ``name``; of real pictures nothing is selected."""
    changes: dict[str, dict[str, object]] = {
        "real": {"distill.selection": False},
        "inherited": {**INHERITED, "distill.steps": max(1, config.distill.steps // 2)},
    }
    return assign(config, changes[name]) if name in changes else config


def images_of(name: str) -> str:
    """The folder of what the student called ``name`` learns from."""
    return "guided" if name == "inherited" else name


def train_students(config: RunConfig, out: Path, names: tuple[str, ...], bars: Bars) -> dict[str, Classifier]:
    """Each student on its shards; a finished one is loaded, an interrupted one goes on."""
    students = {}
    for name in names:
        folder, kind = out / "students" / name, "the inherited student" if name == "inherited" else "the student"
        with bars.phase(f"distil {kind} of {images_of(name)} images") as progress:
            distill_run(distilled(config, name), out / images_of(name), folder, progress=progress)
        students[name] = load_classifier(str(folder / "student"))
    return students


def _measure(
    config: RunConfig,
    out: Path,
    real: RealSets,
    networks: dict[str, Classifier],
    judge: Judge,
    rates: dict[str, float],
) -> Evaluation:
    size, k = config.evaluate.batch_size, config.evaluate.neighbours
    scores: list[Scored] = [
        score(name, network, test_set, pictures, size)
        for test_set, pictures in real.tests.items()
        for name, network in networks.items()
    ]
    known = real.tests[KNOWN]
    reference = features_of(judge.network, known.images, size)
    shards = {name: ShardSet.discover(out / name) for name in rates}
    compared = common_size(map(count_images, shards.values()))
    sets: list[ImageSet] = [
        measure_set(
            name,
            list(shards[name].samples()),
            reference,
            judge.network,
            k,
            size,
            rate,
            real_labels=known.labels,
            vendi_images=compared,
        )
        for name, rate in rates.items()
    ]
    energies = free_energies(networks["teacher"].logits(known.images))
    return Evaluation(
        scores=tuple(scores),
        sets=tuple(sets),
        real_energies=tuple(energies.tolist()),
        features=judge.name,
        costs={name: cost_of(networks[name], latency=BACKENDS) for name in COSTED},
    )


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def summarize(evaluation: Evaluation, wall_s: float) -> dict[str, Any]:
    """The numbers of ``summary.json``."""
    guided, unguided = evaluation.sets
    tops = {
        f"{network}_top1{suffix}": evaluation.top1(key, test_set)
        for network, key in (("teacher", "teacher"), ("student", "guided"), ("inherited", "inherited"))
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
        "coverage_by_class": guided.coverage_by_class,
        "vendi": guided.vendi,
        "precision_unguided": unguided.precision,
        "recall_unguided": unguided.recall,
        "coverage_by_class_unguided": unguided.coverage_by_class,
        "vendi_unguided": unguided.vendi,
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
    return assign(config, {"guidance.enabled": False})


def run_demo(
    config: RunConfig, out: Path, bars: Bars, log: Callable[[str], None] = print, real: RealSets | None = None
) -> dict[str, Any]:
    """Everything, resumable at any point; returns what ``summary.json`` holds. Engines are kept in ``out/engines``.

    ``real``: the pictures to measure on; all bundled ones if it is None.
    """
    start, real = time.monotonic(), real or real_sets()
    config, judge = with_tuned_batch(config, None), load_judge(config.models)
    rates = {}
    for name, settings in (("guided", config), ("unguided", without_guidance(config))):
        with bars.phase(f"synthesize {name} images") as progress:
            synthesize(settings, out / name, progress, out / "engines", log)
        records = RunDirectory(out / name).records().values()
        rates[name] = sum(r.planned for r in records) / sum(r.seconds for r in records)
    found = load_classifier(resolve(config.models.teacher, "teacher"))
    teacher = for_label_space(found, load_label_space(config.labels))
    write_pictures(
        out / "real", real.train.images, real.train.labels, teacher, config.run_hash(), config.synthesis.shard_size
    )
    students = train_students(config, out, STUDENTS, bars)
    evaluation = _measure(config, out, real, {"teacher": teacher, **students}, judge, rates)
    replace(out / "evaluation.json", evaluation.model_dump_json().encode())
    summary = summarize(evaluation, time.monotonic() - start)
    replace(out / "summary.json", f"{json.dumps(summary, indent=2)}\n".encode())
    build_report(gather(out), out / "report.html")
    return summary
