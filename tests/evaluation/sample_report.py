"""A report made of plausible, invented data, for the tests of the page."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from prism_fast.evaluation.energies import EnergyHistogram, energy_histogram
from prism_fast.evaluation.report import (
    ClassAccuracy,
    ClassSpread,
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

CLASSES = (
    "face", "heart", "mammal", "bird", "sea animal", "bug", "plant", "produce",
    "dish", "dessert", "drink", "vehicle", "building", "clock", "clothing", "musical instrument",
)  # fmt: skip
STYLES = ("noto", "twemoji", "blob", "fluent 3d")


def blob(rng: np.random.Generator, softness: float = 2.0) -> NDArray[np.uint8]:
    """A round coloured thing on white, 64 x 64."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    wobble = 0.62 + 0.12 * np.sin(rng.integers(2, 6) * np.arctan2(y, x) + rng.uniform(0, 6))
    mask = 1 / (1 + np.exp(-(wobble - np.hypot(x, y)) * 30 / softness))[..., None]
    color = rng.uniform(40, 230, 3) + 25 * (x - y)[..., None]
    pixels: NDArray[np.uint8] = np.clip(color * mask + 255 * (1 - mask), 0, 255).astype(np.uint8)
    return pixels


def sample_report() -> Report:
    """Every part of the page filled in."""
    rng = np.random.default_rng(0)
    grids = tuple(
        ImageGrid(name, tuple(Picture.of(blob(rng), f"{STYLES[i % 4]} style, {name}") for i in range(8)))
        for name in CLASSES
    )
    pairs = tuple(_pair(rng, i) for i in range(8))
    counts = _confusion(rng)
    classes = tuple(
        ClassAccuracy(name, counts[i][i] / sum(counts[i]), sum(counts[i]), min(1.0, 0.6 + 0.02 * i))
        for i, name in enumerate(CLASSES)
    )
    return Report(
        title="minis-emoji: a student that never saw a real image",
        subtitle="640 synthetic pictures, steered by the teacher's energy, distilled into resnet10t in 800 steps.",
        headline=_headline(),
        pairs=pairs,
        grids=grids,
        energies=_energies(),
        charts=_charts(),
        classes=classes,
        confusion=Confusion(CLASSES, counts, "Student, guided images"),
        diversity=_diversity(),
        numbers=_numbers(),
        facts=(
            Fact("run hash", "3f9a" * 16),
            Fact("teacher", "efficientnet_lite0, 128 px"),
            Fact("solver", "dpmpp_2m, 20 steps"),
            Fact("machine", "2 cores, no accelerator"),
        ),
        notes=("Invented data: a test of the page, not a measurement.",),
        summary={"student_top1": 0.617, "note": "</script><b>", "bad": math.nan, "versions": {"torch": "2"}},
    )


def _diversity() -> Diversity:
    rows = tuple(
        ClassSpread(
            name,
            images=(40, 39),
            vendi=(9.5 + (7 * i % 16) / 4, 11.25 + i / 8) if i else (None, 12.3),
            agreement=(0.93, 0.7 - i / 100),
            coverage=(0.5 + i / 50, 1.0) if i != 3 else (None, None),
            real=28 if i != 3 else 0,
        )
        for i, name in enumerate(CLASSES)
    )
    return Diversity(("guided", "unguided"), rows, 39, "EfficientNet-Lite1, 128 px")


def _headline() -> Headline:
    known, shift = "unseen concepts, known styles", "styles that nobody trained on"
    return Headline(
        scores=(
            Score("Teacher", 0.741, 0.694, 0.783, "teacher", known),
            Score("Student, guided images", 0.617, 0.566, 0.665, "student", known),
            Score("Student, real images", 0.602, 0.551, 0.651, "baseline", known),
            Score("Student, unguided images", 0.561, 0.51, 0.61, "baseline", known),
            Score("Teacher", 0.648, 0.61, 0.68, "teacher", shift),
            Score("Student, guided images", 0.523, 0.49, 0.56, "student", shift),
        ),
        images=640,
        images_per_s=3.42,
        energy_guided=-7.81,
        energy_unguided=-5.93,
        energy_real=-8.4,
        precision=0.713,
        recall=0.542,
        precision_unguided=0.655,
        recall_unguided=0.561,
    )


def _pair(rng: np.random.Generator, i: int) -> GuidancePair:
    seed = int(rng.integers(1 << 30))
    images = [Picture.of(blob(np.random.default_rng(seed), softness)) for softness in (9.0, 1.5)]
    before = float(rng.normal(-6, 1))
    after = before - float(rng.normal(1.5, 1))
    caption = f"a {STYLES[i % 4]} style emoji of {CLASSES[i]}"
    return GuidancePair(images[0], images[1], caption, before, after)


def _confusion(rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    counts = rng.poisson(0.35, (16, 16)) + np.diag(rng.integers(8, 24, 16))
    return tuple(tuple(int(c) for c in row) for row in counts)


def _energies() -> EnergyHistogram:
    generator = torch.Generator().manual_seed(0)
    means = {"guided": -7.8, "unguided": -5.9, "real": -8.4}
    return energy_histogram({n: torch.randn(640, generator=generator) * 1.4 + m for n, m in means.items()})


def _charts() -> tuple[CurveChart, ...]:
    steps = tuple(float(s) for s in range(0, 800, 2))
    names = ("guided", "unguided", "real")
    rng = np.random.default_rng(1)

    def falling(rate: float) -> tuple[float, ...]:
        return tuple(2.4 * math.exp(-s / rate) + 0.4 + float(rng.normal(0, 0.03)) for s in steps)

    loss = tuple(Curve(n, steps, falling(180 + 60 * i)) for i, n in enumerate(names))
    few = tuple(float(s) for s in range(0, 801, 100))
    top1 = tuple(Curve(n, few, tuple(60 * (1 - math.exp(-s / 200)) - 3 * i for s in few)) for i, n in enumerate(names))
    return (
        CurveChart("Distillation loss", loss, "step", "KL divergence"),
        CurveChart("Top-1 on held-out images", top1, "step", "top-1, %"),
    )


def _numbers() -> tuple[NumberRow, ...]:
    return (
        NumberRow("teacher top-1", 74.1, 4.4, "%", "real test images, unseen concepts"),
        NumberRow("student top-1, guided", 61.7, 4.9, "%", "no real image was seen in training"),
        NumberRow("student top-1, real images", 60.2, 5.0, "%", "same recipe and number of steps"),
        NumberRow("density / coverage", "0.91 / 0.78", note="k = 5"),
        NumberRow("peak memory", 2_345_678_901, unit="bytes"),
        NumberRow("wall time", 512.7, unit="s"),
    )
