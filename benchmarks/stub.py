"""A generator of constant tiny images, given to workers in place of networks: everything else is the real code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from prism_fast.config import RunConfig
from prism_fast.dataset.sample import Sample
from prism_fast.labels.load import load_label_space
from prism_fast.prompts.row import PlanRow
from prism_fast.synthesis.synthesizer import Made


def write_labels(folder: Path) -> Path:
    """A label space of three classes."""
    path = folder / "labels.yaml"
    path.write_text(yaml.safe_dump({"name": "pets", "classes": [{"name": n} for n in ("cat", "dog", "red")]}))
    return path


def stub_config(folder: Path, images: int = 7, shard_size: int = 2, **sections: Any) -> RunConfig:
    """A run whose models are never loaded; shards of batches of one."""
    return RunConfig.model_validate(
        {
            "name": "stub",
            "labels": str(write_labels(folder)),
            "models": {"diffusion": "stub", "teacher": "stub"},
            "prompts": {"templates": ["{content}"]},
            "sampling": {"batch_size": 1, "height": 8, "width": 8},
            "guidance": {"enabled": False},
            "synthesis": {"images": images, "shard_size": shard_size},
            **sections,
        }
    )


class Stub:
    """Stands in for a Synthesizer."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.hashes = config, {"diffusion": "d", "teacher": "t"}
        self.classes = len(load_label_space(config.labels).classes)

    def parts(self, rows: Sequence[PlanRow]) -> list[Sequence[PlanRow]]:
        size = self.config.sampling.fixed_batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def denoise(self, rows: Sequence[PlanRow]) -> None:
        return None

    def finish(self, rows: Sequence[PlanRow], sampled: None) -> Made:
        return Made(tuple(self._sample(row) for row in rows), ())

    def _sample(self, row: PlanRow) -> Sample:
        index, label = row.index, row.label
        image = torch.full((3, 8, 8), (index + self.config.seed) % 251, dtype=torch.uint8)
        meta = {
            "index": index,
            "label": label,
            "class_name": row.class_name,
            "prompt": row.prompt,
            "objective_before": None,
            "energy_after": 0.5,
        }
        return Sample(index, image, label, torch.full((self.classes,), float(index % 7)), meta)
