"""Calibrate a run's margins from its own unguided samples, once per run directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from prism_fast.guidance.margin import class_margins
from prism_fast.guidance.network import energy_of
from prism_fast.synthesis.plan import build_plan
from prism_fast.synthesis.sampler import Synthesizer


def calibrate(synthesizer: Synthesizer) -> dict[int, float]:
    """Margins by class from the first ``margin_samples`` rows of the plan, sampled without guidance."""
    config = synthesizer.config
    quantile = config.guidance.margin_quantile
    if not config.guidance.enabled or quantile is None:
        return {}
    unguided = config.model_copy(update={"guidance": config.guidance.model_copy(update={"enabled": False})})
    plain = Synthesizer(unguided, synthesizer.model, synthesizer.teacher, synthesizer.hashes)
    made = plain.make(build_plan(config, config.guidance.margin_samples).to_pylist())
    logits = torch.stack([s.logits for s in made.samples])
    labels = torch.tensor([s.label for s in made.samples])
    energies, _ = energy_of(config.guidance)(logits, labels)
    return class_margins(energies, labels, quantile)


def load_or_calibrate(synthesizer: Synthesizer, path: Path) -> dict[int, float]:
    """Margins stored at ``path``, else calibrated and stored; either way the same numbers."""
    if path.exists():
        return {int(k): float(v) for k, v in json.loads(path.read_text()).items()}
    margins = calibrate(synthesizer)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(margins, indent=1))
    os.replace(temporary, path)
    return margins
