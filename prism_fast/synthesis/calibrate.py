"""Calibrate a run's margins from its own unguided samples, once per run directory."""

from __future__ import annotations

from pathlib import Path

import torch

from prism_fast.dataset.margins import Margins, load_margins
from prism_fast.dataset.plan import build_plan
from prism_fast.errors import RunError
from prism_fast.guidance.margin import class_margins
from prism_fast.guidance.network import energy_of
from prism_fast.storage.files import create, replace, writing
from prism_fast.synthesis.synthesizer import Synthesizer


def calibrate(synthesizer: Synthesizer) -> dict[int, float]:
    """Margins by class from the first ``margin_samples`` rows of the plan, sampled without guidance.

    Raises:
        RunError: not one of these samples stayed finite.
    """
    config = synthesizer.config
    quantile = config.guidance.margin_quantile
    if not config.guidance.enabled or quantile is None:
        return {}
    made = synthesizer.unguided().make(build_plan(config, config.guidance.margin_samples))
    if not made.samples:
        raise RunError(
            f"none of the {len(made.quarantined)} samples that calibrate the margin stayed finite; "
            "check models.diffusion and sampling.dtype"
        )
    logits = torch.stack([s.logits for s in made.samples])
    labels = torch.tensor([s.label for s in made.samples])
    energies, _ = energy_of(config.guidance)(logits, labels)
    return class_margins(energies, labels, quantile)


def stored_margins(synthesizer: Synthesizer, path: Path) -> dict[int, float] | None:
    """Margins stored at ``path``, if they were calibrated with this run's models."""
    stored = load_margins(path)
    return stored.margins if stored and stored.models == synthesizer.hashes else None


def load_or_calibrate(synthesizer: Synthesizer, path: Path) -> dict[int, float]:
    """Margins stored at ``path``, else calibrated and stored; either way the same numbers.

    Margins of other models are calibrated again: a run directory that holds shards of other models was refused before.
    Of several workers that calibrate at once, all take the numbers of the first one.
    """
    stored = stored_margins(synthesizer, path)
    if stored is not None:
        return stored
    made = Margins(models=synthesizer.hashes, margins=calibrate(synthesizer))
    data = made.model_dump_json(indent=1).encode()
    with writing(path):
        if create(path, data):
            return made.margins
        first = stored_margins(synthesizer, path)
        if first is None:
            replace(path, data)
    return made.margins if first is None else first
