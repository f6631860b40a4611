"""What several steps share: their configurations, and runs of drawn pictures that need no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from prism_fast.config import RunConfig, assign, load_config
from prism_fast.dataset.sample import Sample
from prism_fast.gpu_check.finding import Options
from prism_fast.labels.load import load_label_space
from prism_fast.prompts.row import PlanRow
from prism_fast.synthesis.synthesizer import Made
from prism_fast.workers.synthesize import synthesize


def small_run(options: Options, changes: dict[str, Any]) -> RunConfig:
    """The small models on the step's device, eager unless ``changes`` say otherwise."""
    eager = {"engines.backend": "eager", "sampling.device": options.device}
    return assign(load_config(options.small), eager | changes)


def own_run(options: Options, changes: dict[str, Any]) -> RunConfig:
    """The user's configuration on the step's device; the small models when there is none."""
    if options.config is None:
        return small_run(options, changes)
    return assign(load_config(options.config), {"sampling.device": options.device} | changes)


def draw_run(options: Options, out: Path, images: int, image_format: str, side: int = 64) -> RunConfig:
    """A finished run of drawn pictures in ``out``; gives its configuration."""
    size = {"sampling.height": side, "sampling.width": side}
    shards = {"synthesis.images": images, "synthesis.shard_size": images, "synthesis.image_format": image_format}
    config = small_run(options, size | shards)
    synthesize(config, out, generator=Drawn(config))
    return config


class Drawn:
    """Stands in for the networks: waves of colour; each sample's smallest logit, times 64, is its index."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.hashes = config, {"diffusion": "drawn", "teacher": "drawn"}
        self.classes = len(load_label_space(config.labels).classes)

    def parts(self, rows: Sequence[PlanRow]) -> list[Sequence[PlanRow]]:
        """One batch."""
        return [rows]

    def denoise(self, rows: Sequence[PlanRow]) -> None:
        """Nothing is to be denoised."""
        return

    def finish(self, rows: Sequence[PlanRow], sampled: None) -> Made:
        """The pictures."""
        return Made(tuple(self._sample(row) for row in rows), ())

    def _sample(self, row: PlanRow) -> Sample:
        logits = torch.eye(self.classes)[row.label] * 6 + row.index / 64
        meta = {"index": row.index, "label": row.label, "class_name": row.class_name, "prompt": row.prompt}
        energies = {"objective_before": None, "energy_after": 0.0}
        return Sample(row.index, picture(row.index, self.config.sampling.height), row.label, logits, meta | energies)


def index_of(logits: torch.Tensor) -> int:
    """Which drawn sample has these logits (classes,)."""
    return round(float(logits.min()) * 64)


def picture(index: int, side: int) -> torch.Tensor:
    """A smooth picture of its own for each index: uint8 (3, side, side)."""
    place = torch.arange(side) * (2 * math.pi / side)
    waves = [
        torch.sin(place[:, None] * (1 + index % 3) + channel + index) * torch.cos(place[None, :] + channel * index)
        for channel in range(3)
    ]
    return ((torch.stack(waves) + 1) * 127).round().to(torch.uint8)
